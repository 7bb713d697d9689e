"""LUNA16: subsets as folds, nodules and candidates in mm to the right and to the front, the split of Models Genesis."""

import numpy as np
import pytest

from catalog.layouts.trees import luna16
from scanlearn.catalog.candidates import candidates_of
from scanlearn.catalog.table import Catalog
from scanlearn.errors import ScanlearnError
from scanlearn.scans.sources import FileSource

COLUMNS = ("study_id", "fold", "nodules", "candidates")
EXPECTED = [
    ("100225287222365663678666836860", "0", "128.69 175.31 -298.38 5.65;-103.78 211.92 -227.12 4.22", "10.5 -20 0 1"),
    ("105756658031515062000744821260", "0", "-2 3 4.5 8.14", "11.5 -20 1 0"),
    ("2", "5", "none", "12.5 -20 2 0"),
    ("3", "9", "none", "13.5 -20 3 0;-1 -2 3 0"),  # two, as candidates_V2 has them
]


def rows(catalog):
    cells = zip(*(catalog.column(name) for name in COLUMNS), strict=True)
    return [(uid.removeprefix(luna16.UID), *of) for uid, *of in cells]


@pytest.mark.parametrize("nested", [False, True])
def test_rows_are_scans_with_their_fold_nodules_and_candidates(tmp_path, capsys, nested):
    catalog = Catalog.from_source(luna16.make(tmp_path, nested=nested))
    assert rows(catalog) == EXPECTED
    assert not catalog.patients_known and all(catalog.column("mask_path")) and {*catalog.column("split")} == {""}
    said = capsys.readouterr().err
    assert "the subsets 1, 2, 3, 4, 6, 7, 8 hold no scan" in said and "nodules 3 (published 1,186)" in said


def test_the_split_of_models_genesis_is_told_to_be_not_official(tmp_path, capsys):
    catalog = Catalog.from_source(luna16.make(tmp_path), split="genesis")
    assert catalog.column("split") == ["train", "train", "val", "test"]
    assert "not official: of Models Genesis" in capsys.readouterr().err


def test_a_candidate_lies_where_the_affine_of_its_scan_says(tmp_path):
    catalog = Catalog.from_source(luna16.make(tmp_path))
    _, places, words = candidates_of(catalog)
    scan = FileSource(catalog).read(0)
    # Offset -100 -90 -80 and 0.7 mm, counted to the left and to the back: voxel i is at x = -(-100 + 0.7 i).
    inside = np.linalg.inv(scan.affine) @ [*places[0], 1]
    assert np.allclose(inside[:3], [(-10.5 + 100) / 0.7, (20 + 90) / 0.7, 80 / 1.25]) and words[0] == "1"


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ({"without": ("annotations.csv",)}, "lacks annotations.csv"),
        ({"renamed": {"coordX": "voxelX"}}, "no column for 'x'"),
        (
            {"without": ("subset0", "subset5/" + luna16.UID + "2.mhd", "subset9/" + luna16.UID + "3.raw")},
            "No scan is in",
        ),
    ],
)
def test_a_damaged_copy_is_one_sentence(tmp_path, damage, told):
    with pytest.raises(ScanlearnError, match=told) as error:
        Catalog.from_source(luna16.make(tmp_path, **damage))
    assert str(error.value).count(". ") == 0


def test_headers_without_voxels_are_counted(tmp_path, capsys):
    catalog = Catalog.from_source(luna16.make(tmp_path, without=("subset5/" + luna16.UID + "2.raw",)))
    assert len(catalog) == 3 and "1 headers (.mhd) have no file of voxels" in capsys.readouterr().err
