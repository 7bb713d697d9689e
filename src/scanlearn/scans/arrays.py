"""The arrays of a store: Zarr v3, sharded, LZ4, written and read by TensorStore.

A stack of 2D scans is one array (N, C, H, W) with one image for each inner chunk. A volume is one array (C, X, Y, Z)
in one shard (one file) of inner chunks of about 32 voxels per side.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

INNER_SIDE = 32
STACK_SHARD_BYTES = 32 << 20
CACHE_BYTES = 512 << 20

GROUP_METADATA = '{"zarr_format": 3, "node_type": "group", "attributes": {}}\n'

_LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}
_LZ4 = {"name": "blosc", "configuration": {"cname": "lz4", "clevel": 5, "shuffle": "bitshuffle"}}


def context(cache_bytes: int = CACHE_BYTES, threads: int | None = None) -> ts.Context:
    """Resources shared by the arrays of one store in one process: a cache of decoded chunks, and threads."""
    spec: dict[str, Any] = {"cache_pool": {"total_bytes_limit": int(cache_bytes)}}
    if threads is not None:
        spec["data_copy_concurrency"] = {"limit": threads}
    return ts.Context(spec)


def place_of(location: str, name: str) -> Any:
    """The key-value store of the array ``name`` under a local folder or a URL such as s3://bucket/store."""
    if "://" in location:
        return "/".join([location.rstrip("/"), *filter(None, [name]), ""])
    return {"driver": "file", "path": f"{location}/{name}/"}


def side_file(location: str, name: str) -> Path | None:
    """A small file of a store as a local file, fetched into a temporary folder for a URL; None where there is none."""
    if "://" not in location:
        path = Path(location) / name
        return path if path.is_file() else None
    value = ts.KvStore.open(place_of(location, "")).result().read(name).result()
    if value.state != "value":
        return None
    path = Path(tempfile.mkdtemp(prefix="scanlearn-")) / name
    path.write_bytes(value.value)
    return path


def open_array(location: str, name: str, shared: ts.Context) -> ts.TensorStore:
    """Open an array for reading; what is in the cache is believed, as a finished store never changes."""
    spec = {"driver": "zarr3", "kvstore": place_of(location, name), "recheck_cached_data": False}
    return ts.open(spec, read=True, open=True, context=shared).result()


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
    spec = {"driver": "zarr3", "kvstore": place_of(location, name), "metadata": metadata}
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
