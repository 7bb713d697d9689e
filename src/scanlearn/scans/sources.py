"""Where ``prepare`` takes scans from: the files of a catalogue, or the arrays of one .npz file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scanlearn.catalog.layouts.arrays import known_arrays
from scanlearn.catalog.mask_cells import RunLengths, parsed
from scanlearn.catalog.origin import origin_of, with_origin
from scanlearn.catalog.table import SPLITS, Catalog
from scanlearn.catalog.union import union
from scanlearn.errors import ScanlearnError, unknown
from scanlearn.scans import run_lengths
from scanlearn.scans.dicom import to_grey
from scanlearn.scans.read import Scan, files_of, read_header, read_mask, read_scan

IMAGE_NAMES = ("x", "image", "images", "patch", "patches", "volume", "volumes", "data")
MASK_NAMES = ("mask", "masks", "segmentation", "segmentations")
PATIENT_NAMES = ("patient", "patient_id", "patients", "group", "groups", "subject", "subject_id", "subjects")
SPLIT_NAMES = ("split", "splits")
# MedMNIST keeps each split in its own arrays: train_images, val_labels, ...
_SPLIT_IMAGES = tuple(f"{split}_images" for split in SPLITS)


class FileRows:
    """The files of some scans by their row: all that a process needs in order to read them."""

    def __init__(
        self,
        paths: Mapping[int, list[str]],
        masks: Mapping[int, str],
        limit_bytes: int | None = None,
        origin: Mapping[str, Any] | None = None,
        datasets: Mapping[int, str] | None = None,
    ):
        self._paths, self._masks, self._datasets = paths, masks, datasets or {}
        self.limit_bytes = limit_bytes
        self._origin = dict(origin or {})  # see catalog.origin

    def shape(self, row: int) -> tuple[int, ...]:
        """The spatial shape, from the file's header."""
        return tuple(int(n) for n in read_header(self._paths[row], limit_bytes=self.limit_bytes))

    def read(self, row: int) -> Scan:
        """The scan, in Hounsfield units where its data set stores them with an offset."""
        scan = read_scan(self._paths[row], limit_bytes=self.limit_bytes)
        offset = self._origin_of(row).get("value_offset", 0)
        if offset:
            scan.array = scan.array.astype(np.float32 if scan.array.dtype.kind == "f" else np.int32) + offset
        return scan

    def mask(self, row: int) -> Scan | None:
        """Its mask, or None."""
        if not self._masks[row]:
            return None
        mask = read_mask(self._masks[row], limit_bytes=self.limit_bytes)
        mask.located = mask.located and not self._origin_of(row).get("masks_on_image", False)
        return mask

    def _origin_of(self, row: int) -> Mapping[str, Any]:
        """What is known of the data set of a scan, where there are several (catalog.union) or one."""
        several: Mapping[str, Any] | None = self._origin.get("datasets")
        return self._origin if several is None else several[self._datasets[row]]

    def digest(self, row: int) -> str:
        """sha256 of the file; for a series, of the digests of its files in their order."""
        return digest_of(self._paths[row])

    def mask_digest(self, row: int) -> str:
        """sha256 of the mask's file or of its run lengths, "" without one."""
        cell = parsed(self._masks[row])
        if isinstance(cell, RunLengths):
            return run_lengths.digest(cell.table, cell.name)
        return digest_of([self._masks[row]]) if self._masks[row] else ""

    def file(self, row: int) -> str:
        """The name by which a person finds the scan."""
        return str(self._paths[row][0])

    def files(self, row: int) -> list[str]:
        """Every path of the scan and of its mask."""
        mask = self._masks[row]
        masks = [mask] if mask and parsed(mask) is None else map(str, files_of(mask)) if mask else ()
        return [*self._paths[row], *masks]

    def state(self, row: int) -> list[tuple[int, int]]:
        """(bytes, time of the last change in ns) of every file; (-1, 0) for one that is not there."""
        return [state_of(file) for path in self.files(row) for file in files_of(path)]

    def scan_files(self, row: int) -> list[Path]:
        """Every file of the scan, without its mask."""
        return [file for path in self._paths[row] for file in files_of(path)]


class FileSource(FileRows):
    """Scans in files, as the catalogue lists them."""

    def __init__(self, catalog: Catalog, limit_bytes: int | None = None):
        origin = origin_of(catalog.table)
        cells = (_Cells(catalog, "paths"), _Cells(catalog, "mask_path"), limit_bytes)
        super().__init__(*cells, origin, _Cells(catalog, "dataset") if "datasets" in origin else None)
        self.catalog = catalog

    def only(self, rows: Sequence[int]) -> FileRows:
        """The files of these rows, small enough to be sent to another process."""
        paths, masks = {r: self._paths[r] for r in rows}, {r: self._masks[r] for r in rows}
        datasets = {r: self._datasets[r] for r in rows} if self._datasets else None
        return FileRows(paths, masks, self.limit_bytes, self._origin, datasets)


class _Cells(Mapping[int, Any]):
    """One column of a catalogue by row; a million rows stay in Arrow and are not made into Python objects."""

    def __init__(self, catalog: Catalog, name: str):
        self._array = catalog.array(name)

    def __getitem__(self, row: int) -> Any:
        return self._array[row].as_py()

    def __len__(self) -> int:
        return len(self._array)

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self)))


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


def source_of(
    source: str | Path | Catalog,
    *,
    patient: str | None = None,
    mask: str | None = None,
    image: str | None = None,
    layout: str | None = None,
    split: str | None = None,
    limit_bytes: int | None = None,
) -> FileSource | ArraySource:
    """Open what a person names: a catalogue, a folder, a table of files, or an .npz file.

    ``limit_bytes``: scans in files that are larger once decoded are refused; None: the readers' own limit.
    """
    if isinstance(source, Catalog):
        return FileSource(source, limit_bytes)
    path = Path(source).absolute()
    named = {"patient": patient, "mask": mask, "image": image, "layout": layout, "split": split}
    if path.suffix.lower() == ".npz" and path.is_file():
        return ArraySource(path, **named)
    inside = sorted(path.glob("*.npz")) if path.is_dir() else []
    if len(inside) == 1 and not any(p.is_dir() for p in path.iterdir()):
        return ArraySource(inside[0], **named)
    return FileSource(Catalog.from_source(path, **named), limit_bytes)


def union_of(first: FileSource | ArraySource, also: Sequence[str | Path | Catalog], seed: int) -> FileSource:
    """``first`` and the scans of other sources, see ``catalog.union``."""
    readers = [first, *(source_of(source) for source in also)]
    if not all(isinstance(reader, FileSource) for reader in readers):
        raise ScanlearnError("An .npz of arrays cannot be prepared together with other sources: prepare it apart.")
    return FileSource(union([reader.catalog for reader in readers], seed=seed), first.limit_bytes)  # type: ignore[union-attr]


def digest_of(paths: Sequence[str]) -> str:
    """sha256 of one file, or of the digests of several (a series, header and voxels of a pair, an OME-Zarr folder).

    A file that is not there counts as empty.
    """
    digests = [_sha256(file) for path in paths for file in files_of(path)]
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _sha256(path: Path) -> str:
    try:
        if not path.is_file():  # nothing waits for a pipe
            return ""
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def state_of(path: Path) -> tuple[int, int]:
    """(bytes, time of the last change in ns) of a file; (-1, 0) if it is not there."""
    try:
        found = path.stat()
    except OSError:
        return (-1, 0)
    return found.st_size, found.st_mtime_ns


def _load_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            columns = {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError) as error:
        raise ScanlearnError(f"{path} cannot be read as plain NumPy arrays ({error}).") from error
    if not set(_SPLIT_IMAGES) <= set(columns):
        return columns
    joined = {
        name: np.concatenate([columns[f"{split}_{name}"] for split in SPLITS])
        for name in sorted({key.removeprefix("train_") for key in columns if key.startswith("train_")})
    }
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
