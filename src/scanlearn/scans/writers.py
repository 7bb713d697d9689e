"""Writing the scans of a store, in the order of the rows, each noted in the journal once it is safely on disk."""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tensorstore as ts

from scanlearn.errors import ScanlearnError
from scanlearn.scans import arrays, intensity
from scanlearn.scans.conform import Conformed
from scanlearn.scans.journal import Journal
from scanlearn.scans.places import place_of

# 2D scans wait for their shard to be full, but not longer than this: what waits is lost with the process.
FLUSH_SECONDS = 5.0


class CannotWrite(ScanlearnError):
    """The store cannot be written; ``full`` where the disk has no room left."""

    full = False


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """What fails within is the fault of the disk that holds ``folder``, unless it says otherwise itself.

    TensorStore reports a full disk as ValueError, Arrow and Python as OSError; only the text is common to them.
    """
    try:
        yield
    except ScanlearnError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        text = str(error)
        full = getattr(error, "errno", 0) in (errno.ENOSPC, errno.EDQUOT)
        full = full or "No space left" in text or "quota exceeded" in text
        if not full and not isinstance(error, OSError) and "[source locations" not in text:
            raise  # not the disk: a fault of the program must be seen
        short = getattr(error, "strerror", None) or text.partition(" [source locations")[0]
        wrong = CannotWrite(f"{folder} cannot be written ({short}); put that right and run the same command again.")
        wrong.full = full
        raise wrong from error


def write_apart(folder: Path, item: Conformed) -> None:
    """3D, called by the process that made the item: write its arrays into ``folder``, not yet into the store."""
    if item.reason:
        return
    with writing(folder.parent.parent):
        arrays.write_volume(str(folder), f"volumes.{item.row}", item.array, leading=1)
        if item.mask is not None:
            arrays.write_volume(str(folder), f"masks.{item.row}", item.mask, leading=0)
    item.drop_arrays()


class VolumeWriter:
    """3D: each scan and each mask is an array of its own, moved into the store from where ``write_apart`` put it.

    names: of the arrays in the store, one for each row.
    """

    def __init__(self, store: Path, apart: Path, names: Sequence[str], journal: Journal):
        self._store, self._apart, self._names, self._journal = store, apart, names, journal
        for kind in ("volumes", "masks"):
            (store / kind).mkdir(exist_ok=True)

    def add(self, item: Conformed) -> None:
        """Called in the order of the rows."""
        for kind in ("volumes", "masks"):
            made, final = self._apart / f"{kind}.{item.row}", self._store / kind / self._names[item.row]
            if item.reason:
                shutil.rmtree(made, ignore_errors=True)  # refused after it was written
            elif kind == "volumes" or item.masked:
                shutil.rmtree(final, ignore_errors=True)  # moved, but not noted, before a kill
                made.rename(final)
        self._journal.append([item])

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """A data set without masks has no folder for them."""
        if not any(item.masked for item in self._journal.items):
            shutil.rmtree(self._store / "masks", ignore_errors=True)


class SliceWriter:
    """2D: all scans are one array, and all masks another (rows without a mask hold zeros there).

    Scans with a reason are left out, so the arrays have no holes.
    """

    def __init__(self, store: Path, most: int, journal: Journal):
        done = [item for item in journal.items if not item.reason]
        self._journal, self._count = journal, len(done)
        self._images = Stack(store, "images", most, journal.generation, bool(done))
        self._masks = Stack(store, "masks", most, 0, any(item.masked for item in done))
        self._waiting: list[Conformed] = []
        self._good = 0
        self._flushed = time.monotonic()

    def add(self, item: Conformed) -> None:
        """Called in the order of the rows."""
        self._waiting.append(item)
        if not item.reason:
            self._good += 1
            per_shard = self._images.per_shard(item.array)
            if (self._count + self._good) % per_shard == 0:
                self.flush()
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what waits and note it in the journal."""
        good = [item for item in self._waiting if not item.reason]
        if good:
            dtype = intensity.common_dtype({item.array.dtype for item in good})
            self._images.write(self._count, np.stack([item.array for item in good]).astype(dtype, copy=False))
            if self._masks.begun or any(item.masked for item in good):
                shape = good[0].array.shape[1:]
                zeros = np.zeros(shape, np.uint8)
                if not self._masks.begun:  # the first mask: those before it had none
                    self._masks.write_zeros(self._count, shape)
                self._masks.write(self._count, np.stack([zeros if i.mask is None else i.mask for i in good]))
        for item in good:
            item.drop_arrays()
        if self._waiting:
            self._journal.append(self._waiting, self._images.generation)
        self._images.drop_older()
        self._count += len(good)
        self._waiting, self._good, self._flushed = [], 0, time.monotonic()

    def close(self) -> None:
        """Write what waits, cut the arrays to the number of scans, and give them their names."""
        self.flush()
        self._images.close(self._count)
        self._masks.close(self._count)


class Stack:
    """One array (N, *item) for scans of one shape, written block by block into the folder ``NAME.GENERATION``.

    The dtype may have to grow on the way (an 8-bit image, then a 16-bit one): what was written is then copied into
    the next generation, and the one before is kept until the journal knows of the new one.
    """

    def __init__(self, store: Path, name: str, most: int, generation: int, begun: bool):
        self._store, self._name, self._most = store, name, most
        self.generation = generation
        closed = (store / name).is_dir()  # a kill came after ``close``
        self._array = _open(store, name if closed else self._folder) if begun else None
        if not closed:
            self.drop_older()

    @property
    def begun(self) -> bool:
        """True from the first block on."""
        return self._array is not None

    def per_shard(self, item: np.ndarray) -> int:
        """Scans in one file, as the array is or would be after ``item``."""
        dtype = item.dtype if self._array is None else np.result_type(self._array.dtype.numpy_dtype, item.dtype)
        return self._scans_per_shard(item.shape, dtype)

    def write(self, start: int, block: np.ndarray) -> None:
        """Write scans ``start`` to ``start + len(block)``; what is before them is there already."""
        if self._array is None:
            self._array = self._create(block.shape[1:], block.dtype)
        dtype = np.result_type(self._array.dtype.numpy_dtype, block.dtype)
        if dtype != self._array.dtype.numpy_dtype:
            self._array = self._widened(self._array, dtype, start)
        self._array[start : start + len(block)].write(block.astype(dtype, copy=False)).result()

    def write_zeros(self, count: int, shape: Sequence[int]) -> None:
        """Begin an array of bytes with ``count`` scans of zeros, shard by shard."""
        step = self._scans_per_shard(shape, np.dtype(np.uint8))
        for start in range(0, count, step):
            self.write(start, np.zeros((min(step, count - start), *shape), np.uint8))

    def drop_older(self) -> None:
        """Remove every generation but the current one (and what a kill left of a newer one)."""
        for folder in self._store.glob(f"{self._name}.*"):
            if folder.name != self._folder:
                shutil.rmtree(folder)

    def close(self, count: int) -> None:
        """Cut the array to ``count`` scans and give it its name; again after a kill, the same."""
        if self._array is not None:
            self._array.resize(exclusive_max=[count, *self._array.shape[1:]]).result()
            if (self._store / self._folder).is_dir():
                (self._store / self._folder).rename(self._store / self._name)

    @property
    def _folder(self) -> str:
        return f"{self._name}.{self.generation}"

    def _scans_per_shard(self, shape: Sequence[int], dtype: np.dtype) -> int:
        bytes_each = int(np.prod(shape)) * dtype.itemsize
        return int(np.clip(arrays.STACK_SHARD_BYTES // max(bytes_each, 1), 1, min(4096, self._most)))

    def _create(self, shape: Sequence[int], dtype: np.dtype) -> ts.TensorStore:
        shard = (self._scans_per_shard(shape, np.dtype(dtype)), *shape)
        return arrays.create_array(str(self._store), self._folder, (self._most, *shape), (1, *shape), shard, dtype)

    def _widened(self, old: ts.TensorStore, dtype: np.dtype, count: int) -> ts.TensorStore:
        # Rare. Shard by shard, so that memory holds no more than one.
        shape = old.shape[1:]
        self.generation += 1
        new = self._create(shape, dtype)
        step = self._scans_per_shard(shape, dtype)
        for start in range(0, count, step):
            stop = min(start + step, count)
            new[start:stop].write(old[start:stop].read().result().astype(dtype)).result()
        return new


def _open(store: Path, folder: str) -> ts.TensorStore:
    spec = {"driver": "zarr3", "kvstore": place_of(str(store), folder), **arrays.WHOLE}
    return ts.open(spec, open=True, read=True, write=True).result()
