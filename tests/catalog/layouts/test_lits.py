"""LiTS: volumes and masks by number, masks on the voxels of their image whatever the headers say."""

import numpy as np
import pytest

from catalog.layouts.trees import lits
from scanlearn.catalog.masks import mask_names
from scanlearn.catalog.table import Catalog
from scanlearn.errors import ScanlearnError
from scanlearn.scans.prepare import prepare


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_rows_are_volumes_with_their_masks_by_number(tmp_path, capsys, ending):
    catalog = Catalog.from_source(lits.make(tmp_path, ending=ending))
    found = [
        tuple(cell.rpartition("/")[2].removesuffix(ending) for cell in (paths[0], mask, who))
        for paths, mask, who in zip(*map(catalog.column, ("paths", "mask_path", "patient_id")), strict=True)
    ]
    train = [(f"volume-{n}", f"segmentation-{n}", f"lits:{n}") for n in (0, 28, 53, 100, 130)]
    assert found == [*train, ("test-volume-0", "", "lits:test-0"), ("test-volume-69", "", "lits:test-69")]
    assert mask_names(catalog.table) == {1: "liver", 2: "tumour"}
    said = capsys.readouterr().err
    assert "the headers of 1 volumes say voxels of 1 x 1 x 1 mm" in said and "masks 5 (published 131)" in said


def test_the_split_in_use_is_by_number_and_not_official(tmp_path, capsys):
    catalog = Catalog.from_source(lits.make(tmp_path), split="transvw")
    assert catalog.column("split") == ["train", "train", "train", "val"]
    said = capsys.readouterr().err
    assert "not official" in said and "3 of 7 scans are in no part" in said


def test_a_mask_with_an_identity_for_a_header_lies_on_its_image(tmp_path, monkeypatch):
    """Case 53: found through the millimetres it would lie elsewhere."""
    monkeypatch.setenv("SCANLEARN_PRIVATE", str(tmp_path / "private"))
    store = prepare(lits.make(tmp_path / "lits"), tmp_path / "store", workers=0)
    with_mask = np.flatnonzero(store.masked)
    assert len(with_mask) == 5
    for mask in store.read_masks(with_mask):
        assert (mask == 2).sum() == 4 and (mask == 1).sum() == 5 * 4 * 3 - 4


def test_volumes_that_are_missing_are_one_sentence(tmp_path):
    names = [f"Training Batch {1 if n < 28 else 2}/volume-{n}.nii" for n in lits.TRAIN]
    with pytest.raises(ScanlearnError, match="but no volume-0"):
        Catalog.from_source(lits.make(tmp_path, without=(*names, "Test")))


def test_masks_and_volumes_that_are_alone_are_counted(tmp_path, capsys):
    gone = ("Training Batch 1/segmentation-0.nii", "Training Batch 2/volume-130.nii")
    assert len(Catalog.from_source(lits.make(tmp_path, without=gone))) == 6
    said = capsys.readouterr().err
    assert "1 training volumes have no segmentation" in said and "1 segmentations have no volume" in said
