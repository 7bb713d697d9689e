"""Writing the scans of a store: volumes as they come, 2D scans in their order, shard by shard."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import tensorstore as ts

from scanlearn.scans.arrays import STACK_SHARD_BYTES, create_array, write_volume
from scanlearn.scans.conform import Conformed


class VolumeWriter:
    """3D: each scan and each mask is an array of its own, written by the thread that made it."""

    def __init__(self, part: Path, names: list[str]):
        self._part, self._names = part, names

    def at_once(self, item: Conformed) -> None:
        """Called by the thread that made the item, in any order."""
        if item.reason:
            return
        write_volume(str(self._part), f"volumes/{self._names[item.row]}", item.array, leading=1)
        if item.mask is not None:
            write_volume(str(self._part), f"masks/{self._names[item.row]}", item.mask, leading=0)
        item.drop_arrays()

    def in_turn(self, item: Conformed) -> None:
        """Called in the order of the rows, after ``at_once``."""
        if item.reason:
            for kind in ("volumes", "masks"):
                shutil.rmtree(self._part / kind / self._names[item.row], ignore_errors=True)

    def close(self) -> None:
        """Nothing waits."""


class SliceWriter:
    """2D: all scans are one array, and all masks another (rows without a mask hold zeros there)."""

    def __init__(self, part: Path, names: list[str]):
        self._images = StackWriter(str(part), "images", len(names))
        self._masks = StackWriter(str(part), "masks", len(names))

    def at_once(self, item: Conformed) -> None:
        """Nothing can be written before its turn."""

    def in_turn(self, item: Conformed) -> None:
        """Called in the order of the rows; scans with a reason are left out, so the array has no holes."""
        if item.reason:
            return
        if item.mask is not None:
            while self._masks.total < self._images.total:
                self._masks.append(np.zeros_like(item.mask))
            self._masks.append(item.mask)
        elif self._masks.total:
            self._masks.append(np.zeros(item.array.shape[1:], np.uint8))
        self._images.append(item.array)
        item.drop_arrays()

    def close(self) -> None:
        """Write what waits."""
        self._images.close()
        self._masks.close()


class StackWriter:
    """Writes 2D scans one after the other into one array (N, *item), shard by shard.

    The dtype may have to grow on the way (an 8-bit image, then a 16-bit one); what was written is then converted.
    """

    def __init__(self, location: str, name: str, most: int):
        self.location, self.name, self.most = location, name, most
        self.count = 0
        self._array: ts.TensorStore | None = None
        self._dtype: np.dtype | None = None
        self._waiting: list[np.ndarray] = []
        self._per_shard = 1

    def append(self, item: np.ndarray) -> None:
        """Add one scan; all have the same shape."""
        wanted = item.dtype if self._dtype is None else np.result_type(self._dtype, item.dtype)
        if self._array is None:
            self._create(wanted, item.shape)
        elif wanted != self._dtype:
            self._convert(wanted, item.shape)
        self._waiting.append(item)
        if len(self._waiting) == self._per_shard:
            self._flush()

    @property
    def total(self) -> int:
        """How many scans were appended."""
        return self.count + len(self._waiting)

    def close(self) -> None:
        """Write what waits and cut the array to the number of scans."""
        if self._waiting:
            self._flush()
        if self._array is not None:
            self._array.resize(exclusive_max=[self.count, *self._array.shape[1:]]).result()

    def _create(self, dtype: np.dtype, shape: tuple[int, ...]) -> None:
        self._dtype = np.dtype(dtype)
        bytes_each = int(np.prod(shape)) * self._dtype.itemsize
        self._per_shard = int(np.clip(STACK_SHARD_BYTES // max(bytes_each, 1), 1, min(4096, self.most)))
        whole = (self.most, *shape)
        self._array = create_array(self.location, self.name, whole, (1, *shape), (self._per_shard, *shape), self._dtype)

    def _flush(self) -> None:
        assert self._array is not None
        block = np.stack(self._waiting).astype(self._dtype, copy=False)
        self._array[self.count : self.count + len(block)].write(block).result()
        self.count += len(block)
        self._waiting = []

    def _convert(self, dtype: np.dtype, shape: tuple[int, ...]) -> None:
        # Rare: the old numbers are read whole, then written again in their order.
        assert self._array is not None
        old, self.count = self._array[: self.count].read().result(), 0
        old_items = [*old, *self._waiting]
        self._waiting = []
        self._create(dtype, shape)
        for item in old_items:
            self._waiting.append(item)
            if len(self._waiting) == self._per_shard:
                self._flush()
