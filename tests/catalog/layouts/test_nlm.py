"""Montgomery County and Shenzhen: labels in names, texts of readers, two masks of one image or masks of others."""

import numpy as np
import pytest

from catalog.layouts.reading import rows
from catalog.layouts.trees.nlm import make_montgomery, make_shenzhen
from scanlearn.catalog.table import Catalog
from scanlearn.errors import ScanlearnError
from scanlearn.scans.read import read_mask
from scanlearn.scans.sources import FileSource

ABOUT = ("findings", "sex", "age", "reading")
MONTGOMERY = {
    ("MCUCXR_0001_0", "montgomery:MCUCXR_0001", "none", "F", "27", "normal"),
    ("MCUCXR_0002_0", "montgomery:MCUCXR_0002", "none", "M", "4", "normal"),
    (
        *("MCUCXR_0104_1", "montgomery:MCUCXR_0104", "Tuberculosis", "F", "52"),
        "cavitary nodular infiltrate in the right upper lobe",
    ),
}
SHENZHEN = {
    ("CHNCXR_0001_0", "none", "M", "45", "normal", "mask/CHNCXR_0001_0_mask.png"),
    ("CHNCXR_0002_0", "none", "F", "0", "normal", ""),
    ("CHNCXR_0327_1", "Tuberculosis", "M", "30", "bilateral PTB", "mask/CHNCXR_0327_1_mask.png"),
    ("CHNCXR_0662_1", "Tuberculosis", "F", "52", "1.right PTB;2.right pleuritis", ""),
}


def read(folder, **options):
    return Catalog.from_source(folder, **options)


def short(catalog, root, *columns):
    return {(path.rpartition("/")[2].removesuffix(".png"), *cells) for path, *cells in rows(catalog, root, *columns)}


@pytest.mark.parametrize("wrapped", [True, False])
def test_montgomerys_rows_are_those_of_names_and_readings(tmp_path, capsys, wrapped):
    root = make_montgomery(tmp_path, wrapped=wrapped)
    catalog = read(tmp_path)
    assert short(catalog, root, "patient_id", *ABOUT) == MONTGOMERY and catalog.patients_known
    assert "Tuberculosis 1 (published 58)" in capsys.readouterr().err


def test_the_masks_of_both_lungs_are_one_mask(tmp_path):
    catalog = read(make_montgomery(tmp_path))
    lungs = np.zeros((10, 12), np.uint8)
    lungs[:, 2:5] = lungs[:, 7:10] = 1
    source = FileSource(catalog)
    assert all(np.array_equal(read_mask(cell).array[0], lungs) for cell in catalog.column("mask_path"))
    assert np.array_equal(source.mask(0).array[0], lungs) and len(source.files(0)) == 3


def test_an_image_that_lacks_the_mask_of_a_lung_has_none(tmp_path, capsys):
    catalog = read(make_montgomery(tmp_path, without=("ManualMask/leftMask/MCUCXR_0002_0.png",)))
    assert [bool(cell) for cell in catalog.column("mask_path")] == [True, False, True]
    assert "1 images lack the mask of a lung" in capsys.readouterr().err


def test_shenzhens_rows_are_those_of_names_and_readings(tmp_path, capsys):
    root = make_shenzhen(tmp_path)
    catalog = read(tmp_path)
    assert short(catalog, root, *ABOUT, "mask_path") == SHENZHEN and not catalog.patients_known
    said = capsys.readouterr().err
    assert "2 images have a mask of their lungs, which is not of the owners" in said


def test_shenzhen_without_the_masks_of_others_has_none(tmp_path, capsys):
    root = make_shenzhen(tmp_path, masks=False, without=("ClinicalReadings/CHNCXR_0001_0.txt",))
    catalog = read(root)
    assert {*catalog.column("mask_path")} == {""} and catalog.column("age")[0] == ""
    said = capsys.readouterr().err
    assert "not of the owners" not in said and "1 images have no text in ClinicalReadings" in said


@pytest.mark.parametrize(
    ("make", "without", "told"),
    [
        (make_montgomery, ("CXR_png",), "lacks CXR_png"),
        (make_montgomery, ("ManualMask",), "lacks ManualMask/leftMask"),
        (make_montgomery, ("ManualMask/rightMask",), "lacks ManualMask/rightMask"),
        (make_shenzhen, ("CXR_png",), "lacks CXR_png"),
        (make_shenzhen, tuple(f"CXR_png/{stem}.png" for stem, *_ in SHENZHEN), "holds no image of Shenzhen"),
    ],
)
def test_a_damaged_copy_is_one_sentence(tmp_path, make, without, told):
    with pytest.raises(ScanlearnError, match=told) as error:
        read(make(tmp_path, without=without))
    assert "lhncbc.nlm.nih.gov" in str(error.value) and "\n" not in str(error.value)


def test_the_two_sets_are_told_apart_by_their_names(tmp_path, capsys):
    read(make_montgomery(tmp_path / "m"))
    read(make_shenzhen(tmp_path / "s"))
    said = capsys.readouterr().err
    assert "is read as Montgomery County" in said and "is read as Shenzhen Hospital" in said
