"""BraTS releases of two or three cases each, under the names of their years."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from catalog.layouts.trees.parts import remove, write_nifti

OLD, NEW = (("_t1", "_t1ce", "_t2", "_flair"), "_seg"), (("-t1n", "-t1c", "-t2w", "-t2f"), "-seg")
# layout: (folder of the training set, (folder of the validation set, ...), endings, ending of files, training cases, others)
RELEASES = {
    "brats2017": ("", OLD, ".nii.gz", ("HGG/Brats17_CBICA_AAB_1", "LGG/Brats17_TCIA_101_1"), ()),
    "brats2018": (
        "MICCAI_BraTS_2018_Data_Training",
        OLD,
        ".nii.gz",
        ("HGG/Brats18_2013_10_1", "LGG/Brats18_TCIA09_141_1"),
        (),
    ),
    "brats2019": (
        "MICCAI_BraTS_2019_Data_Training",
        OLD,
        ".nii",
        ("HGG/BraTS19_2013_10_1", "LGG/BraTS19_TMC_09043_1"),
        (),
    ),
    "brats2020": (
        *("MICCAI_BraTS2020_TrainingData", OLD, ".nii"),
        *(
            ("BraTS20_Training_001", "BraTS20_Training_355"),
            ("../MICCAI_BraTS2020_ValidationData/BraTS20_Validation_001",),
        ),
    ),
    "brats2021": ("", OLD, ".nii.gz", ("BraTS2021_00000", "BraTS2021_00003"), ("BraTS2021_00001",)),
    "brats2023_gli": (
        *("ASNR-MICCAI-BraTS2023-GLI-Challenge-TrainingData", NEW, ".nii.gz"),
        *(("BraTS-GLI-00006-000", "BraTS-GLI-00006-001"), ()),
    ),
    "brats2023_men": ("BraTS2023-MEN", NEW, ".nii.gz", ("BraTS-MEN-00004-000",), ()),
    "brats2024_gli": ("BraTS2024-GLI", NEW, ".nii.gz", ("BraTS-GLI-00005-100", "BraTS-GLI-00005-101"), ()),
    "brats2024_ped": ("BraTS2024-PED", NEW, ".nii.gz", ("BraTS-PED-00001-000",), ()),
}
SHAPE = (10, 10, 6)


def make(folder: Path, name: str, *, without: tuple[str, ...] = (), root: str | None = None, value: int = 1) -> Path:
    """Write one release. root: another name of its folder than that of its year; value: in the middle of the masks."""
    place, (endings, seg), suffix, cases, bare = RELEASES[name]
    place = place if root is None else root
    for number, case in enumerate((*cases, *bare)):
        stem = case.rpartition("/")[2]
        for k, ending in enumerate(endings):
            array = np.random.default_rng(10 * number + k).integers(1, 900, SHAPE).astype(np.int16)
            write_nifti(folder / place / case / f"{stem}{ending}{suffix}", array, (-1.0, -1.0, 1.0))
        if case in cases:
            mask = np.zeros(SHAPE, np.uint8)
            mask[2:8, 2:8, 2:4], mask[4:6, 4:6, 2] = 2, value
            called = "W39_1998.09.19_Segm" if stem == "BraTS20_Training_355" else f"{stem}{seg}"
            write_nifti(folder / place / case / f"{called}{suffix}", mask, (-1.0, -1.0, 1.0))
    remove(folder, without)
    return folder
