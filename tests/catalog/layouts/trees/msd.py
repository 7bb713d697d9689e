"""A task of the Decathlon with a test case, the litter of a Mac, and four channels along the last axis."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from catalog.layouts.trees.parts import ct, remove, write_nifti

BRAIN, LIVER, HIPPOCAMPUS = (
    ("Task01_BrainTumour", "BRATS"),
    ("Task03_Liver", "liver"),
    ("Task04_Hippocampus", "hippocampus"),
)


def make(folder: Path, task: tuple[str, str] = BRAIN, *, without: tuple[str, ...] = (), **changed: object) -> Path:
    """Write the task into a folder of its name; changed: what dataset.json says instead."""
    name, case = task
    root = folder / name
    shape = (10, 9, 6, 4) if case == "BRATS" else (10, 9, 6)
    for number in (1, 2, 3):
        part = "imagesTr" if number < 3 else "imagesTs"
        write_nifti(root / part / f"{case}_{number:03d}.nii.gz", ct(number, shape) + np.int16(1200))
        if number < 3:
            mask = np.zeros(shape[:3], np.uint8)
            mask[2:7, 2:7, 2], mask[3, 3, 2] = 1, 2
            write_nifti(root / "labelsTr" / f"{case}_{number:03d}.nii.gz", mask)
    (root / "imagesTr" / f"._{case}_001.nii.gz").write_bytes(b"\0\5\26\7")
    names = [f"./imagesTr/{case}_{number:03d}.nii.gz" for number in (1, 2)]
    content = {
        "name": "BRATS",
        "modality": {"0": "FLAIR"},
        "labels": {"0": "background", "1": "edema"},
        "numTraining": 2,
        "training": [{"image": file, "label": file.replace("images", "labels")} for file in names],
        "test": [f"./imagesTs/{case}_003.nii.gz"],
        **changed,
    }
    (root / "dataset.json").write_text(json.dumps(content))
    remove(root, without)
    return folder
