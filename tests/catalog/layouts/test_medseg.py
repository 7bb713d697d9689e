"""MedSeg: nine volumes as patients, the stack without patients apart."""

import pytest

from catalog.layouts.trees import medseg
from scanlearn.catalog.masks import mask_names
from scanlearn.catalog.table import Catalog
from scanlearn.errors import ScanlearnError


def rows(catalog, folder):
    columns = [catalog.column(name) for name in ("paths", "mask_path", "patient_id")]
    return [
        tuple(cell.removeprefix(f"{folder}/") for cell in (of[0], *cells)) for of, *cells in zip(*columns, strict=True)
    ]


@pytest.mark.parametrize("nested", [False, True])
def test_each_volume_is_a_patient_and_the_stack_is_left_out_and_said(tmp_path, capsys, nested):
    catalog = Catalog.from_source(medseg.make(tmp_path, nested=nested))
    image, mask = ("rp_im/rp_im", "rp_msk/rp_msk") if nested else ("rp_im", "rp_msk")
    assert rows(catalog, tmp_path) == [
        (f"{image}/1.nii.gz", f"{mask}/1.nii.gz", "medseg:1"),
        (f"{image}/2.nii.gz", f"{mask}/2.nii.gz", "medseg:2"),
        (f"{image}/3.nii.gz", f"{mask}/3.nii.gz", "medseg:3"),
    ]
    assert catalog.patients_known
    assert mask_names(catalog.table) == {1: "ground glass", 2: "consolidation", 3: "pleural effusion"}
    said = capsys.readouterr().err
    assert "whose patients nobody says" in said and "images 3 (published 9)" in said


def test_the_stack_has_no_patients_and_it_is_said(tmp_path, capsys):
    catalog = Catalog.from_source(medseg.make(tmp_path), layout="medseg_slices")
    assert [row[:2] for row in rows(catalog, tmp_path)] == [("tr_im.nii.gz", "tr_mask.nii.gz"), ("val_im.nii.gz", "")]
    assert not catalog.patients_known
    assert "nobody can tell which scans are of one patient" in capsys.readouterr().err


def test_the_stack_alone_is_recognised(tmp_path):
    catalog = Catalog.from_source(medseg.make(tmp_path, without=("rp_im", "rp_msk", "rp_lung_msk")))
    assert {*catalog.column("dataset")} == {"medseg_slices"}


@pytest.mark.parametrize(
    ("without", "told"),
    [(("rp_msk",), "lacks the masks rp_msk"), (("rp_im/1.nii.gz", "rp_im/2.nii.gz", "rp_im/3.nii.gz"), "no volumes")],
)
def test_a_damaged_copy_is_one_sentence(tmp_path, without, told):
    with pytest.raises(ScanlearnError, match=told) as error:
        Catalog.from_source(medseg.make(tmp_path, without=without))
    assert str(error.value).count(". ") == 0 and "13521509" in str(error.value)


def test_a_volume_without_mask_is_counted(tmp_path, capsys):
    catalog = Catalog.from_source(medseg.make(tmp_path, without=("rp_msk/2.nii.gz",)))
    assert catalog.column("mask_path")[1] == "" and "1 of 3 volumes have no mask" in capsys.readouterr().err
