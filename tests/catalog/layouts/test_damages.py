"""Copies that lack a part, or are of another version: one sentence that says what, and never a folder of something else.

What single layouts say of a missing table or a renamed column stands with their other tests; here is what is left.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from catalog.layouts.trees import (
    brats,
    chexpert,
    covid_ct,
    deeplesion,
    lits,
    luna16,
    medseg,
    mimic_cxr,
    msd,
    mura,
    nlm,
    rsna_pneumonia,
    siim_pneumothorax,
)
from scanlearn.catalog.table import Catalog
from scanlearn.errors import ScanlearnError
from scanlearn.scans.sources import source_of


def without(make: Callable[[Path], Path], *patterns: str) -> Callable[[Path], None]:
    """A copy that lacks every file and folder of these names."""

    def damaged(folder: Path) -> None:
        make(folder)
        for pattern in patterns:
            found = sorted(folder.rglob(pattern), reverse=True)
            assert found
            for path in found:
                if path.is_dir():
                    for inside in sorted(path.rglob("*"), reverse=True):
                        inside.rmdir() if inside.is_dir() else inside.unlink()
                    path.rmdir()
                elif path.exists():
                    path.unlink()

    return damaged


def edited(make: Callable[[Path], Path], name: str, old: str, new: str) -> Callable[[Path], None]:
    """A copy with other words in one file."""

    def damaged(folder: Path) -> None:
        make(folder)
        path = next(folder.rglob(name))
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return damaged


def release(name: str) -> Callable[[Path], Path]:
    return lambda folder: brats.make(folder, name)


def renamed_radiographs(folder: Path) -> None:
    """An early Montgomery, whose names do not end in the label."""
    for path in (nlm.make_montgomery(folder) / "CXR_png").iterdir():
        path.rename(path.with_name(f"{path.stem[:-2]}.png"))


REFUSED = {
    "chexpert, its other tables (Plus)": (without(chexpert.make, "train.csv", "valid.csv"), "lacks train.csv"),
    "mimic_cxr, tables alone": (without(mimic_cxr.make, "*.jpg"), "None of the 7 images .* of MIMIC-CXR-JPG"),
    "mura, tables alone": (without(mura.make, "*.png"), "None of the 7 images .* of MURA"),
    "rsna, images gone": (without(rsna_pneumonia.make, "*.dcm"), "None of the 6 images .* of RSNA"),
    "rsna, renamed class": (
        edited(rsna_pneumonia.make, "stage_2_detailed_class_info.csv", "class", "Class name"),
        "has no column 'class'",
    ),
    "siim, table of other images": (
        edited(siim_pneumothorax.make, "train-rle.csv", "1.2", "ID_9"),
        "None of the 5 images .* of SIIM-ACR",
    ),
    "montgomery, other names": (renamed_radiographs, "holds no image of Montgomery County"),
    "deeplesion, slices gone": (without(deeplesion.make, "*.png"), "None of the 6 key slices"),
    "covid_ct, lists gone": (without(covid_ct.make, "Data-split"), "lacks Data-split/COVID/trainCT_COVID.txt"),
    "medseg, volumes gone": (without(medseg.make, "rp_im"), "has no volumes 1.nii.gz to 9.nii.gz"),
    "luna16, all subsets gone": (without(luna16.make, "subset*"), "No scan is in subset0 to subset9"),
    "luna16, voxels gone": (without(luna16.make, "*.raw"), "No scan is in subset0 to subset9"),
    "luna16, renamed class": (
        edited(luna16.make, "candidates_V2.csv", "class", "klass"),
        "has no column for 'word' of the candidates",
    ),
    "lits, volumes gone": (without(lits.make, "*volume*"), "has segmentations of LiTS 2017 but no volume-0"),
    "brats2020, a sequence gone": (without(release("brats2020"), "*t1ce*"), "No case of BraTS 2020 .* four files"),
    "brats2023, a sequence gone": (without(release("brats2023_gli"), "*t1c*"), "No case of BraTS 2023 glioma"),
    "msd, renamed list": (
        edited(msd.make, "dataset.json", '"training"', '"train"'),
        "lists no training images and labels",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_in_one_sentence(tmp_path, name):
    damage, told = REFUSED[name]
    damage(tmp_path)
    with pytest.raises(ScanlearnError, match=told) as error:
        Catalog.from_source(tmp_path)
    sentence = str(error.value)
    assert "\n" not in sentence and sentence.endswith(".") and ". " not in sentence


def test_a_task_of_the_decathlon_without_images_is_called_what_it_is(tmp_path):
    without(msd.make, "imagesTr", "imagesTs")(tmp_path)
    with pytest.raises(ScanlearnError, match=r"None of the 3 images .* of Medical Segmentation Decathlon, task 1"):
        Catalog.from_source(tmp_path)


def test_a_copy_of_another_year_is_none_of_the_named_one(tmp_path):
    brats.make(tmp_path, "brats2018")
    with pytest.raises(ScanlearnError, match="is no BraTS 2020: it would hold cases called as those of this release"):
        Catalog.from_source(tmp_path, layout="brats2020")


SAID = {
    "montgomery, texts gone": (without(nlm.make_montgomery, "ClinicalReadings"), 3, "3 images have no text"),
    "shenzhen, texts gone": (without(nlm.make_shenzhen, "*.txt"), 4, "4 images have no text in ClinicalReadings"),
    "covid_ct, a fork's lists": (
        edited(covid_ct.make, "trainCT_COVID.txt", "\n", "\nCovid (1).png\n"),
        12,
        "1 names in Data-split are in no table of COVID-CT",
    ),
    "lits, masks gone": (without(lits.make, "segmentation*"), 7, "5 training volumes have no segmentation"),
    "brats2020, masks gone": (without(release("brats2020"), "*seg*"), 3, "2 of 3 cases have no mask"),
    "msd, masks gone": (without(msd.make, "labelsTr"), 3, "2 training cases have no mask in labelsTr"),
    "msd, training images gone": (without(msd.make, "imagesTr"), 1, "2 of 3 images that its tables name"),
}


@pytest.mark.parametrize("name", SAID)
def test_what_can_be_read_without_a_part_is_read_and_the_part_is_told(tmp_path, capsys, name):
    damage, scans, told = SAID[name]
    damage(tmp_path)
    assert len(Catalog.from_source(tmp_path)) == scans
    assert told in capsys.readouterr().err


def test_a_download_by_wget_is_found_below_its_four_folders(tmp_path):
    mimic_cxr.make(tmp_path)
    assert len(Catalog.from_source(tmp_path)) == 7


# ---------------------------------------------------------------- MedMNIST: one file


def a_file(folder: Path, **changed: np.ndarray | None) -> Path:
    """A pneumoniamnist.npz of twelve images; changed: other arrays, None for one that is not there."""
    labels = np.array([[0], [1], [0], [1]])
    arrays = {f"{part}_images": np.zeros((4, 28, 28), np.uint8) for part in ("train", "val", "test")}
    arrays |= {f"{part}_labels": labels for part in ("train", "val", "test")}
    kept = {name: array for name, array in {**arrays, **changed}.items() if array is not None}
    np.savez(folder / "pneumoniamnist.npz", **kept)
    return folder / "pneumoniamnist.npz"


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"test_images": None}, "has three parts but lacks test_images; get the file again"),
        ({"val_labels": None}, "has three parts but lacks val_labels; get the file again"),
        ({"train_labels": None, "train_images": None}, "lacks train_images, train_labels"),
        ({f"{part}_labels": None for part in ("train", "val", "test")}, "are not those of pneumoniamnist"),
        ({"val_labels": np.zeros((3, 1), int)}, "not one value per scan"),
    ],
)
def test_a_file_of_medmnist_that_lacks_an_array_is_one_sentence(tmp_path, changed, told):
    with pytest.raises(ScanlearnError, match=told) as error:
        source_of(a_file(tmp_path, **changed))
    assert "\n" not in str(error.value)


def test_half_a_download_of_medmnist_is_one_sentence(tmp_path):
    path = a_file(tmp_path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ScanlearnError, match="cannot be read as plain NumPy arrays"):
        source_of(path)
