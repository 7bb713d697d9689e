"""Volumes inside a page: a scan with its reference and predicted mask, turned and cut by the reader (NiiVue, built in).

The page stays one file that loads nothing: the viewer and the volumes lie in it, compressed.
"""

from __future__ import annotations

import base64
import gzip
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from scanlearn.engine.run_folder import RunFolder
from scanlearn.scans.store import Store
from scanlearn.tasks.segment import read_unit, segment_image
from scanlearn.tasks.trained import Trained, load_trained

LONGEST = 192  # voxels per side that a page carries; longer sides are thinned out
MOST_BYTES = 6 << 20  # of all volumes of a page, compressed


@dataclass(frozen=True)
class Volume:
    """One case: base64 of compressed NIfTI files."""

    title: str
    image: str
    truth: str
    found: str
    centre: list[float]  # mm: the middle of the reference, where the crosshair starts

    @property
    def size(self) -> int:
        """Bytes in the page."""
        return len(self.image) + len(self.truth) + len(self.found)


@dataclass(frozen=True)
class Viewer:
    """What the template needs: the volumes, the program, and the word that lets this script and no other run."""

    volumes: Sequence[Volume]
    program: str  # base64 of the gzip of niivue.umd.js
    nonce: str


def viewer_of(store: Store, cell: Path, *, device: Any = "cpu") -> Viewer | None:
    """The worst and the best test case of a segmentation cell in 3D; None in 2D, or where they are too large for a page."""
    if store.spatial_dims != 3:
        return None
    trained = load_trained(RunFolder(cell).path, device)
    volumes = [volume_of(store, trained, row, title, device) for row, title in worst_and_best(cell)]
    if not volumes or sum(v.size for v in volumes) > MOST_BYTES * 4 // 3:
        return None
    program = (resources.files("scanlearn") / "study" / "vendor" / "niivue.umd.js.gz").read_bytes()
    return Viewer(volumes, base64.b64encode(program).decode(), secrets.token_urlsafe(12))


def worst_and_best(cell: Path) -> list[tuple[int, str]]:
    """(row of the store, title) of the two cases, by the mean Dice over classes."""
    table = pq.read_table(cell / "cases.parquet")
    values = np.array([table[name].to_pylist() for name in table.column_names if name.startswith("dice_")], np.float64)
    known = np.flatnonzero(np.isfinite(values).any(axis=0))
    if not len(known):
        return []
    dice = np.nanmean(values[:, known], axis=0)
    rows = np.asarray(table["row"])[known]
    return [
        (int(rows[at]), f"{word} case, Dice {dice[at]:.2f}")
        for word, at in (("Worst", int(dice.argmin())), ("Best", int(dice.argmax())))
    ]


def volume_of(store: Store, trained: Trained, row: int, title: str, device: Any) -> Volume:
    """Segment one scan again with the cell's network; what it finds is what was tested."""
    import torch

    with torch.no_grad():
        image = read_unit(store, row, torch.device(device))
        found = segment_image(trained.network, image, trained.facts)
    step = tuple(-(-side // LONGEST) for side in store.shape(row))
    affine = store.affine(row) @ np.diag([*step, 1.0])
    grey = (image[0].cpu().numpy() * 255).round().astype(np.uint8)
    parts = (grey, store.read_masks([row])[0], found)
    image_text, truth, found_text = (nifti_text(p[:: step[0], :: step[1], :: step[2]], affine) for p in parts)
    return Volume(title, image_text, truth, found_text, centre_of(parts[1], store.affine(row)))


def centre_of(mask: np.ndarray, affine: np.ndarray) -> list[float]:
    """The mean place of a mask's voxels in mm, of the whole grid where it has none."""
    voxels = np.argwhere(mask > 0)
    middle = voxels.mean(axis=0) if len(voxels) else (np.array(mask.shape) - 1) / 2
    return [round(float(x), 2) for x in (affine @ [*middle, 1.0])[:3]]


def nifti_text(array: np.ndarray, affine: np.ndarray) -> str:
    """base64 of a .nii.gz with these voxels, this place in space and an otherwise blank header."""
    import nibabel as nib

    image = nib.Nifti1Image(np.ascontiguousarray(array, np.uint8), affine)
    return base64.b64encode(gzip.compress(image.to_bytes(), 9, mtime=0)).decode()
