"""One scan on its way into a store: read, checked, laid on the grid, and put into its storage dtype."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from scanlearn.errors import ScanlearnError
from scanlearn.scans import intensity
from scanlearn.scans.foreground import sample_voxels
from scanlearn.scans.geometry import Placement, onto_grid, place, same_grid
from scanlearn.scans.read import Scan
from scanlearn.scans.sources import ArraySource, FileSource


@dataclass(frozen=True)
class Grid:
    """The grid all scans of a store are brought to: ``size`` (voxels), or ``spacing`` (mm), or each its own."""

    dims: int
    size: tuple[int, ...] | None = None
    spacing: tuple[float, ...] | None = None
    fit: str = "pad"
    window: intensity.Window = None

    @classmethod
    def of(cls, settings: dict[str, Any]) -> Grid:
        """The grid of a store, from the ``settings`` in its ``store.json``."""
        size, spacing, window = (
            tuple(value) if isinstance(value, list) else value
            for value in (settings["size"], settings["spacing"], settings["window"])
        )
        return cls(settings["spatial_dims"], size, spacing, settings["fit"], window)

    def place(self, scan: Scan) -> Placement:
        """The way of one scan onto this grid."""
        return place(scan.shape, scan.spacing, size=self.size, new_spacing=self.spacing, fit=self.fit)


@dataclass
class Conformed:
    """A scan ready for the store, or the ``reason`` why it cannot be in it (then nothing else is set)."""

    row: int
    digest: str
    mask_digest: str
    reason: str = ""
    array: np.ndarray = field(default_factory=lambda: np.zeros(0))  # (C, *S) in its storage dtype
    mask: np.ndarray | None = None  # (*S) uint8
    masked: bool = False
    affine: np.ndarray = field(default_factory=lambda: np.eye(4))
    placement: Placement | None = None
    factor: float = 1.0
    modality: str = ""
    stats: dict[str, float] = field(default_factory=dict)
    voxels: dict[int, np.ndarray] = field(default_factory=dict)

    def drop_arrays(self) -> None:
        """Free the voxels once they are written; dtype and channels stay readable."""
        self.array, self.mask = self.array[:, :0].copy(), None


def conform(source: FileSource | ArraySource, row: int, grid: Grid, modality: str, seed: int, name: str) -> Conformed:
    """Read scan ``row`` and its mask and bring both onto the grid. Bad files give a Conformed with a reason."""
    out = Conformed(row, source.digest(row), source.mask_digest(row))
    try:
        scan = source.read(row)
        check(scan)
        lay(out, scan, grid, modality)
        mask = source.mask(row)
        if mask is not None:
            out.mask, out.masked = lay_mask(mask, scan, out), True
            out.voxels = sample_voxels(out.mask, seed, name)
    except ScanlearnError as error:
        return Conformed(row, out.digest, out.mask_digest, reason=str(error))
    return out


def check(scan: Scan) -> None:
    """Refuse what no network can learn from: no voxels, no contrast, numbers that are none."""
    array = scan.array
    if array.size == 0:
        raise ScanlearnError(f"{scan.source} is empty: its shape is {array.shape}.")
    if array.dtype.kind not in "biuf":
        raise ScanlearnError(f"{scan.source} holds numbers of the type {array.dtype}; only real numbers can be used.")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ScanlearnError(f"{scan.source} holds NaN or infinity.")
    if array.min() == array.max():
        raise ScanlearnError(f"{scan.source} is constant: every voxel is {array.flat[0]}.")


def lay(out: Conformed, scan: Scan, grid: Grid, modality: str) -> None:
    """Fill in everything about the image: array on the grid in its storage dtype, affine, value range."""
    if len(scan.shape) != grid.dims:
        raise ScanlearnError(f"{scan.source} is {len(scan.shape)}D among {grid.dims}D scans; prepare those apart.")
    out.modality = modality or scan.modality or intensity.guess_modality(scan.array)
    array = intensity.narrow(scan.array, out.modality)
    out.placement = grid.place(scan)
    low, high = intensity.percentiles(array)
    out.stats = {"minimum": float(array.min()), "maximum": float(array.max()), "p_low": low, "p_high": high}
    fill = intensity.window_for(out.modality, out.stats, grid.window, all_8bit=array.dtype == np.uint8)[0]
    if array.dtype.kind in "iu":
        fill = float(np.clip(np.rint(fill), np.iinfo(array.dtype).min, np.iinfo(array.dtype).max))
    array = out.placement.apply(array, fill=fill)
    out.affine = out.placement.affine(scan.affine)
    out.array, out.factor = intensity.to_storage(array)
    if out.array.min() == out.array.max():
        raise ScanlearnError(f"{scan.source} is constant on the grid of the store.")


def lay_mask(mask: Scan, scan: Scan, out: Conformed) -> np.ndarray:
    """The mask (*S) uint8 on the grid of the image.

    Where both files say where they lie in space, a 3D mask on another grid is found through the millimetres (masks
    are often saved with an axis turned round); else mask and image must have the same shape.
    """
    assert out.placement is not None
    array = mask.array
    known = len(scan.shape) == len(mask.shape) == 3 and mask.located and scan.located
    if known and not (mask.shape == scan.shape and same_grid(mask.affine, scan.affine, scan.shape)):
        moved = onto_grid(array[0], mask.affine, scan.shape, scan.affine)
        if array.any() and not moved.any():
            raise ScanlearnError(f"The mask {mask.source} does not overlap its image in space.")
        array = moved[None]
    elif mask.shape != scan.shape:
        raise ScanlearnError(f"The mask {mask.source} has the shape {mask.shape}, its image {scan.shape}.")
    return out.placement.apply(array, nearest=True)[0]
