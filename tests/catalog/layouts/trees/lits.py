"""A LiTS of five training and two test volumes: a mask with an identity for a header, a volume that says 1 mm."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from catalog.layouts.trees.parts import ct, remove, write_nifti

TRAIN, TEST = (0, 28, 53, 100, 130), (0, 69)
SHAPE = (12, 10, 6)


def make(folder: Path, *, without: tuple[str, ...] = (), ending: str = ".nii") -> Path:
    """Write the tree in the folders of the two batches and the test."""
    for number in TRAIN:
        batch = folder / ("Training Batch 1" if number < 28 else "Training Batch 2")
        place = None if number == 28 else (-0.7, -0.7, 2.0)
        write_nifti(batch / f"volume-{number}{ending}", ct(number, SHAPE), place)
        mask = np.zeros(SHAPE, np.uint8)
        mask[3:8, 3:7, 1:4], mask[4:6, 4:6, 2] = 1, 2
        write_nifti(batch / f"segmentation-{number}{ending}", mask, None if number in (28, 53) else place)
    for number in TEST:
        write_nifti(folder / "Test" / f"test-volume-{number}{ending}", ct(200 + number, SHAPE))
    remove(folder, without)
    return folder
