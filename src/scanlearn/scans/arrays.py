"""The arrays of a store: Zarr v3, sharded, LZ4, written and read by TensorStore.

A stack of 2D scans is one array (N, C, H, W) with one image for each inner chunk. A volume is one array (C, X, Y, Z)
in one shard (one file) of inner chunks of about 32 voxels per side.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorstore as ts

from scanlearn.errors import ScanlearnError
from scanlearn.scans.places import place_of, reading

INNER_SIDE = 32
STACK_SHARD_BYTES = 32 << 20
CACHE_BYTES = 32 << 20
OPEN_ARRAYS = 1024
# A disk gives random reads at its full speed only to many readers at once.
FILE_READS = 32
M_ARENA_MAX = -8  # of glibc's malloc.h

# For writing: chunks of zeros are written like others, so that one that is missing was lost.
WHOLE = {"store_data_equal_to_fill_value": True}
GROUP_METADATA = '{"zarr_format": 3, "node_type": "group", "attributes": {}}\n'

_LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}
# LZ4's thorough compressor, as a store is written once: chunks of a CT are a tenth smaller than with the fast one, and
# are decoded a tenth faster, 20 % faster than with shuffled bits.
_LZ4 = {"name": "blosc", "configuration": {"cname": "lz4hc", "clevel": 5, "shuffle": "shuffle"}}


class Arrays:
    """The arrays of one store for reading, opened on their first use; each process opens its own.

    cache_bytes: decoded chunks and the indexes of shards that are kept in memory, for each process. threads: that
    decode; None: one for each processor.
    """

    def __init__(self, location: str, cache_bytes: int = CACHE_BYTES, threads: int | None = None):
        self.location, self.cache_bytes, self.threads = location, cache_bytes, threads
        self._process = -1
        self._context: ts.Context | None = None
        self._open: OrderedDict[str, ts.TensorStore] = OrderedDict()

    def __reduce__(self) -> tuple[Any, ...]:
        return Arrays, (self.location, self.cache_bytes, self.threads)

    def get(self, names: Sequence[str], shapes: Sequence[tuple[int, ...]]) -> list[ts.TensorStore]:
        """The arrays of these names; those that are not open are opened at once. Another shape than said is refused."""
        if self._process != os.getpid():
            self._process, self._context, self._open = os.getpid(), self._resources(), OrderedDict()
        expected = dict(zip(names, shapes, strict=True))
        self._open_all([name for name in expected if name not in self._open])
        for name, shape in expected.items():
            self._open.move_to_end(name)
            if tuple(self._open[name].shape) != shape:
                raise ScanlearnError(
                    f"The array {name} of {self.location} has the shape {tuple(self._open[name].shape)}, its side files "
                    f"say {shape}; prepare the store again."
                )
        found = [self._open[name] for name in names]
        while len(self._open) > OPEN_ARRAYS:
            self._open.popitem(last=False)
        return found

    def _open_all(self, names: Sequence[str]) -> None:
        # What is in the cache is believed, as a finished store never changes. A chunk that is gone is an error, not zeros.
        options = {"driver": "zarr3", "recheck_cached_data": False, "fill_missing_data_reads": False}
        specs = [{**options, "kvstore": place_of(self.location, name)} for name in names]
        with reading(self.location):
            opening = [ts.open(spec, read=True, open=True, context=self._context) for spec in specs]
            self._open.update(zip(names, [found.result() for found in opening], strict=True))

    def _resources(self) -> ts.Context:
        _one_heap()
        spec: dict[str, Any] = {
            "cache_pool": {"total_bytes_limit": int(self.cache_bytes)},
            "file_io_concurrency": {"limit": FILE_READS},
        }
        if self.threads is not None:
            spec["data_copy_concurrency"] = {"limit": self.threads}
        return ts.Context(spec)


def _one_heap() -> None:
    """Have all threads allocate from one heap, unless MALLOC_ARENA_MAX says otherwise.

    glibc gives each thread a heap of its own, and what is freed in one is of no use to the others: with a cache of
    32 MB, shuffled reads held 0.9 GB after 2,000 batches and went on growing; with one heap 0.2 GB, as fast.
    """
    if sys.platform == "linux" and "MALLOC_ARENA_MAX" not in os.environ:
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(M_ARENA_MAX, 1)


def read_into(targets: Sequence[np.ndarray], sources: Sequence[ts.TensorStore]) -> None:
    """Fill each target from the source of its shape; all are under way before the first is waited for."""
    copies = []
    for target, source in zip(targets, sources, strict=True):
        if source.dtype.numpy_dtype != target.dtype:
            source = ts.cast(source, target.dtype)
        copies.append(ts.array(target, copy=False, write=True).write(source))
    for copy in copies:
        copy.result()


def create_array(
    location: str, name: str, shape: Sequence[int], inner: Sequence[int], shard: Sequence[int], dtype: np.dtype
) -> ts.TensorStore:
    """Create an array; ``shard`` is a multiple of ``inner`` on every axis."""
    sharding = {
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": list(map(int, inner)),
            "codecs": [_LITTLE, _LZ4],
            "index_codecs": [_LITTLE, {"name": "crc32c"}],
            "index_location": "end",
        },
    }
    metadata = {
        "shape": list(map(int, shape)),
        "data_type": np.dtype(dtype).name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(map(int, shard))}},
        "codecs": [sharding],
        "fill_value": 0,
    }
    spec = {"driver": "zarr3", "kvstore": place_of(location, name), "metadata": metadata, **WHOLE}
    return ts.open(spec, create=True, delete_existing=True).result()


def volume_chunks(shape: Sequence[int]) -> tuple[int, ...]:
    """Sides of the inner chunks of a volume: about 32, dividing each axis evenly, so that no chunk is mostly empty."""
    parts = [max(round(s / INNER_SIDE), 1) for s in shape]
    return tuple(-(-s // n) for s, n in zip(shape, parts, strict=True))


def write_volume(location: str, name: str, array: np.ndarray, leading: int) -> None:
    """Write a volume whole. array: (C, X, Y, Z) with ``leading`` 1, or a mask (X, Y, Z) with ``leading`` 0."""
    inner = (*array.shape[:leading], *volume_chunks(array.shape[leading:]))
    shard = tuple(-(-s // c) * c for s, c in zip(array.shape, inner, strict=True))
    create_array(location, name, array.shape, inner, shard, array.dtype)[...].write(array).result()
