"""Where the masks show something: random voxels of each class in each scan, kept beside the store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from scanlearn.catalog.mapped import damaged, numbers, open_mapped, write_mapped
from scanlearn.errors import ScanlearnError
from scanlearn.keys import key_of

VOXELS_PER_CLASS = 256
_TYPES = {"first": pa.int64(), "start": pa.int64(), "classes": pa.uint8(), "voxels": pa.int32()}


def sample_voxels(mask: np.ndarray, seed: int, name: str) -> dict[int, np.ndarray]:
    """{class > 0: int32 (n, dims)}: up to 256 random voxels of each class present in a mask (*S) uint8."""
    flat = mask.reshape(-1)
    where = np.flatnonzero(flat)
    if len(where) == 0:
        return {}
    generator = np.random.Generator(np.random.Philox(key=key_of(seed, "foreground", name)))
    classes = flat[where]
    out = {}
    for value in np.unique(classes).tolist():
        of_class = where[classes == value]
        if len(of_class) > VOXELS_PER_CLASS:
            of_class = np.sort(generator.choice(of_class, VOXELS_PER_CLASS, replace=False))
        out[value] = np.stack(np.unravel_index(of_class, mask.shape), axis=1).astype(np.int32)
    return out


class Foreground:
    """The sampled voxels of all scans: ``voxels`` (M, dims), and for each pair of row and class its slice of them.

    Pairs are sorted by row: those of row r are ``first[r]`` to ``first[r + 1]``.
    """

    def __init__(self, first: np.ndarray, start: np.ndarray, classes: np.ndarray, voxels: np.ndarray):
        self.first, self.start, self.classes, self.voxels = first, start, classes, voxels

    @classmethod
    def gather(cls, sampled: Sequence[dict[int, np.ndarray]], dims: int) -> Foreground:
        """From the ``sample_voxels`` of each row."""
        pairs = [(row, value, v) for row, found in enumerate(sampled) for value, v in sorted(found.items())]
        first = np.searchsorted([p[0] for p in pairs], np.arange(len(sampled) + 1)).astype(np.int64)
        start = np.cumsum([0, *(len(p[2]) for p in pairs)]).astype(np.int64)
        voxels = np.concatenate([np.zeros((0, dims), np.int32), *(p[2] for p in pairs)])
        return cls(first, start, np.array([p[1] for p in pairs], np.uint8), voxels)

    @classmethod
    def load(cls, path: Path, dims: int, rows: int) -> Foreground:
        """Map what ``save`` wrote for so many scans; only the voxels that are picked are read."""
        table = open_mapped(path, {name: pa.large_list(kind) for name, kind in _TYPES.items()}, rows=1)
        first, start, classes, voxels = (numbers(table[name].chunk(0).values) for name in _TYPES)
        ends = len(first) == rows + 1 and len(start) == len(classes) + 1 and len(voxels) % dims == 0
        if not (ends and first[0] == start[0] == 0 and first[-1] == len(classes) and start[-1] * dims == len(voxels)):
            raise damaged(path, "holds columns that do not fit each other")
        return cls(first, start, classes, voxels.reshape(-1, dims))

    def save(self, path: Path) -> None:
        """Write one Arrow file of one row, whose cells are the four arrays."""
        columns = {}
        for (name, kind), array in zip(
            _TYPES.items(), (self.first, self.start, self.classes, self.voxels), strict=True
        ):
            ends = pa.array([0, array.size], pa.int64())
            columns[name] = pa.LargeListArray.from_arrays(ends, pa.array(array.ravel(), kind))
        write_mapped(path, columns)

    def pick(self, rows: np.ndarray, which: np.ndarray, where: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A voxel for each row: (found bool (n,), voxels int64 (n, dims)).

        which, where: (n,) in [0, 1), the random numbers that choose among the classes present, then among the voxels.
        """
        count = _lengths(self.first, rows, len(self.classes))
        found = count > 0
        out = np.zeros((len(rows), self.voxels.shape[1]), np.int64)
        pair = (self.first[rows] + np.floor(which.astype(np.float64) * count).astype(np.int64))[found]
        length = _lengths(self.start, pair, len(self.voxels))
        out[found] = self.voxels[self.start[pair] + np.floor(where[found].astype(np.float64) * length).astype(np.int64)]
        return found, out


def _lengths(starts: np.ndarray, at: np.ndarray, size: int) -> np.ndarray:
    """How long the slices ``at`` of so many things are; ``starts`` (n + 1,) comes from a file and is not believed."""
    first, last = starts[at], starts[at + 1]
    if not (first.min(initial=0) >= 0 and (first <= last).all() and last.max(initial=0) <= size):
        raise ScanlearnError(
            "The foreground.arrow of the store is damaged: a slice lies outside of it; prepare it again."
        )
    return last - first
