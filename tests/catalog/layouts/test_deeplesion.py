"""DeepLesion: boxes, types, the split and Hounsfield units of a generated copy in its exact form."""

import numpy as np
import pytest

from catalog.layouts.trees import deeplesion
from scanlearn.catalog.boxes import boxes_of
from scanlearn.catalog.table import Catalog
from scanlearn.errors import ScanlearnError
from scanlearn.scans.sources import FileSource

COLUMNS = ("patient_id", "study_id", "split", "boxes", "lesion_type", "sex", "age", "pixel_mm", "slice_mm")
EXPECTED = {
    "000001_01_01/109.png": ("1", "1_1", "train", "4 6 10.5 13;24 2 8 6", "", "F", "62", "0.8", "5"),
    "000001_02_01/014.png": ("1", "1_2", "train", "1 1 10 10", "", "F", "62", "0.8", "1"),
    "000002_01_02/170.png": ("2", "2_1", "train", "9 11 11 18", "", "M", "", "0.7", ""),
    "000003_01_01/001.png": ("3", "3_1", "val", "3 3 10 10", "lung", "M", "40", "0.9", "1.25"),
    "000004_01_01/007.png": ("4", "4_1", "test", "5 5 10 10", "lung", "F", "71", "0.9", "5"),
    "000004_01_01/009.png": ("4", "4_1", "test", "5 7 10 10", "bone", "F", "71", "0.9", "5"),
}


def rows(catalog, place):
    cells = zip(*(catalog.column(name) for name in COLUMNS), strict=True)
    names = [paths[0].partition(f"{place}/")[2] for paths in catalog.column("paths")]
    return {name: (who.removeprefix("deeplesion:"), *of) for name, (who, *of) in zip(names, cells, strict=True)}


def test_rows_are_the_key_slices_with_boxes_from_0(tmp_path, capsys):
    catalog = Catalog.from_source(deeplesion.make(tmp_path))
    assert rows(catalog, "Images_png") == EXPECTED
    assert catalog.patients_known and {*catalog.column("modality")} == {"CT"}
    said = capsys.readouterr().err
    assert "1 lesions are marked as possibly noisy and are left out, 1 slices with them" in said
    assert "lesions 8 (published 32,735)" in said and "key slices 7" in said


def test_boxes_lie_where_the_table_says_in_pixels_from_0(tmp_path):
    catalog = Catalog.from_source(deeplesion.make(tmp_path))
    of_row, corners, _ = boxes_of(catalog)
    assert corners[of_row == 0].tolist() == [[6, 4, 19, 14.5], [2, 24, 8, 32]]  # top, left, bottom, right


def test_values_are_hounsfield_units(tmp_path):
    catalog = Catalog.from_source(deeplesion.make(tmp_path))
    source = FileSource(catalog)
    for reader in (source, source.only([1])):
        array = reader.read(1).array
        assert sorted({*array.ravel().tolist()}) == [deeplesion.AIR, deeplesion.TISSUE + 1]
        assert array.dtype == np.int32


def test_archives_that_were_unpacked_apart_are_one_set(tmp_path):
    catalog = Catalog.from_source(deeplesion.make(tmp_path, parts=3))
    assert rows(catalog, "/Images_png") == EXPECTED


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ({"without": ("DL_info.csv",)}, "lacks DL_info.csv"),
        ({"renamed": {"Bounding_boxes": "boxes"}}, "no column 'Bounding_boxes'"),
        ({"without": ("Images_png",)}, "None of the 6 key slices .* unpack the archives"),
    ],
)
def test_a_damaged_copy_is_one_sentence(tmp_path, damage, told):
    with pytest.raises(ScanlearnError, match=told) as error:
        Catalog.from_source(deeplesion.make(tmp_path, **damage))
    assert str(error.value).count(". ") == 0 and deeplesion_page() in str(error.value)


def deeplesion_page():
    from scanlearn.catalog.layouts.layout import layout_named

    return layout_named("deeplesion").page


def test_missing_slices_are_counted(tmp_path, capsys):
    catalog = Catalog.from_source(deeplesion.make(tmp_path, without=("Images_png/000003_01_01",)))
    assert len(catalog) == 5 and "1 of 6 key slices" in capsys.readouterr().err


def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path):
    deeplesion.make(tmp_path)
    table = (tmp_path / "DL_info.csv").read_text()
    (tmp_path / "DL_info.csv").write_text(table.replace("000003_01_01_001.png", "../../etc_001.png"))
    with pytest.raises(ScanlearnError, match="names files otherwise"):
        Catalog.from_source(tmp_path)
