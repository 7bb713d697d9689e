"""Slices of volumes as 2D scans: each volume is decoded once, and what the slices share is settled once for all."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from scanlearn.catalog.table import FIXED, Catalog
from scanlearn.errors import FileError, ScanlearnError, unknown
from scanlearn.scans import intensity
from scanlearn.scans.conform import Conformed, Grid, aligned, check, conform, lay, range_of, reason_of
from scanlearn.scans.foreground import sample_voxels
from scanlearn.scans.geometry import Placement, place, spacing_of
from scanlearn.scans.read import Scan
from scanlearn.scans.sources import ArraySource, FileRows

# Axis of a volume (to the Left, to the back, up) that a plane is cut across, and those that become rows and columns.
PLANES = {"axial": (2, 1, 0), "coronal": (1, 2, 0), "sagittal": (0, 2, 1)}
TURNS = ("patient", "file")
PRESENT, ABSENT = "present", "absent"
BODY_HU = -500  # halfway between air and water
BODY_SHARE = 0.1  # of the range between the 0.5th and 99.5th percentile, where there are no Hounsfield units


@dataclass(frozen=True)
class Slicing:
    """Which slices of a volume become scans, and how they lie.

    plane: axial, coronal or sagittal. every: each n-th slice, from the first. body: least share of a slice's pixels
    that show the patient (above -500 HU in CT). label, values: a label column that says whether the mask of a slice
    holds any of these values. turned: ``patient`` shows slices as radiologists see them, by the file's affine (rows
    run to the back or down, columns to the patient's left or to the back); ``file`` takes (i, j, k) for the directions
    left, back and up, whatever the affine says.
    """

    plane: str = "axial"
    every: int = 1
    body: float = 0.0
    label: str = ""
    values: tuple[int, ...] = ()
    turned: str = "patient"

    def __post_init__(self) -> None:
        for name, value, known in (("plane", self.plane, PLANES), ("way to turn slices", self.turned, TURNS)):
            if value not in known:
                raise unknown(name, value, known)
        if self.every < 1 or not 0 <= self.body < 1:
            raise ScanlearnError("Take every n-th slice with n of 1 or more, and a share of body from 0 to below 1.")
        if self.label in (*FIXED.names, "slice"):
            raise ScanlearnError(f"A label of slices cannot be called {self.label!r}, as another column is; rename it.")
        if bool(self.label) != bool(self.values) or not all(0 < value < 256 for value in self.values):
            raise ScanlearnError(
                "A label of slices is a name and the values in the mask that count, such as lesion=1,2."
            )

    def settings(self) -> dict[str, Any]:
        """Plain data for store.json."""
        return asdict(self) | {"values": list(self.values)}


def slicing_of(plane: str | None, every: int, body: float, label: str | None, turned: str) -> Slicing | None:
    """A Slicing as it is typed, with a label such as ``lesion=1,2``; None for no slices."""
    if plane is None:
        if (every, body, label, turned) != (1, 0.0, None, "patient"):
            raise ScanlearnError("What is said of slices needs a plane: add --slices axial.")
        return None
    name, _, values = (label or "").partition("=")
    try:
        numbers = tuple(int(value) for value in values.split(",")) if label else ()
    except ValueError as error:
        raise ScanlearnError(f"A label of slices is a name and values, such as lesion=1,2, not {label!r}.") from error
    return Slicing(plane, every, body, name.strip(), numbers, turned)


def flat_shape(shape: tuple[int, ...], slicing: Slicing) -> tuple[int, ...]:
    """(rows, columns) of the slices of a file whose axes are (left, back, up), as most are; a 2D shape as it is."""
    cut = PLANES[slicing.plane]
    return shape if len(shape) == 2 else (shape[cut[1]], shape[cut[2]])


def conform_slices(
    source: FileRows | ArraySource, row: int, slicing: Slicing, grid: Grid, modality: str, seed: int, name: str
) -> list[Conformed]:
    """Read volume ``row`` and its mask once and bring its slices onto the grid, in the order of the file's axis.

    A 2D scan is taken as it is. Modality and the range of values are those of the volume, so that a slice of soft tissue
    is not taken for something else than its neighbours. Slices that are left out by ``every`` and ``body`` are not in
    the list; slices that cannot be used have a reason, and a volume that cannot be read is one item with a reason.
    """
    out = Conformed(row, source.digest(row), source.mask_digest(row), source.file(row))
    about = ""
    try:
        if len(source.shape(row)) == 2:
            return [conform(source, row, grid, modality, seed, name)]
        scan = source.read(row)
        volume = _Volume.of(scan, modality, slicing)
        out.notes = (*scan.notes, *volume.notes)
        about = "has a mask that "
        mask = source.mask(row)
        labels = None if mask is None else aligned(mask, scan, out)
        about = ""
        numbers = [k for k in range(0, volume.count, slicing.every) if volume.body(k) >= slicing.body]
        if not numbers:
            raise FileError(scan.source, f"has no slice of which {slicing.body:.0%} show the body.")
    except Exception as error:  # whatever a file does to the code that reads it, the other scans go on
        return [Conformed(row, out.digest, out.mask_digest, out.file, about + reason_of(error, source.files(row)))]
    items = [_slice(out, volume, labels, k, slicing, grid, seed, f"{name}_s{k}") for k in numbers]
    items[0].notes = out.notes  # once, not for each slice
    for item in items[:-1]:
        item.more = True
    return items


@dataclass
class _Volume:
    """A volume in a small dtype, and what its slices have in common."""

    array: np.ndarray  # (C, i, j, k)
    scan: Scan
    modality: str
    stats: dict[str, float]
    notes: tuple[str, ...]
    axes: tuple[int, int, int]  # of the array: cut across, rows, columns
    flips: tuple[bool, bool]  # of rows and columns

    @classmethod
    def of(cls, scan: Scan, told: str, slicing: Slicing) -> _Volume:
        if scan.array.size == 0:
            raise FileError(scan.source, f"is empty: its shape is {scan.array.shape}.")
        if scan.array.dtype.kind not in "biuf":
            raise FileError(
                scan.source, f"holds numbers of the type {scan.array.dtype}; only real numbers can be used."
            )
        if scan.array.dtype.kind == "f" and not np.isfinite(scan.array).all():
            raise FileError(scan.source, "holds NaN or infinity.")
        modality, note = intensity.settle_modality(told, scan.modality, scan.array)
        array = intensity.narrow(scan.array, modality)
        axes, flips = lie(scan, slicing)
        return cls(array, scan, modality, range_of(array), (note,) if note else (), axes, flips)

    @property
    def count(self) -> int:
        return self.scan.shape[self.axes[0]]

    def plane(self, array: np.ndarray, k: int) -> np.ndarray:
        """Slice k of (C, i, j, k): (C, rows, columns), a view."""
        across, rows, columns = self.axes
        flat = np.take(array, k, axis=across + 1) if across != 2 else array[..., k]
        flat = flat if rows < columns else flat.swapaxes(1, 2)
        return flat[:, :: -1 if self.flips[0] else 1, :: -1 if self.flips[1] else 1]

    def affine(self, k: int) -> np.ndarray:
        """(row, column) of slice k -> RAS+ mm."""
        across, rows, columns = self.axes
        to_file = np.zeros((4, 4))
        to_file[3, 3] = 1
        to_file[across, 2], to_file[across, 3] = 1, k
        for column, (axis, flipped) in enumerate(zip((rows, columns), self.flips, strict=True)):
            to_file[axis, column] = -1 if flipped else 1
            to_file[axis, 3] = self.scan.shape[axis] - 1 if flipped else 0
        return self.scan.affine @ to_file

    def body(self, k: int) -> float:
        """The share of slice k that shows the patient."""
        low, high = self.stats["p_low"], self.stats["p_high"]
        threshold = BODY_HU if self.modality == "CT" else low + BODY_SHARE * (high - low)
        return float((self.plane(self.array[:1], k) > threshold).mean())


def lie(scan: Scan, slicing: Slicing) -> tuple[tuple[int, int, int], tuple[bool, bool]]:
    """((array axis cut across, of rows, of columns), (rows flipped, columns flipped)) for slices as they are displayed.

    Rows of axial slices run to the back, of others down; columns run to the patient's left, of sagittal ones to the back.
    """
    axes, towards = np.arange(3), np.ones(3)  # of the directions left, back, up: array axis, and whether along it
    if slicing.turned == "patient" and scan.located:
        from nibabel.orientations import io_orientation

        found = io_orientation(scan.affine)  # of each array axis: RAS axis, direction
        for axis, (ras, sign) in enumerate(found):
            axes[int(ras)], towards[int(ras)] = axis, sign
        towards *= [-1, -1, 1]
    cut, rows, columns = PLANES[slicing.plane]
    down = -1 if slicing.plane != "axial" else 1
    flips = (bool(towards[rows] * down < 0), bool(towards[columns] < 0))
    return (int(axes[cut]), int(axes[rows]), int(axes[columns])), flips


def _slice(
    volume_item: Conformed,
    volume: _Volume,
    labels: np.ndarray | None,
    k: int,
    slicing: Slicing,
    grid: Grid,
    seed: int,
    name: str,
) -> Conformed:
    v = volume_item
    out = Conformed(v.row, v.digest, v.mask_digest, v.file, slice=k)
    try:
        square = _square(volume, volume.affine(k))
        image = square.apply(np.ascontiguousarray(volume.plane(volume.array, k)))
        affine = square.affine(volume.affine(k))
        scan = Scan(image, affine, volume.modality, volume.scan.source, volume.scan.located)
        check(scan)
        lay(out, scan, grid, volume.modality, volume.stats)
        if labels is not None:
            mask = np.ascontiguousarray(volume.plane(labels, k))
            assert out.placement is not None
            out.mask = out.placement.apply(square.apply(mask, nearest=True), nearest=True)[0]
            out.masked, out.voxels = True, sample_voxels(out.mask, seed, name)
            if slicing.label:
                out.cells = {slicing.label: PRESENT if np.isin(mask, slicing.values).any() else ABSENT}
    except Exception as error:
        return Conformed(v.row, v.digest, v.mask_digest, v.file, reason_of(error, [v.file]), slice=k)
    return out


def catalog_of_slices(volumes: Catalog, items: list[Conformed]) -> tuple[Catalog, list[Conformed]]:
    """(a catalogue with one row for each item, the items with these rows).

    Each row has the cells of its volume, the slice's number in ``scan_id`` and in the column ``slice``, and what the
    voxels told (``cells``) in a column each.
    """
    rows = np.array([item.row for item in items])
    sliced = {name: volumes.array(name, rows) for name in volumes.table.column_names}
    digits = len(str(max((item.slice or 0 for item in items), default=0)))
    numbers = ["" if item.slice is None else f"{item.slice:0{digits}d}" for item in items]
    ids = [f"{name}_s{k}" if k else name for name, k in zip(sliced["scan_id"].to_pylist(), numbers, strict=True)]
    columns: dict[str, Any] = sliced | {"scan_id": ids, "slice": numbers}
    for name in dict.fromkeys(name for item in items for name in item.cells):
        columns[name] = [item.cells.get(name, "") for item in items]
    made = Catalog.from_columns(columns, volumes.patients_known).table
    catalog = Catalog(made.replace_schema_metadata(volumes.table.schema.metadata), volumes.patients_known)
    return catalog, [replace(item, row=row) for row, item in enumerate(items)]


def _square(volume: _Volume, affine: np.ndarray) -> Placement:
    """The way to square pixels, so that a coronal slice through thick ones is not squashed."""
    shape = (volume.scan.shape[volume.axes[1]], volume.scan.shape[volume.axes[2]])
    spacing = spacing_of(affine, 2)
    usable = np.isfinite(spacing).all() and min(spacing) > 0  # ``check`` refuses the others
    if not usable or max(spacing) < 1.01 * min(spacing):
        return place(shape, spacing)
    return place(shape, spacing, new_spacing=(min(spacing), min(spacing)))
