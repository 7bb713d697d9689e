"""The prepared store: scans of one data set as chunked arrays that a patch can be read from in a millisecond.

STORE/ zarr.json        a Zarr v3 group
       images/          2D: one array (N, C, H, W)
       volumes/ID/      3D: one array (C, X, Y, Z) for each scan
       masks/           likewise, without channels
       store.json       version, content key, settings, intensity, mask values, quarantine
       catalog.parquet  the catalogue of the scans that are in the store, in the order of its rows
       scans.parquet    shape, spacing, affine, value range of each row
       splits.json      train, val and test, by patient
       foreground.npz   random voxels of each mask class, for patches that show something
"""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from scanlearn.catalog.table import Catalog
from scanlearn.errors import ScanlearnError
from scanlearn.scans import arrays
from scanlearn.scans.foreground import Foreground
from scanlearn.scans.geometry import spacing_of, to_dtype

if TYPE_CHECKING:
    import tensorstore as ts

VERSION = 1
OPEN_ARRAYS = 1024

Box = tuple[Sequence[int], Sequence[int]]


def open_store(path: str | Path, *, cache_bytes: int = arrays.CACHE_BYTES) -> Store:
    """Open a store that ``prepare`` made. ``cache_bytes``: decoded chunks kept in memory, for each process."""
    return Store(path, cache_bytes=cache_bytes)


class Store:
    """A prepared data set. Rows are 0..len-1 in the order of ``catalog``; arrays are opened on their first use.

    A Store can be pickled and used after a fork: each process opens its own arrays.
    """

    def __init__(self, path: str | Path, *, cache_bytes: int = arrays.CACHE_BYTES):
        self.path = Path(path)
        self._cache_bytes = cache_bytes
        file = self.path / "store.json"
        if not file.is_file():
            raise ScanlearnError(f"{path} is no prepared store; make one with `scanlearn prepare SOURCE --out {path}`.")
        self.info: dict[str, Any] = json.loads(file.read_text())
        if self.info.get("version") != VERSION:
            raise ScanlearnError(
                f"{path} was made by another version of the store ({self.info.get('version')}, this one reads {VERSION}); "
                "prepare it again."
            )
        self.spatial_dims: int = self.info["spatial_dims"]
        self.channels: int = self.info["channels"]
        self.dtype = np.dtype(self.info["dtype"])
        self.mask_classes: list[str] = self.info["mask_classes"]
        self._rows = {name: column.to_numpy(zero_copy_only=False) for name, column in self._read_rows().items()}
        self._process = -1
        self._context: ts.Context | None = None
        self._open: OrderedDict[str, ts.TensorStore] = OrderedDict()

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (str(self.path), self._cache_bytes)

    def __len__(self) -> int:
        return len(self._rows["low"])

    def __repr__(self) -> str:
        masks = f", masks of {len(self.mask_classes)} classes" if self.has_masks else ""
        return (
            f"Store({self.path.name}: {len(self)} scans, {self.spatial_dims}D, {self.channels} x {self.dtype}{masks})"
        )

    @cached_property
    def catalog(self) -> Catalog:
        """The catalogue of the scans in the store, row by row."""
        return Catalog.load(self.path / "catalog.parquet")

    @cached_property
    def splits(self) -> dict[str, np.ndarray]:
        """Row indices of "train", "val" and "test", by patient."""
        from scanlearn.catalog.splits import load_splits

        return load_splits(self.path / "splits.json", self.catalog)

    @cached_property
    def foreground(self) -> Foreground:
        """Random voxels of each mask class in each scan."""
        return Foreground.load(self.path / "foreground.npz")

    @property
    def has_masks(self) -> bool:
        """True where at least one scan has a mask."""
        return bool(self.masked.any())

    @property
    def masked(self) -> np.ndarray:
        """bool (N,): which scans have a mask."""
        return self._rows["masked"]

    def shape(self, row: int) -> tuple[int, ...]:
        """The spatial shape of a scan in the store."""
        return tuple(self._shapes[row].tolist())

    @cached_property
    def _shapes(self) -> np.ndarray:
        return np.stack(list(self._rows["shape"])).astype(np.int64)

    def shapes(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """int64 (n, spatial_dims): the shapes of several scans."""
        return self._shapes[np.asarray(rows)]

    def affine(self, row: int) -> np.ndarray:
        """float64 (4, 4): voxel indices of the scan in the store -> RAS+ mm."""
        return self._rows["affine"][row].reshape(4, 4).copy()

    def spacing(self, row: int) -> tuple[float, ...]:
        """mm between neighbours along each spatial axis."""
        return spacing_of(self.affine(row), self.spatial_dims)

    def factor(self, row: int) -> float:
        """Stored values times this are the values of the file (1 but for floats beyond the range of float16)."""
        return float(self._rows["factor"][row])

    def window(self, rows: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(low, high), float32 (n,) each: the stored values that ``to_unit`` maps to 0 and 1."""
        rows = np.asarray(rows)
        return self._rows["low"][rows].astype(np.float32), self._rows["high"][rows].astype(np.float32)

    def read(self, rows: Sequence[int] | np.ndarray, boxes: Sequence[Box] | None = None) -> list[np.ndarray]:
        """Scans or boxes of scans, one (C, *S) array in the store's dtype for each row, read concurrently.

        boxes: one (start, stop) of voxel indices for each row; what lies outside the scan holds the low end of its
        window. None: whole scans.
        """
        rows = np.asarray(rows, dtype=np.int64)
        fill = to_dtype(self.window(rows)[0], self.dtype)
        return self._read("images" if self.spatial_dims == 2 else "volumes", rows, boxes, fill, self.dtype)

    def read_masks(self, rows: Sequence[int] | np.ndarray, boxes: Sequence[Box] | None = None) -> list[np.ndarray]:
        """Masks or boxes of masks, uint8 (*S): 0 = background and outside, k = ``mask_classes[k - 1]``."""
        rows = np.asarray(rows, dtype=np.int64)
        if not self.masked[rows].all():
            raise ScanlearnError(
                f"{(~self.masked[rows]).sum()} of {len(rows)} scans of {self.path.name} have no mask; use rows whose "
                "`masked` is true."
            )
        read = self._read("masks", rows, boxes, np.zeros(len(rows), np.uint8), np.dtype(np.uint8))
        values = self.info["mask_values"]
        if values == list(range(1, len(values) + 1)):
            return read
        table = np.zeros(256, np.uint8)
        table[values] = np.arange(1, len(values) + 1)
        return [table[mask] for mask in read]

    def _read(
        self, kind: str, rows: np.ndarray, boxes: Sequence[Box] | None, fill: np.ndarray, dtype: np.dtype
    ) -> list[np.ndarray]:
        if len(rows) == 0:
            return []
        if self.spatial_dims == 2:
            # An image is one chunk: read them all in one request, then cut.
            whole = self._array(kind)[rows].read().result()
            if boxes is None:
                return list(whole)
            return [_cut(w, box, f) for w, box, f in zip(whole, boxes, fill, strict=True)]
        names = [f"{kind}/{self._rows['scan_id'][row]}" for row in rows]
        if boxes is None:
            reads = [self._array(name).read() for name in names]
            return [read.result().astype(dtype, copy=False) for read in reads]
        shapes = self.shapes(rows)
        starts = np.array([b[0] for b in boxes]).reshape(len(rows), -1)
        stops = np.array([b[1] for b in boxes]).reshape(len(rows), -1)
        inside = [np.clip(starts, 0, shapes), np.clip(stops, 0, shapes)]
        reads = []
        for name, low, high in zip(names, *inside, strict=True):
            part = tuple(slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))
            reads.append(self._array(name)[(..., *part)].read())
        out = []
        for i, read in enumerate(reads):
            got = read.result()
            box = np.full((*got.shape[:-3], *(stops[i] - starts[i])), fill[i], dtype)
            at = tuple(slice(a, b) for a, b in zip(inside[0][i] - starts[i], inside[1][i] - starts[i], strict=True))
            box[(..., *at)] = got
            out.append(box)
        return out

    def _array(self, name: str) -> ts.TensorStore:
        if self._process != os.getpid():
            self._process, self._context, self._open = os.getpid(), arrays.context(self._cache_bytes), OrderedDict()
        found = self._open.get(name)
        if found is None:
            assert self._context is not None
            found = self._open[name] = arrays.open_array(str(self.path), name, self._context)
            if len(self._open) > OPEN_ARRAYS:
                self._open.popitem(last=False)
        else:
            self._open.move_to_end(name)
        return found

    def _read_rows(self) -> dict[str, Any]:
        table = pq.read_table(self.path / "scans.parquet")
        return {name: table[name] for name in table.column_names}


def _reopen(path: str, cache_bytes: int) -> Store:
    return Store(path, cache_bytes=cache_bytes)


def _cut(array: np.ndarray, box: Box, fill: Any) -> np.ndarray:
    """The box of the last axes of ``array``; what lies outside holds ``fill``."""
    start, stop = np.asarray(box[0]), np.asarray(box[1])
    shape = np.array(array.shape[-len(start) :])
    low, high = np.clip(start, 0, shape), np.clip(stop, 0, shape)
    part = array[(..., *(slice(a, b) for a, b in zip(low, high, strict=True)))]
    if (low == start).all() and (high == stop).all():
        return part
    out = np.full((*array.shape[: -len(start)], *(stop - start)), fill, array.dtype)
    out[(..., *(slice(a, b) for a, b in zip(low - start, high - start, strict=True)))] = part
    return out
