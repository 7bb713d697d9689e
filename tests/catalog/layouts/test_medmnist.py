"""MedMNIST: words for the numbers of a file, its parts as the split, several findings in one cell."""

import numpy as np
import pytest

from scanlearn.errors import ScanlearnError
from scanlearn.scans.sources import source_of


def write(folder, name, labels, size=28):
    """A file of MedMNIST with so many labels in train, val and test."""
    arrays = {}
    for k, (part, rows) in enumerate(labels.items()):
        pixels = np.random.default_rng(k).integers(0, 256, (len(rows), size, size), np.uint8)
        arrays |= {f"{part}_images": pixels, f"{part}_labels": np.array(rows, np.uint8)}
    np.savez_compressed(folder / f"{name}.npz", **arrays)
    return folder / f"{name}.npz"


PNEUMONIA = {"train": [[0], [1], [1]], "val": [[0]], "test": [[1], [0]]}


@pytest.mark.parametrize("name", ["pneumoniamnist", "pneumoniamnist_224"])
def test_numbers_become_words_and_parts_the_official_split(tmp_path, capsys, name):
    catalog = source_of(write(tmp_path, name, PNEUMONIA)).catalog
    assert catalog.column("labels") == ["normal", "pneumonia", "pneumonia", "normal", "pneumonia", "normal"]
    assert catalog.column("split") == ["train"] * 3 + ["val"] + ["test"] * 2 and not catalog.patients_known
    said = capsys.readouterr().err
    assert "images 6 (published 5,856)" in said and "split 'official'" in said


def test_an_image_may_have_several_findings_or_none(tmp_path):
    rows = np.zeros((3, 14), np.uint8)
    rows[0, [0, 2]] = rows[1, 13] = 1
    path = write(tmp_path, "chestmnist", {"train": rows, "val": rows[:1], "test": rows[:1]})
    catalog = source_of(path).catalog
    assert catalog.column("findings")[:3] == ["Atelectasis|Effusion", "Hernia", "none"]
    assert catalog.labels("findings").codes[2].tolist() == [0, 0, 0]


def test_layout_none_and_split_none_leave_numbers_and_parts_alone(tmp_path):
    path = write(tmp_path, "pneumoniamnist", PNEUMONIA)
    assert source_of(path, layout="none").catalog.column("labels") == ["0", "1", "1", "0", "1", "0"]
    assert {*source_of(path, split="none").catalog.column("split")} == {""}


def test_a_file_of_another_name_is_read_as_the_set_that_is_named(tmp_path):
    path = write(tmp_path, "mine", PNEUMONIA)
    assert source_of(path).catalog.column("labels")[0] == "0"
    assert source_of(path, layout="pneumoniamnist").catalog.column("labels")[0] == "normal"


@pytest.mark.parametrize("labels", [[[2]], [[0, 1]], [[0.5]]])
def test_labels_of_another_set_are_one_sentence(tmp_path, labels):
    path = tmp_path / "pneumoniamnist.npz"
    pixels = np.zeros((1, 8, 8), np.uint8)
    parts = {f"{part}_images": pixels for part in ("train", "val", "test")}
    np.savez(path, **parts, **{f"{part}_labels": np.array(labels) for part in ("train", "val", "test")})
    with pytest.raises(ScanlearnError, match="are not those of pneumoniamnist"):
        source_of(path)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"layout": "covid_ct"}, "is no .npz file of MedMNIST"),
        ({"split": "fold1"}, "no split of pneumoniamnist 'fold1'"),
    ],
)
def test_what_does_not_fit_the_file_is_refused(tmp_path, options, told):
    with pytest.raises(ScanlearnError, match=told):
        source_of(write(tmp_path, "pneumoniamnist", PNEUMONIA), **options)


def test_a_folder_of_several_sets_says_to_give_one_file(tmp_path):
    write(tmp_path, "pneumoniamnist", PNEUMONIA)
    write(tmp_path, "breastmnist", PNEUMONIA)
    with pytest.raises(ScanlearnError, match="looks like several data sets"):
        source_of(tmp_path)
    with pytest.raises(ScanlearnError, match=r"give .*breastmnist.npz itself"):
        source_of(tmp_path, layout="breastmnist")
