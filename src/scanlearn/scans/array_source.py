"""Scans that lie in the arrays of one .npz file, with columns of labels beside them."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from scanlearn.catalog.layouts.arrays import known_arrays
from scanlearn.catalog.origin import with_origin
from scanlearn.catalog.table import SPLITS, Catalog
from scanlearn.errors import ScanlearnError, unknown
from scanlearn.scans.dicom import to_grey
from scanlearn.scans.digests import state_of
from scanlearn.scans.read import Scan

IMAGE_NAMES = ("x", "image", "images", "patch", "patches", "volume", "volumes", "data")
MASK_NAMES = ("mask", "masks", "segmentation", "segmentations")
PATIENT_NAMES = ("patient", "patient_id", "patients", "group", "groups", "subject", "subject_id", "subjects")
SPLIT_NAMES = ("split", "splits")
# MedMNIST keeps each split in its own arrays: train_images, val_labels, ...
_SPLIT_IMAGES = tuple(f"{split}_images" for split in SPLITS)


class ArraySource:
    """Scans in one .npz file: an array (N, H, W[, C]) or (N, X, Y, Z), and columns of N labels beside it."""

    def __init__(
        self,
        path: Path,
        *,
        patient: str | None = None,
        mask: str | None = None,
        image: str | None = None,
        layout: str | None = None,
        split: str | None = None,
    ):
        columns, origin = known_arrays(path, _load_npz(path), layout, split)
        found = image or _named(columns, IMAGE_NAMES)
        if found is None or found not in columns:
            raise (
                unknown("array", image, columns)
                if image
                else ScanlearnError(
                    f"{path} holds no array called {' or '.join(IMAGE_NAMES[:3])}; name yours with image=..., it has "
                    f"{', '.join(sorted(columns))}."
                )
            )
        self.path = path
        self._images = _channels_first(columns.pop(found), path)
        for name in (patient, mask):
            if name is not None and name not in columns:
                raise unknown("array", name, columns)
        mask = mask or _named(columns, MASK_NAMES)
        self._masks = columns.pop(mask) if mask else None
        if self._masks is not None and self._masks.shape != (len(self._images), *self._images.shape[2:]):
            raise ScanlearnError(f"The masks of {path} {self._masks.shape} do not fit its images {self._images.shape}.")
        catalog = _catalog_of(columns, len(self._images), path, patient)
        self.catalog = Catalog(with_origin(catalog.table, origin), catalog.patients_known) if origin else catalog

    def shape(self, row: int) -> tuple[int, ...]:
        """The spatial shape."""
        return self._images.shape[2:]

    def read(self, row: int) -> Scan:
        """The scan; the file knows no millimetres, so a voxel counts as 1 mm."""
        return Scan(self._images[row], source=self.file(row), located=False)

    def mask(self, row: int) -> Scan | None:
        """Its mask, or None."""
        return None if self._masks is None else Scan(self._masks[row][None].astype(np.uint8), source=self.file(row))

    def digest(self, row: int) -> str:
        """sha256 of the numbers of the scan."""
        return hashlib.sha256(np.ascontiguousarray(self._images[row]).tobytes()).hexdigest()

    def mask_digest(self, row: int) -> str:
        """sha256 of the numbers of its mask, "" without one."""
        return "" if self._masks is None else hashlib.sha256(self._masks[row].tobytes()).hexdigest()

    def file(self, row: int) -> str:
        """The name by which a person finds the scan."""
        return f"{self.path}[{row}]"

    def files(self, row: int) -> list[str]:
        """Every path of the scan and of its mask."""
        return [str(self.path)]

    def state(self, row: int) -> list[tuple[int, int]]:
        """(bytes, time of the last change in ns) of the one file."""
        return [state_of(self.path)]


def _load_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            columns = {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ScanlearnError(f"{path} cannot be read as plain NumPy arrays ({error}).") from error
    if not {*_SPLIT_IMAGES} & {*columns}:
        return columns
    names = sorted(
        {key.removeprefix(f"{split}_") for split in SPLITS for key in columns if key.startswith(f"{split}_")}
    )
    absent = [f"{split}_{name}" for name in names for split in SPLITS if f"{split}_{name}" not in columns]
    if absent:
        raise ScanlearnError(f"{path} has three parts but lacks {', '.join(absent)}; get the file again.")
    joined = {name: np.concatenate([columns[f"{split}_{name}"] for split in SPLITS]) for name in names}
    joined["split"] = np.repeat(SPLITS, [len(columns[name]) for name in _SPLIT_IMAGES])
    return joined


def _named(columns: dict[str, np.ndarray], names: Sequence[str]) -> str | None:
    return next((key for name in names for key in columns if key.lower() == name), None)


def _channels_first(images: np.ndarray, path: Path) -> np.ndarray:
    """(N, C, *S). A last axis of 1 to 4 is taken for channels; three of them are a grey image in colour."""
    if images.ndim == 4 and images.shape[-1] <= 4:
        images = to_grey(images)[..., None] if images.shape[-1] == 3 else images
        return np.moveaxis(images, -1, 1)
    if images.ndim in (3, 4):
        return images[:, None]
    raise ScanlearnError(f"The images of {path} have the shape {images.shape}; use (N, H, W[, C]) or (N, X, Y, Z).")


def _catalog_of(columns: dict[str, np.ndarray], count: int, path: Path, patient: str | None) -> Catalog:
    for name, column in columns.items():
        columns[name] = column[:, 0] if column.ndim == 2 and column.shape[1] == 1 else column
        if columns[name].shape != (count,):
            raise ScanlearnError(f"The array {name!r} of {path} has the shape {column.shape}, not one value per scan.")
    patient = patient or _named(columns, PATIENT_NAMES)
    split = _named(columns, SPLIT_NAMES)
    fixed: dict[str, object] = {
        "scan_id": [f"{path.stem}_{row:0{len(str(count))}d}" for row in range(count)],
        "paths": [[str(path)]] * count,
        "dataset": [path.stem] * count,
    }
    if patient:
        fixed["patient_id"] = columns.pop(patient)
    if split:
        fixed["split"] = columns.pop(split)
    return Catalog.from_columns({**fixed, **columns})
