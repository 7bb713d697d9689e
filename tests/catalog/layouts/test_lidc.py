"""LIDC-IDRI: CT series of its patients, without radiographs and localisers."""

import pytest

from catalog.layouts.trees import lidc
from scanlearn.catalog.table import Catalog
from scanlearn.errors import ScanlearnError


@pytest.mark.parametrize("within", ["LIDC-IDRI", "", "manifest-1600709154662/LIDC-IDRI"])
def test_rows_are_the_ct_series_of_each_patient(tmp_path, capsys, within):
    catalog = Catalog.from_source(lidc.make(tmp_path, within=within))
    assert [len(paths) for paths in catalog.column("paths")] == [lidc.SLICES] * 2
    assert catalog.column("patient_id") == ["lidc:LIDC-IDRI-0001", "lidc:LIDC-IDRI-0002"]
    assert catalog.column("study_id") == ["1.2.3.1", "1.2.3.2"] and {*catalog.column("modality")} == {"CT"}
    said = capsys.readouterr().err
    assert "localiser 2" in said and "2 radiographs, single images" in said and "patients 2 (published 1,010)" in said


def test_folders_without_ct_are_one_sentence(tmp_path):
    gone = [f"LIDC-IDRI-{n:04d}/01-01-2000-{n}" for n in (1, 2)]
    with pytest.raises(ScanlearnError, match="hold no CT"):
        Catalog.from_source(lidc.make(tmp_path, without=gone))
