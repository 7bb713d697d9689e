"""Small stores of made-up anatomy for the tests of discovery: the same picture in every patient, stretched and noisy."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.ndimage import zoom

from scanlearn.scans.prepare import prepare
from scanlearn.scans.store import Store

SHAPES = ((24, 26, 20), (26, 24, 22), (28, 28, 20))


def anatomy(shape, seed=0, noise=0.1):
    """The same smooth structure at any size, in 100..1000, with noise of the patient's own."""
    template = np.random.default_rng(7).random((6,) * len(shape))
    sized = zoom(template, np.array(shape) / 6, order=1, grid_mode=True, mode="nearest")
    rough = np.random.default_rng(seed).normal(0, noise, sized.shape)
    return ((np.clip(sized + rough, 0, 1) * 900) + 100).astype(np.int16)


def volume_store(
    folder: Path, parts=("train",) * 8 + ("val",) * 3 + ("test",) * 2, scans=1, shapes=SHAPES, modality="MR", **options
) -> Store:
    """Volumes of several shapes, ``scans`` of each patient; ``parts`` says in which part each patient is."""
    source = folder / "files"
    source.mkdir(parents=True)
    with (folder / "list.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "patient", "split", "modality"])
        for i, part in enumerate(parts):
            for n in range(scans):
                name = f"files/{i}_{n}.nii.gz"
                array = anatomy(shapes[(i + n) % len(shapes)], seed=10 * i + n)
                nib.save(nib.Nifti1Image(array, np.eye(4)), folder / name)
                table.writerow([name, f"p{i}", part, modality])
    return prepare(folder / "list.csv", folder / "store", workers=0, **options)


def image_store(folder: Path, patients=12, scans=2, side=40) -> Store:
    """2D images of the same picture, two of each patient."""
    folder.mkdir(parents=True, exist_ok=True)
    images = np.stack([anatomy((side, side), seed) // 4 for seed in range(patients * scans)]).astype(np.uint8)
    np.savez(folder / "images.npz", image=images, patient=np.arange(patients * scans) // scans)
    return prepare(folder / "images.npz", folder / "store", workers=0)
