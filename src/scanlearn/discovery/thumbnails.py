"""Volumes of any shape brought to one small size, each opened once and kept on the disk, for networks that see all of it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scanlearn.console import track
from scanlearn.files import WriteError
from scanlearn.scans.boxes import Box, cuts_of
from scanlearn.scans.intensity import to_unit
from scanlearn.scans.resample import resample
from scanlearn.scans.store import Store

SLAB_VOXELS = 1 << 23  # read at once, as whole slices


class Thumbnails(Store):
    """Some rows of a store, each scan resized as a whole to one ``size`` and its window to 0..255, in uint8.

    It has the rows, the catalogue and the parts of that store, so it trains and embeds as the store does; a row that is
    not among ``kept`` has no scan.
    """

    def __init__(
        self,
        path: str | Path,
        file: Path,
        kept: np.ndarray,
        size: Sequence[int],
        *,
        fetched: str | None = None,
    ):
        super().__init__(path, fetched=fetched)
        self.file, self.kept, self.size = file, kept, tuple(size)
        self.dtype = np.dtype(np.uint8)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.location, self.file, self.kept, self.size, self._files.fetched)

    def shape(self, row: int) -> tuple[int, ...]:
        return self.size

    def shapes(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        return np.broadcast_to(np.array(self.size, np.int64), (len(rows), len(self.size)))

    def same_shape(self, rows: Sequence[int] | np.ndarray) -> bool:
        return True

    def window(self, rows: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros(len(rows), np.float32), np.full(len(rows), 255, np.float32)

    def read(
        self, rows: Sequence[int] | np.ndarray, boxes: Sequence[Box] | None = None, out: np.ndarray | None = None
    ) -> list[np.ndarray]:
        rows = np.asarray(rows, np.int64)
        cuts = None if boxes is None else cuts_of(boxes, self.shapes(rows))
        sizes = [list(self.size)] * len(rows) if cuts is None else [cut.size for cut in cuts]
        targets = [np.empty((self.channels, *size), np.uint8) for size in sizes] if out is None else list(out)
        for i, (row, target) in enumerate(zip(rows.tolist(), targets, strict=True)):
            whole = self._thumbnail(row)
            if cuts is None:
                target[...] = whole
            else:
                cuts[i].inner(target, 0)[...] = whole[cuts[i].inside]
        return targets

    def _thumbnail(self, row: int) -> np.ndarray:
        at = int(np.searchsorted(self.kept, row))
        if at == len(self.kept) or self.kept[at] != row:
            raise IndexError(f"row {row} has no thumbnail")
        shape = (self.channels, *self.size)
        count = int(np.prod(shape))
        return np.fromfile(self.file, np.uint8, count, offset=at * count).reshape(shape)


def _reopen(path: str, file: Path, kept: np.ndarray, size: tuple[int, ...], fetched: str | None) -> Thumbnails:
    return Thumbnails(path, file, kept, size, fetched=fetched)


def make_thumbnails(store: Store, rows: np.ndarray, size: Sequence[int], file: Path) -> Thumbnails:
    """Write the thumbnails of ``rows`` (ascending) to ``file``, or go on with those that are there already.

    Memory holds a slab of one scan, however large the scans and however many there are.

    Raises:
        WriteError: no room; what was written is kept.
    """
    bytes_each = store.channels * int(np.prod(size))
    done = whole_records(file, bytes_each)
    try:
        with file.open("ab") as sink:
            for row in track(rows[done:], len(rows) - done, "thumbnails"):
                sink.write(np.ascontiguousarray(thumbnail(store, int(row), size)).tobytes())
    except OSError as error:
        raise WriteError(file.name, file.parent, error, (len(rows) - done) * bytes_each) from error
    return Thumbnails(store.location, file, rows, size, fetched=store._files.fetched)


def whole_records(file: Path, each: int) -> int:
    """How many records of so many bytes a file holds; one that was cut by a kill is cut off."""
    if not file.is_file():
        return 0
    count = file.stat().st_size // each
    with file.open("r+b") as old:
        old.truncate(count * each)
    return int(count)


def thumbnail(store: Store, row: int, size: Sequence[int]) -> np.ndarray:
    """A whole scan at another size, uint8 (C, *size): its window in 0..255, linear with antialiasing."""
    shape = store.shape(row)
    low, high = (torch.from_numpy(bound) for bound in store.window([row]))
    slabs = min(-(-int(np.prod(shape)) // SLAB_VOXELS), shape[-1])
    edges = [shape[-1] * i // slabs for i in range(slabs + 1)]
    parts = []
    for first, last in itertools.pairwise(edges):
        slab = torch.from_numpy(store.read([row], [((0,) * (len(shape) - 1) + (first,), (*shape[:-1], last))])[0])
        parts.append(resample(to_unit(slab[None], low, high), (*size[:-1], last - first)))
    whole = resample(torch.cat(parts, dim=-1), size)
    return whole[0].mul_(255.0).round_().to(torch.uint8).numpy()
