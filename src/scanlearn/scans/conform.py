"""One scan on its way into a store: read, checked, laid on the grid, and put into its storage dtype."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from scanlearn.errors import FileError, ScanlearnError
from scanlearn.scans import intensity
from scanlearn.scans.foreground import sample_voxels
from scanlearn.scans.geometry import Placement, onto_grid, place, same_grid
from scanlearn.scans.read import Scan
from scanlearn.scans.sources import ArraySource, FileRows

# A scan of which more is one value shows nothing.
MOST_OF_ONE_VALUE = 0.9999
# mm; beyond that a header is wrong about its unit, or lies.
LARGEST_SPACING = 100.0


@dataclass(frozen=True)
class Grid:
    """The grid all scans of a store are brought to: ``size`` (voxels), or ``spacing`` (mm), or each its own."""

    dims: int
    size: tuple[int, ...] | None = None
    spacing: tuple[float, ...] | None = None
    fit: str = "pad"
    window: intensity.Windows = None

    @classmethod
    def of(cls, settings: dict[str, Any]) -> Grid:
        """The grid of a store, from the ``settings`` in its ``store.json``."""
        size, spacing = (
            tuple(value) if isinstance(value, list) else value for value in (settings["size"], settings["spacing"])
        )
        return cls(
            settings["spatial_dims"], size, spacing, settings["fit"], intensity.check_windows(settings["window"])
        )

    @property
    def one_window(self) -> intensity.Window:
        """The window, of a grid for all scans or of one data set."""
        assert not isinstance(self.window, dict)
        return self.window

    def of_dataset(self, name: str) -> Grid:
        """The grid with the window of one data set, where each has its own."""
        return replace(self, window=intensity.window_of(self.window, name))

    def of_input(self, datasets: Iterable[str]) -> Grid:
        """The grid for scans that a network is asked about, which are of these data sets."""
        if not isinstance(self.window, dict):
            return self
        names = set(datasets)
        if len(names) != 1 or not names <= set(self.window):
            known = ", ".join(sorted(self.window))
            raise ScanlearnError(
                f"The run learned from data sets that have a window each ({known}), and these scans are of "
                f"{', '.join(sorted(names))}: call their folder, or their column dataset, by the one that they are like."
            )
        return self.of_dataset(names.pop())

    def place(self, scan: Scan) -> Placement:
        """The way of one scan onto this grid."""
        return place(scan.shape, scan.spacing, size=self.size, new_spacing=self.spacing, fit=self.fit)


@dataclass(slots=True)
class Conformed:
    """A scan ready for the store, or the ``reason`` why it cannot be in it (then nothing after it is set).

    ``file`` may name a patient and goes into private lists only; ``reason`` and ``notes`` (what a person should know of
    a scan that is in the store) name nobody.
    """

    row: int
    digest: str
    mask_digest: str
    file: str = ""
    reason: str = ""
    array: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint8))  # (C, *S) in its storage dtype
    mask: np.ndarray | None = None  # (*S) uint8
    masked: bool = False
    affine: np.ndarray = field(default_factory=lambda: np.eye(4))
    placement: Placement | None = None
    factor: float = 1.0
    modality: str = ""
    stats: dict[str, float] = field(default_factory=dict)
    voxels: dict[int, np.ndarray] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    slice: int | None = None  # of a volume, counted along the file's axis
    more: bool = False  # other slices of the same volume follow
    cells: dict[str, str] = field(default_factory=dict)  # label columns that the voxels tell

    def drop_arrays(self) -> None:
        """Free the voxels once they are written; dtype and channels stay readable."""
        self.hold(self.array.dtype.name, self.array.shape[0], self.array.ndim - 1)
        self.mask = None

    def hold(self, dtype: str, channels: int, dims: int) -> None:
        """Be a scan whose voxels are written: an empty array of this dtype and number of channels and axes."""
        self.array = _emptied(dtype, channels, dims)


@cache
def _emptied(dtype: str, channels: int, dims: int) -> np.ndarray:
    return np.zeros((channels, *(0,) * dims), dtype)


def conform(source: FileRows | ArraySource, row: int, grid: Grid, modality: str, seed: int, name: str) -> Conformed:
    """Read scan ``row`` and its mask and bring both onto the grid. Bad files give a Conformed with a reason.

    ``name`` and ``seed`` choose the voxels that are kept of the mask.
    """
    out = Conformed(row, source.digest(row), source.mask_digest(row), source.file(row))
    about = ""
    try:
        scan = source.read(row)
        check(scan)
        out.notes = tuple(scan.notes)
        lay(out, scan, grid, modality)
        about = "has a mask that "
        mask = source.mask(row)
        if mask is not None:
            out.mask, out.masked = lay_mask(mask, scan, out), True
            out.voxels = sample_voxels(out.mask, seed, name)
    except Exception as error:  # whatever a file does to the code that reads it, the other scans go on
        reason = about + reason_of(error, source.files(row))
        return Conformed(row, out.digest, out.mask_digest, out.file, reason)
    return out


def reason_of(error: BaseException, files: list[str]) -> str:
    """Why a scan is left out, in words that name neither the scan nor its files."""
    if isinstance(error, FileError):
        return error.reason
    if isinstance(error, MemoryError):
        return "needs more memory than there is."
    if not isinstance(error, ScanlearnError):
        return f"cannot be prepared ({type(error).__name__})."
    text = str(error)
    for file in sorted(files, key=len, reverse=True):
        text = text.replace(file, "the file").replace(Path(file).name, "the file")
    return text


def check(scan: Scan) -> None:
    """Refuse what no network can learn from: no voxels, no contrast, numbers that are none, absurd geometry."""
    array = scan.array
    if array.size == 0:
        raise FileError(scan.source, f"is empty: its shape is {array.shape}.")
    if array.dtype.kind not in "biuf":
        raise FileError(scan.source, f"holds numbers of the type {array.dtype}; only real numbers can be used.")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise FileError(scan.source, "holds NaN or infinity.")
    if array.min() == array.max():
        raise FileError(scan.source, f"is constant: every voxel is {array.flat[0]}.")
    if min(scan.shape) < 2:
        raise FileError(scan.source, f"has an axis of one voxel: its shape is {scan.shape}.")
    share, value = _commonest(array)
    if share > MOST_OF_ONE_VALUE:
        raise FileError(scan.source, f"shows nothing: {100 * share:.4f} % of its voxels are {value}.")
    if not np.isfinite(scan.affine).all() or not all(0 < s <= LARGEST_SPACING for s in scan.spacing):
        shown = " x ".join(f"{s:g}" for s in scan.spacing)
        raise FileError(scan.source, f"has an absurd voxel size: {shown} mm.")


def _commonest(array: np.ndarray) -> tuple[float, Any]:
    """(share, value) of a value that more than half of the voxels have; (0, 0) where none seems to."""
    flat = array.reshape(-1)
    sample = np.sort(flat[:: 1 + flat.size // 1000])
    value = sample[len(sample) // 2]
    if sample[len(sample) // 100] != value or sample[-1 - len(sample) // 100] != value:
        return 0.0, 0
    return np.count_nonzero(flat == value) / flat.size, value


def lay(out: Conformed, scan: Scan, grid: Grid, modality: str, stats: dict[str, float] | None = None) -> None:
    """Fill in everything about the image: array on the grid in its storage dtype, affine, value range.

    stats: of the volume that the scan is a slice of; its modality is settled too.
    """
    if len(scan.shape) != grid.dims:
        raise FileError(scan.source, f"is {len(scan.shape)}D among {grid.dims}D scans; prepare those apart.")
    note = ""
    if stats is None:
        modality, note = intensity.settle_modality(modality, scan.modality, scan.array)
    out.modality = modality
    out.notes += (note,) if note else ()
    array = intensity.narrow(scan.array, out.modality)
    out.placement = grid.place(scan)
    out.stats = range_of(array) if stats is None else stats
    fill = intensity.window_for(out.modality, out.stats, grid.one_window, all_8bit=array.dtype == np.uint8)[0]
    if array.dtype.kind in "iu":
        fill = float(np.clip(np.rint(fill), np.iinfo(array.dtype).min, np.iinfo(array.dtype).max))
    array = out.placement.apply(array, fill=fill)
    out.affine = out.placement.affine(scan.affine)
    out.array, out.factor = intensity.to_storage(array)
    if out.array.min() == out.array.max():
        raise FileError(scan.source, "is constant on the grid of the store.")


def range_of(array: np.ndarray) -> dict[str, float]:
    """What ``intensity.window_for`` asks of the values of a scan."""
    low, high = intensity.percentiles(array)
    return {"minimum": float(array.min()), "maximum": float(array.max()), "p_low": low, "p_high": high}


def lay_mask(mask: Scan, scan: Scan, out: Conformed) -> np.ndarray:
    """The mask (*S) uint8 on the grid of the store."""
    assert out.placement is not None
    return out.placement.apply(aligned(mask, scan, out), nearest=True)[0]


def aligned(mask: Scan, scan: Scan, out: Conformed) -> np.ndarray:
    """The mask (1, *S) uint8 on the voxels of the image.

    Where both files say where they lie in space, a 3D mask on another grid is found through the millimetres (masks
    are often saved with an axis turned round); else mask and image must have the same shape.
    """
    array = mask.array
    known = len(scan.shape) == len(mask.shape) == 3 and mask.located and scan.located
    if known and not (mask.shape == scan.shape and same_grid(mask.affine, scan.affine, scan.shape)):
        moved = onto_grid(array[0], mask.affine, scan.shape, scan.affine)
        if array.any() and not moved.any():
            raise FileError(mask.source, "does not overlap its image in space.")
        out.notes += ("has a mask on another grid of voxels; it was found through the millimetres.",)
        array = moved[None]
    elif mask.shape != scan.shape:
        raise FileError(mask.source, f"has the shape {mask.shape}, its image {scan.shape}.")
    return array
