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
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq

from scanlearn.catalog.splits import load_splits
from scanlearn.catalog.table import Catalog
from scanlearn.errors import ScanlearnError
from scanlearn.scans import arrays
from scanlearn.scans.foreground import Foreground
from scanlearn.scans.geometry import Placement, spacing_of, to_dtype

if TYPE_CHECKING:
    import tensorstore as ts

VERSION = 1
OPEN_ARRAYS = 1024

Box = tuple[Sequence[int] | np.ndarray, Sequence[int] | np.ndarray]


def open_store(path: str | Path, *, cache_bytes: int = arrays.CACHE_BYTES) -> Store:
    """Open a store that ``prepare`` made: a folder, or a URL that TensorStore knows (s3://, gs://, http://).

    ``cache_bytes``: decoded chunks kept in memory, for each process. Raises ScanlearnError for what is no store.
    """
    return Store(path, cache_bytes=cache_bytes)


class Store:
    """A prepared data set. Rows are 0..len-1 in the order of ``catalog``; arrays are opened on their first use.

    A Store can be pickled and used after a fork: each process opens its own arrays.
    """

    def __init__(self, path: str | Path, *, cache_bytes: int = arrays.CACHE_BYTES):
        self.location = str(path)
        self.path = Path(path)
        self._cache_bytes = cache_bytes
        file = arrays.side_file(self.location, "store.json")
        if file is None:
            raise ScanlearnError(f"{path} is no prepared store; make one with `scanlearn prepare SOURCE --out {path}`.")
        self.info: dict[str, Any] = json.loads(file.read_text())
        found = self.info.get("version")
        if found != VERSION:
            raise ScanlearnError(
                f"{path} is a store of version {found}, this program reads {VERSION}; prepare it again."
            )
        self.spatial_dims: int = self.info["spatial_dims"]
        self.channels: int = self.info["channels"]
        self.dtype = np.dtype(self.info["dtype"])
        self.mask_classes: list[str] = self.info["mask_classes"]
        rows = pq.read_table(self._side_file("scans.parquet"))
        self._rows = {name: rows[name].to_numpy(zero_copy_only=False) for name in rows.column_names}
        self._process = -1
        self._context: ts.Context | None = None
        self._open: OrderedDict[str, ts.TensorStore] = OrderedDict()

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.location, self._cache_bytes)

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
        return Catalog.load(self._side_file("catalog.parquet"))

    @cached_property
    def splits(self) -> dict[str, np.ndarray]:
        """Row indices of "train", "val" and "test", by patient."""
        return load_splits(self._side_file("splits.json"), self.catalog)

    @cached_property
    def foreground(self) -> Foreground:
        """Random voxels of each mask class in each scan."""
        return Foreground.load(self._side_file("foreground.npz"))

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

    def placement(self, row: int) -> Placement:
        """How the scan was laid on its grid; ``placement(row).undo(mask[None], nearest=True)[0]`` leads back."""
        names = ("source_shape", "inner_shape", "offset", "shape")
        return Placement(*(tuple(self._rows[name][row].tolist()) for name in names))

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
        cuts = None if boxes is None else _cuts(boxes, self.shapes(rows))
        if self.spatial_dims == 2:
            # An image is one chunk: read them all in one request, then cut.
            whole = self._array(kind)[rows].read().result()
            parts = list(whole) if cuts is None else [w[c.inside] for w, c in zip(whole, cuts, strict=True)]
        else:
            volumes = [self._array(f"{kind}/{self._rows['scan_id'][row]}") for row in rows]
            if cuts is not None:
                volumes = [v[c.inside] for v, c in zip(volumes, cuts, strict=True)]
            reads = [volume.read() for volume in volumes]  # all under way before the first is waited for
            parts = [read.result().astype(dtype, copy=False) for read in reads]
        if cuts is None:
            return parts
        return [cut.pad(part, f) for cut, part, f in zip(cuts, parts, fill, strict=True)]

    def _array(self, name: str) -> ts.TensorStore:
        if self._process != os.getpid():
            self._process, self._context, self._open = os.getpid(), arrays.context(self._cache_bytes), OrderedDict()
        found = self._open.get(name)
        if found is None:
            assert self._context is not None
            found = self._open[name] = arrays.open_array(self.location, name, self._context)
            if len(self._open) > OPEN_ARRAYS:
                self._open.popitem(last=False)
        else:
            self._open.move_to_end(name)
        return found

    def _side_file(self, name: str) -> Path:
        file = arrays.side_file(self.location, name)
        if file is None:
            raise ScanlearnError(f"The store {self.location} lacks its {name}; prepare it again.")
        return file


def _reopen(path: str, cache_bytes: int) -> Store:
    return Store(path, cache_bytes=cache_bytes)


class _Cut(NamedTuple):
    """A box on the last axes of an array: the part of it ``inside`` the array, and where in the box that lies."""

    inside: tuple[Any, ...]
    at: tuple[Any, ...]
    size: list[int]
    whole: bool

    def pad(self, part: np.ndarray, fill: Any) -> np.ndarray:
        """The box, from the part of it that is inside the array."""
        if self.whole:
            return part
        out = np.full((*part.shape[: -len(self.size)], *self.size), fill, part.dtype)
        out[self.at] = part
        return out


def _cuts(boxes: Sequence[Box], shapes: np.ndarray) -> list[_Cut]:
    """The boxes on arrays of these shapes (n, dims); worked out together, as Python is slow one by one."""
    bounds = np.array(boxes, np.int64).reshape(len(shapes), 2, -1)
    starts, stops = bounds[:, 0], bounds[:, 1]
    low, high = np.clip(starts, 0, shapes), np.clip(stops, 0, shapes)
    whole = ((low == starts) & (high == stops)).all(axis=1).tolist()
    table = np.stack([low, high, low - starts, high - starts, stops - starts], axis=1).tolist()
    return [
        _Cut((..., *map(slice, a, b)), (..., *map(slice, c, d)), size, w)
        for (a, b, c, d, size), w in zip(table, whole, strict=True)
    ]
