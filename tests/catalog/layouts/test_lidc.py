"""LIDC-IDRI: CT series of its patients, without radiographs and localisers."""

import numpy as np
import pytest

from catalog.layouts.trees import lidc
from scanlearn.catalog.candidates import candidates_of
from scanlearn.catalog.table import Catalog
from scanlearn.errors import ScanlearnError
from scanlearn.scans.sources import FileSource


@pytest.mark.parametrize("within", ["LIDC-IDRI", "", "manifest-1600709154662/LIDC-IDRI"])
def test_rows_are_the_ct_series_of_each_patient(tmp_path, capsys, within):
    catalog = Catalog.from_source(lidc.make(tmp_path, within=within))
    assert [len(paths) for paths in catalog.column("paths")] == [lidc.SLICES] * 2
    assert catalog.column("patient_id") == ["lidc:LIDC-IDRI-0001", "lidc:LIDC-IDRI-0002"]
    assert catalog.column("study_id") == ["1.2.3.1", "1.2.3.2"] and {*catalog.column("modality")} == {"CT"}
    said = capsys.readouterr().err
    assert "localiser 2" in said and "2 radiographs, single images" in said and "patients 2 (published 1,010)" in said


NODULES = [
    # Mean of (4,6) (6,6) (6,8) (4,8) (5,7), which is (5, 7) at 3 mm; of (4,6) (6,8); 0.7 mm pixels, LPS to RAS.
    "-3.5 -4.9 3 4;-3.5 -4.9 2.5 2",
    "none",
]


@pytest.mark.parametrize("apart", ["", "LIDC-XML-only/tcia-lidc-xml/157"])
def test_nodules_are_the_centres_and_grades_of_each_reader(tmp_path, apart):
    catalog = Catalog.from_source(lidc.make(tmp_path, apart=apart))
    assert catalog.column("nodules") == NODULES
    _, places, words = candidates_of(catalog, "nodules")
    assert places.tolist() == [[-3.5, -4.9, 3.0], [-3.5, -4.9, 2.5]] and words == ["4", "2"]
    scan = FileSource(catalog).read(0)
    assert np.allclose(np.linalg.inv(scan.affine) @ [*places[0], 1], [5, 7, 1.2, 1])  # between its slices 1 and 2


def test_ct_without_a_reading_have_no_nodules_and_it_is_said(tmp_path, capsys):
    gone = ["LIDC-IDRI-0002/01-01-2000-2/3000566.000000-03192/070.xml"]
    assert Catalog.from_source(lidc.make(tmp_path / "a", without=gone)).column("nodules") == [NODULES[0], ""]
    assert "1 CT have no reading (XML), so their nodules are not known." in capsys.readouterr().err
    gone += ["LIDC-IDRI-0001/01-01-2000-1/3000566.000000-03192/069.xml"]
    assert "nodules" not in Catalog.from_source(lidc.make(tmp_path / "b", without=gone)).table.column_names
    assert "No reading (XML) of a radiologist is there" in capsys.readouterr().err


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace("<xCoord>4<", "<xCoord>four<"),
        lambda text: text.replace("<LidcReadMessage", '<!DOCTYPE x [<!ENTITY a "b">]><LidcReadMessage'),
        lambda text: "",
    ],
)
def test_a_damaged_reading_is_none(tmp_path, capsys, damage):
    root = lidc.make(tmp_path)
    file = next(root.rglob("069.xml"))
    file.write_text(damage(file.read_text()))
    assert Catalog.from_source(root).column("nodules") == ["", "none"]
    assert "1 CT have no reading" in capsys.readouterr().err


def test_folders_without_ct_are_one_sentence(tmp_path):
    gone = [f"LIDC-IDRI-{n:04d}/01-01-2000-{n}" for n in (1, 2)]
    with pytest.raises(ScanlearnError, match="hold no CT"):
        Catalog.from_source(lidc.make(tmp_path, without=gone))
