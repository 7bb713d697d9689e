"""MedSeg's nine volumes, here three, and the stack of slices whose patients nobody knows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from catalog.layouts.trees.parts import ct, remove, write_nifti

DEPTH = 16  # slices of a volume
# By volume, the values that its mask has in its first slices; volume 3 shows effusion only.
MASKS = {1: ((), (1,), (1, 2), (), (3,), ()), 2: ((), (), (2,), (), (), ()), 3: ((), (3,), (3,), (), (), ())}


def make(folder: Path, *, without: tuple[str, ...] = (), slices: bool = True, nested: bool = False) -> Path:
    """Write the tree; nested: each archive unpacked into a folder of its own name."""
    for name in ("rp_im", "rp_msk", "rp_lung_msk"):
        place = folder / name / name if nested else folder / name
        for number, values in MASKS.items():
            array = ct(number, (24, 20, DEPTH))
            if name == "rp_msk":
                array = mask(values, array.shape)
            elif name == "rp_lung_msk":
                array = (array > 0).astype(np.uint8)
            write_nifti(place / f"{number}.nii.gz", array)
    if slices:
        write_nifti(folder / "tr_im.nii.gz", ct(7, (24, 20, 5)), None)
        write_nifti(folder / "tr_mask.nii.gz", mask(((1,), (1,), (2,), (1, 3), ()), (24, 20, 5)), None)
        write_nifti(folder / "val_im.nii.gz", ct(8, (24, 20, 3)), None)
    remove(folder, without)
    return folder


def mask(values: tuple[tuple[int, ...], ...], shape: tuple[int, ...]) -> np.ndarray:
    """uint8 of the shape: in each slice a row of voxels for each of its values."""
    array = np.zeros(shape, np.uint8)
    for z, of_slice in enumerate(values):
        for value in of_slice:
            array[4 * value : 4 * value + 3, 4:9, z] = value
    return array
