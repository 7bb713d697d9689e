"""The Decathlon: its tasks by the names of their cases, and what its masks say, which is not what BraTS says."""

import json
import shutil

import numpy as np
import pytest

from catalog.layouts.trees import brats, msd
from scanlearn.catalog.labelled import pick_labelled
from scanlearn.catalog.layouts.msd_folds import fold0
from scanlearn.catalog.masks import mask_names
from scanlearn.catalog.table import Catalog
from scanlearn.errors import ScanlearnError
from scanlearn.scans.sources import FileSource


def test_the_brain_tumours_have_four_channels_and_masks_named_by_the_layout(tmp_path, capsys):
    catalog = Catalog.from_source(msd.make(tmp_path))
    names = [tuple(path.rpartition("/")[2] for path in (paths[0], mask)) for paths, mask in masks(catalog)]
    cases = ["BRATS_001.nii.gz", "BRATS_002.nii.gz"]
    assert names == [*((case, case) for case in cases), ("BRATS_003.nii.gz", "")]
    assert {*catalog.column("dataset")} == {"msd_brain"} and {*catalog.column("view")} == {"FLAIR+T1w+T1gd+T2w"}
    assert FileSource(catalog).read(0).array.shape == (4, 10, 9, 6)
    assert "images 3 (published 750)" in capsys.readouterr().err


def masks(catalog):
    return zip(catalog.column("paths"), catalog.column("mask_path"), strict=True)


def test_one_is_oedema_here_and_the_core_in_brats(tmp_path):
    here = mask_names(Catalog.from_source(msd.make(tmp_path / "msd")).table)
    there = mask_names(Catalog.from_source(brats.make(tmp_path / "brats", "brats2018")).table)
    assert here == {1: "oedema", 2: "non-enhancing tumour", 3: "enhancing tumour"}
    assert there == {1: "necrotic core", 2: "oedema", 4: "enhancing tumour"}


def test_two_sides_of_one_person_are_cases_so_patients_are_not_known(tmp_path):
    assert not Catalog.from_source(msd.make(tmp_path, msd.HIPPOCAMPUS)).patients_known
    assert Catalog.from_source(msd.make(tmp_path / "liver", msd.LIVER)).patients_known


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ({"without": ("dataset.json",)}, "lacks dataset.json"),
        ({"training": ["a", "b"]}, "lists no training images and labels"),
        ({"training": None}, "lists no training images and labels"),
    ],
)
def test_a_damaged_copy_is_one_sentence(tmp_path, damage, told):
    with pytest.raises(ScanlearnError, match=told) as error:
        Catalog.from_source(msd.make(tmp_path, **damage))
    assert str(error.value).count(". ") == 0 and "medicaldecathlon" in str(error.value)


def test_missing_masks_and_images_are_counted(tmp_path, capsys):
    gone = ("labelsTr/BRATS_001.nii.gz", "imagesTs/BRATS_003.nii.gz")
    assert len(Catalog.from_source(msd.make(tmp_path, without=gone))) == 2
    said = capsys.readouterr().err
    assert "1 of 3 images" in said and "1 training cases have no mask" in said


def test_the_published_lists_are_disjoint_whole_and_nested():
    folds = [fold0(f"BRATS_{number:03d}.nii.gz", False) for number in range(1, 485)]
    parts = [part for part, _ in folds]
    assert [parts.count(part) for part in ("train", "val", "test")] == [387, 48, 49]
    places = {int(place): number for number, (part, place) in enumerate(folds, 1) if place and part == "train"}
    assert sorted(places) == list(range(1, 97)) and all(place == "" for part, place in folds if part != "train")
    assert [places[place] for place in range(1, 7)] == [446, 415, 165, 293, 121, 435]
    assert (places[12], places[24], places[96]) == (375, 412, 333)
    assert parts[325 - 1] == parts[27 - 1] == "val" and parts[72 - 1] == parts[300 - 1] == "test"
    assert fold0("BRATS_485.nii.gz", True) == ("", "")


def test_few_labels_of_the_published_split_are_its_cases_for_every_seed(tmp_path):
    root = msd.make(tmp_path) / "Task01_BrainTumour"
    numbers = [446, 415, 165, 293, 2, 325, 72]
    for number in numbers:
        for folder in ("imagesTr", "labelsTr"):
            shutil.copy(root / folder / "BRATS_001.nii.gz", root / folder / f"BRATS_{number:03d}.nii.gz")
    content = json.loads((root / "dataset.json").read_text())
    names = [f"./imagesTr/BRATS_{number:03d}.nii.gz" for number in numbers]
    content["training"] = [{"image": name, "label": name.replace("images", "labels")} for name in names]
    (root / "dataset.json").write_text(json.dumps(content))

    catalog = Catalog.from_source(root, split="iwasawa_fold0")
    assert catalog.column("split") == ["train"] * 5 + ["val", "test"]
    for seed in range(3):
        picked = pick_labelled(catalog, np.arange(5), "mask", 3, seed)
        assert [catalog.column("paths")[row][0][-10:-7] for row in picked] == ["446", "415", "165"]
    assert "labelled_order" not in Catalog.from_source(root).label_columns
