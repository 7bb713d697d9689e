"""Grids in space: affines, the way a scan is laid on a store's grid, and the way back.

Every affine here maps array indices to RAS+ millimetres (x to the patient's Right, y Anterior, z Superior), as
nibabel's do. The axes of the affine follow the axes of the array: (row, column) for 2D scans, (i, j, k) for 3D.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scanlearn.errors import ScanlearnError

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

FITS = ("pad", "stretch")


def spacing_of(affine: np.ndarray, dims: int = 3) -> tuple[float, ...]:
    """Distance in mm between neighbours along each of the first ``dims`` axes of the array."""
    return tuple(float(s) for s in np.sqrt((affine[:3, :dims] ** 2).sum(axis=0)))


def affine_from(directions: np.ndarray, spacing: Sequence[float], origin: Sequence[float] | np.ndarray) -> np.ndarray:
    """4x4 affine from unit direction columns (3, 3), spacing in mm and the centre of the first voxel, one frame."""
    affine = np.eye(4)
    affine[:3, :3] = np.asarray(directions, float) * np.asarray(spacing, float)
    affine[:3, 3] = origin
    return affine


def swap_first_axes(affine: np.ndarray) -> np.ndarray:
    """The affine after the first two axes of the array were swapped: (i, j) <-> (row, column)."""
    return affine[:, [1, 0, 2, 3]]


def unlocated(spacing: Sequence[float]) -> np.ndarray:
    """The affine of a file that says nothing of its place: (row, column) or (i, j, k), spacing in mm per array axis.

    As ITK lays such files: columns run to the patient's left, rows to the back, slices up.
    """
    if len(spacing) == 2:
        return swap_first_axes(unlocated((spacing[1], spacing[0], 1.0)))
    return LPS_TO_RAS @ np.diag([*spacing, 1.0])


@dataclass(frozen=True)
class Placement:
    """How a scan lies on the grid of a store: resized from ``source`` to ``inner``, then padded to ``size``.

    The field of view of the resized part is that of the scan: its outer *edges* stay where they were, as with
    Pillow and ``torch.nn.functional.interpolate(align_corners=False)``. ``offset`` counts voxels before the part.
    """

    source: tuple[int, ...]
    inner: tuple[int, ...]
    offset: tuple[int, ...]
    size: tuple[int, ...]

    @property
    def identity(self) -> bool:
        """True where nothing is resized and nothing padded."""
        return self.source == self.inner == self.size

    def apply(self, array: np.ndarray, *, nearest: bool = False, fill: float = 0) -> np.ndarray:
        """Bring (C, *source) onto the grid: (C, *size), same dtype; outside the scan it holds ``fill``."""
        array = resize(array, self.inner, nearest=nearest)
        if self.inner == self.size:
            return array
        whole = np.full((array.shape[0], *self.size), fill, array.dtype)
        whole[(slice(None), *self._part())] = array
        return whole

    def undo(self, array: np.ndarray, *, nearest: bool = False) -> np.ndarray:
        """Bring (C, *size), a mask or a map made on the grid, back to the scan's own voxels: (C, *source)."""
        return resize(array[(slice(None), *self._part())], self.source, nearest=nearest)

    def affine(self, affine: np.ndarray) -> np.ndarray:
        """The affine of the grid, from the affine of the scan."""
        dims = len(self.source)
        ratio = np.array(self.source) / np.array(self.inner)
        step = np.eye(4)
        step[range(dims), range(dims)] = ratio
        step[:dims, 3] = (0.5 - np.array(self.offset)) * ratio - 0.5
        return affine @ step

    def _part(self) -> tuple[slice, ...]:
        return tuple(slice(o, o + i) for o, i in zip(self.offset, self.inner, strict=True))


def place(
    shape: Sequence[int],
    spacing: Sequence[float],
    *,
    size: Sequence[int] | None = None,
    new_spacing: Sequence[float] | None = None,
    fit: str = "pad",
) -> Placement:
    """Plan the way of one scan onto the grid.

    ``size``: a fixed number of voxels per axis; ``fit="pad"`` keeps the aspect ratio and pads evenly on both sides,
    ``fit="stretch"`` fills the grid. ``new_spacing`` (mm): as many voxels as the field of view holds, rounded, so
    the true spacing differs from the wish by less than half a voxel over the whole scan. Neither: the native grid.
    """
    shape = tuple(int(s) for s in shape)
    for name, value in (("size", size), ("spacing", new_spacing)):
        if value is not None and len(value) != len(shape):
            raise ScanlearnError(f"The {name} {tuple(value)} has {len(value)} numbers for a scan of {len(shape)} axes.")
    none = (0,) * len(shape)
    if size is not None:
        whole = tuple(int(s) for s in size)
        if fit == "stretch":
            return Placement(shape, whole, none, whole)
        scale = min(w / s for w, s in zip(whole, shape, strict=True))
        inner = tuple(min(max(round(s * scale), 1), w) for s, w in zip(shape, whole, strict=True))
        return Placement(shape, inner, tuple((w - i) // 2 for w, i in zip(whole, inner, strict=True)), whole)
    if new_spacing is not None:
        inner = tuple(max(round(n * a / b), 1) for n, a, b in zip(shape, spacing, new_spacing, strict=True))
        return Placement(shape, inner, none, inner)
    return Placement(shape, shape, none, shape)


def resize(array: np.ndarray, shape: tuple[int, ...], *, nearest: bool = False) -> np.ndarray:
    """Resample (C, *S) to (C, *shape), edges aligned, same dtype.

    2D: Pillow, bilinear with the antialiasing that shrinking needs. 3D: SimpleITK, trilinear. ``nearest`` for masks.
    """
    if array.shape[1:] == tuple(shape):
        return array
    one = _resize_2d if len(shape) == 2 else _resize_3d
    floating = array if nearest or array.dtype.kind == "f" else array.astype(np.float32)
    out = np.stack([one(channel, tuple(shape), nearest) for channel in floating])
    return out if nearest or array.dtype.kind == "f" else to_dtype(out, array.dtype)


def _resize_2d(image: np.ndarray, shape: tuple[int, ...], nearest: bool) -> np.ndarray:
    from PIL import Image

    if nearest:
        rows, columns = (((np.arange(n) + 0.5) * s / n).astype(int) for n, s in zip(shape, image.shape, strict=True))
        return image[rows[:, None], columns]
    wide = Image.fromarray(np.ascontiguousarray(image, np.float32))
    return np.asarray(wide.resize((shape[1], shape[0]), Image.Resampling.BILINEAR)).astype(image.dtype)


def _resize_3d(volume: np.ndarray, shape: tuple[int, ...], nearest: bool) -> np.ndarray:
    import SimpleITK as sitk

    # The axes stay as they are; SimpleITK counts them backwards. Voxels of the source are 1 apart, edges at -0.5.
    ratio = [s / n for s, n in zip(volume.shape, shape, strict=True)]
    filter_ = sitk.ResampleImageFilter()
    filter_.SetInterpolator(sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear)
    filter_.SetSize([int(n) for n in shape[::-1]])
    filter_.SetOutputSpacing(ratio[::-1])
    filter_.SetOutputOrigin([(r - 1) / 2 for r in ratio[::-1]])
    filter_.SetUseNearestNeighborExtrapolator(True)
    filter_.SetNumberOfThreads(1)
    return sitk.GetArrayFromImage(filter_.Execute(sitk.GetImageFromArray(np.ascontiguousarray(volume))))


def onto_grid(mask: np.ndarray, affine: np.ndarray, shape: tuple[int, ...], target: np.ndarray) -> np.ndarray:
    """A 3D mask (X, Y, Z) sampled by nearest neighbour on the grid of shape and ``target`` affine; 0 outside."""
    from scipy.ndimage import affine_transform

    step = np.linalg.inv(affine) @ target
    return affine_transform(mask, step[:3, :3], step[:3, 3], output_shape=shape, order=0, mode="grid-constant", cval=0)


def same_grid(one: np.ndarray, other: np.ndarray, shape: Sequence[int]) -> bool:
    """True where two affines put every voxel of ``shape`` on the same place, to a tenth of a voxel."""
    corners = np.array(list(np.ndindex(*(2,) * len(shape)))) * (np.array(shape) - 1)
    difference = corners @ (one - other)[:3, : len(shape)].T + (one - other)[:3, 3]
    return bool(np.abs(difference).max() < 0.1 * min(spacing_of(one, len(shape))))


def to_dtype(array: np.ndarray, dtype: np.dtype | str) -> np.ndarray:
    """Numbers in another dtype: rounded and clipped to its range for integers, never wrapped."""
    dtype = np.dtype(dtype)
    if array.dtype == dtype:
        return array
    if dtype.kind == "f":
        return array.astype(dtype)
    info = np.iinfo(dtype)
    rounded = np.rint(array) if array.dtype.kind == "f" else array
    return np.clip(rounded, info.min, info.max).astype(dtype)
