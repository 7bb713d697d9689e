"""The same place in other scans: by share of the scan, by voxel or by millimetre, without registration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scanlearn.errors import unknown

SPACES = ("normalised", "voxel", "mm")


@dataclass(frozen=True)
class Frame:
    """How a place of one scan is found in another, and how large a crop is there.

    Attributes:
        space: ``normalised``: the centre of a crop has the same share of each side, crops are equally many voxels, and
            one that would reach over the edge is moved inside. ``voxel``: crops begin at the same voxel, as the original
            has it. ``mm``: the centre is as many mm from the first corner, and crops are equally large in mm.
        size: voxels of a crop (D,); for ``mm`` at the ``spacing``.
        spacing: mm (D,), for ``mm``.
    """

    space: str
    size: tuple[int, ...]
    spacing: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.space not in SPACES:
            raise unknown("coordinate space", self.space, SPACES)

    def sides(self, spacings: np.ndarray) -> np.ndarray:
        """int64 (n, D): voxels of a crop in scans of these spacings (n, D)."""
        size = np.broadcast_to(np.asarray(self.size, np.int64), spacings.shape)
        if self.space != "mm":
            return size.copy()
        return np.maximum(np.rint(size * np.asarray(self.spacing) / spacings), 1).astype(np.int64)

    def point(self, start: np.ndarray, shape: np.ndarray, spacing: np.ndarray) -> np.ndarray:
        """float64 (D,): the place of the crop that begins at ``start`` (D,) in a scan."""
        if self.space == "voxel":
            return start.astype(np.float64)
        centre = start + self.sides(spacing[None])[0] / 2
        return centre / shape if self.space == "normalised" else centre * spacing

    def starts(self, point: np.ndarray, shapes: np.ndarray, spacings: np.ndarray) -> np.ndarray:
        """int64 (n, D): where the crops at ``point`` (D,) begin in scans of these shapes and spacings (n, D)."""
        sides = self.sides(spacings)
        if self.space == "voxel":
            return np.broadcast_to(np.rint(point).astype(np.int64), shapes.shape).copy()
        centre = point * shapes if self.space == "normalised" else point / spacings
        starts = np.rint(centre - sides / 2).astype(np.int64)
        if self.space == "mm":
            return starts
        slack = shapes - sides
        return np.where(slack < 0, slack // 2, np.clip(starts, 0, np.maximum(slack, 0)))

    def fit(self, point: np.ndarray, shapes: np.ndarray, spacings: np.ndarray) -> np.ndarray:
        """bool (n,): in which scans the crop at ``point`` lies inside."""
        starts = self.starts(point, shapes, spacings)
        return ((starts >= 0) & (starts + self.sides(spacings) <= shapes)).all(axis=1)
