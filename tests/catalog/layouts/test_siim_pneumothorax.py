"""SIIM-ACR Pneumothorax: a header with a blank, relative run lengths united, empty masks, no patients."""

import numpy as np
import pytest

from catalog.layouts.reading import rows
from catalog.layouts.trees import siim_pneumothorax as siim
from scanlearn.catalog.layouts.layout import layout_named
from scanlearn.catalog.table import Catalog
from scanlearn.errors import ScanlearnError
from scanlearn.scans.prepare import prepare
from scanlearn.scans.read import read_mask

EXPECTED = {
    ("6904.1517875201.850819", "PA", "CR", "none"),
    ("13666.1517875247.117800", "AP", "CR", "Pneumothorax"),
    ("11028.1517875229.983789", "PA", "CR", "Pneumothorax"),
    ("10366.1517875224.309151", "AP", "CR", "none"),
    ("10000.1517875220.000001", "PA", "CR", "none"),
}


def read(folder, **options):
    return Catalog.from_source(folder, **options)


def short(path):
    return path.rpartition("/")[2].removeprefix(siim.PREFIX).removesuffix(".dcm")


@pytest.mark.parametrize("stage_2", [False, True])
def test_rows_are_those_of_the_table(tmp_path, capsys, stage_2):
    catalog = read(siim.make(tmp_path, stage_2=stage_2))
    found = {(short(path), *cells) for path, *cells in rows(catalog, tmp_path, "view", "modality", "findings")}
    assert found == EXPECTED
    said = capsys.readouterr().err
    assert "1 images are in no table" in said and "Pneumothorax 2 (published 2,669)" in said


def test_no_patients_are_known_and_that_is_said(tmp_path, capsys):
    catalog = read(siim.make(tmp_path))
    assert not catalog.patients_known and len({*catalog.column("patient_id")}) == 5
    assert "nobody can tell which scans are of one patient" in capsys.readouterr().err
    assert {*catalog.column("split")} == {""} and layout_named("siim_pneumothorax").contained_in == ("chestxray14",)


def test_masks_are_read_from_the_table_all_rows_of_an_image_united(tmp_path):
    catalog = read(siim.make(tmp_path))
    masks = {
        short(paths[0]): cell for paths, cell in zip(catalog.column("paths"), catalog.column("mask_path"), strict=True)
    }
    two = read_mask(masks["13666.1517875247.117800"]).array[0]
    assert two.shape == (1024, 1024) and np.flatnonzero(two[:, 0]).tolist() == [1, 2, 3, 4, 5, 6] and two.sum() == 6
    last = read_mask(masks["11028.1517875229.983789"]).array[0]
    assert last[1023, 1023] == 1 and last.sum() == 1
    assert not read_mask(masks["10366.1517875224.309151"]).array.any()  # looked at: an empty mask is one


def test_prepare_lays_the_masks_of_the_table_on_the_images(tmp_path):
    store = prepare(siim.make(tmp_path / "siim", side=1024), tmp_path / "store", size=(1024, 1024), workers=0)
    findings = store.catalog.column("findings")
    sums = [int(mask.sum()) for mask in store.read_masks(range(len(findings)))]
    assert sorted(zip(findings, sums, strict=True)) == [
        *(("Pneumothorax", 1), ("Pneumothorax", 6)),
        *(("none", 0), ("none", 0), ("none", 0)),
    ]
    before = sorted(path.name for path in (tmp_path / "siim").rglob("*"))
    assert not [name for name in before if name.endswith(".png")]  # no mask was written


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ({"without": ("train-rle.csv",)}, "lacks stage_2_train.csv or train-rle.csv"),
        ({"renamed": {"EncodedPixels": "rle"}}, "no column 'EncodedPixels'"),
        ({"without": ("dicom-images-train", "dicom-images-test")}, "None of the 5 images"),
    ],
)
def test_a_damaged_copy_is_one_sentence(tmp_path, damage, told):
    with pytest.raises(ScanlearnError, match=told) as error:
        read(siim.make(tmp_path, **damage))
    assert "kaggle.com" in str(error.value) and "\n" not in str(error.value)
