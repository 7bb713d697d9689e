"""The prepared store: scans of one data set as chunked arrays that a patch can be read from in a millisecond.

STORE/ zarr.json         a Zarr v3 group
       images/           2D: one array (N, C, H, W)
       volumes/ID/       3D: one array (C, X, Y, Z) for each scan
       masks/            likewise, without channels
       store.json        version, content key, settings, intensity, mask values, sizes of the parts, quarantine
       catalog.arrow     the catalogue of the scans that are in the store, in the order of its rows
       scans.arrow       part (train, val, test), shape, affine, value range of each row
       foreground.arrow  random voxels of each mask class, for patches that show something
       looks.arrow       a small grey picture of each scan and its hash, by which copies are found
       alike.arrow       pairs of rows of different patients that look alike

The Arrow files are mapped: a store of a million rows opens as fast as a small one and takes memory for what is used.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from scanlearn.catalog.mapped import WORDS, numbers, open_mapped
from scanlearn.catalog.pseudonyms import SAFE_ID
from scanlearn.catalog.table import Catalog
from scanlearn.errors import ScanlearnError
from scanlearn.scans.arrays import CACHE_BYTES, Arrays, read_into
from scanlearn.scans.boxes import Box, cuts_of
from scanlearn.scans.foreground import Foreground
from scanlearn.scans.geometry import Placement, spacing_of, to_dtype
from scanlearn.scans.places import reading
from scanlearn.scans.side_files import VERSION, SideFiles, read_info

if TYPE_CHECKING:
    import tensorstore as ts

__all__ = ["VERSION", "Box", "Store", "open_store", "row_types"]


def open_store(path: str | Path, *, cache_bytes: int = CACHE_BYTES, threads: int | None = None) -> Store:
    """Open a store that ``prepare`` made: a folder, or a URL that TensorStore knows (s3://, gs://, http://).

    ``cache_bytes``: decoded chunks kept in memory, for each process; ``threads`` that decode, default one for each
    processor. Raises ScanlearnError for what is no store, and for one whose side files do not fit each other.
    """
    store = Store(path, cache_bytes=cache_bytes, threads=threads)
    store.check()
    return store


def row_types(dims: int) -> dict[str, pa.DataType]:
    """The columns of scans.arrow. ``part`` 0 is no part, k the k-th of ``store.json``; "masked" is 0 or 1."""
    axes = pa.list_(pa.int32(), dims)
    return {
        "part": pa.uint8(),
        "masked": pa.uint8(),
        **dict.fromkeys(("shape", "source_shape", "inner_shape", "offset"), axes),
        "affine": pa.list_(pa.float64(), 16),
        **dict.fromkeys(("low", "high"), pa.float32()),
        **dict.fromkeys(("factor", "minimum", "maximum", "p_low", "p_high"), pa.float64()),
        "modality": WORDS,
    }


class Store:
    """A prepared data set. Rows are 0..len-1 in the order of ``catalog``; arrays are opened on their first use.

    A Store can be pickled and used after a fork: each process opens its own arrays.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        cache_bytes: int = CACHE_BYTES,
        threads: int | None = None,
        fetched: str | None = None,
    ):
        self.location = str(path)
        self.path = Path(path)
        self._files = SideFiles(self.location, fetched)
        self.info: dict[str, Any] = read_info(self._files)
        self.spatial_dims: int = self.info["spatial_dims"]
        self.channels: int = self.info["channels"]
        self.dtype = np.dtype(self.info["dtype"])
        self.mask_classes: list[str] = self.info["mask_classes"]
        self._arrays = Arrays(self.location, cache_bytes, threads)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.location, self._arrays.cache_bytes, self._arrays.threads, self._files.fetched)

    def __len__(self) -> int:
        return int(self.info["scans"])

    def __repr__(self) -> str:
        masks = f", masks of {len(self.mask_classes)} classes" if self.has_masks else ""
        return (
            f"Store({self.path.name}: {len(self)} scans, {self.spatial_dims}D, {self.channels} x {self.dtype}{masks})"
        )

    def check(self) -> None:
        """Refuse side files that are damaged or do not fit each other; nothing of a size that grows with the words."""
        _ = self.catalog, self.splits

    def open_catalog(self) -> Catalog:
        """The catalogue, mapped anew: what is read of it goes from memory with it."""
        return Catalog.map(self._files.path("catalog.arrow"), len(self))

    def side_file(self, name: str) -> Path | None:
        """A file beside the arrays on this machine (fetched, where the store is far), None where there is none."""
        return self._files.find(name)

    @cached_property
    def catalog(self) -> Catalog:
        """The catalogue of the scans in the store, row by row."""
        return self.open_catalog()

    @cached_property
    def splits(self) -> dict[str, np.ndarray]:
        """Row indices of "train", "val" and "test", by patient; int64, sorted."""
        part, made = self._rows["part"], self.info["splits"]
        found = {name: np.flatnonzero(part == code) for code, name in enumerate(made["parts"], 1)}
        sizes = {name: len(rows) for name, rows in found.items()}
        if sizes != {name: told["scans"] for name, told in made["parts"].items()} or digest(part) != made["sha256"]:
            raise ScanlearnError(
                f"The split in scans.arrow of {self.location} is not the one that store.json tells of; prepare it again."
            )
        return found

    @cached_property
    def foreground(self) -> Foreground:
        """Random voxels of each mask class in each scan."""
        return Foreground.load(self._files.path("foreground.arrow"), self.spatial_dims, len(self))

    @cached_property
    def _rows(self) -> dict[str, np.ndarray]:
        """The columns of scans.arrow, (N,) or (N, k), as views of the mapped file."""
        types = row_types(self.spatial_dims)
        table = open_mapped(self._files.path("scans.arrow"), types, len(self))
        return {name: numbers(table[name].chunk(0)) for name, kind in types.items() if kind != WORDS}

    @property
    def has_masks(self) -> bool:
        """True where at least one scan has a mask."""
        return bool(self.masked.any())

    @cached_property
    def masked(self) -> np.ndarray:
        """bool (N,): which scans have a mask."""
        return self._rows["masked"] != 0

    def shape(self, row: int) -> tuple[int, ...]:
        """The spatial shape of a scan in the store."""
        return tuple(self._rows["shape"][row].tolist())

    def shapes(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """int64 (n, spatial_dims): the shapes of several scans."""
        rows = np.asarray(rows)
        if self.spatial_dims == 2:
            return np.broadcast_to(self._rows["shape"][0].astype(np.int64), (len(rows), 2))
        return self._rows["shape"][rows].astype(np.int64)

    def same_shape(self, rows: Sequence[int] | np.ndarray) -> bool:
        """Whether these scans have one shape, as those of a 2D store always have."""
        if self.spatial_dims == 2 or len(rows) == 0:
            return True
        shapes = self._rows["shape"][np.asarray(rows)]
        return bool((shapes == shapes[0]).all())

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

    def laid(self, rows: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """How several scans were laid on their grids: shape in the file, float64 (n, dims), size there, first voxel."""
        return tuple(
            self._rows[n][np.asarray(rows)].astype(np.float64) for n in ("source_shape", "inner_shape", "offset")
        )  # type: ignore[return-value]

    def factor(self, row: int) -> float:
        """Stored values times this are the values of the file (1 but for floats beyond the range of float16)."""
        return float(self._rows["factor"][row])

    def window(self, rows: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(low, high), float32 (n,) each: the stored values that ``to_unit`` maps to 0 and 1."""
        rows = np.asarray(rows)
        return self._rows["low"][rows], self._rows["high"][rows]

    def read(
        self, rows: Sequence[int] | np.ndarray, boxes: Sequence[Box] | None = None, out: np.ndarray | None = None
    ) -> list[np.ndarray]:
        """Scans or boxes of scans, one (C, *S) array in the store's dtype for each row, read concurrently.

        boxes: one (start, stop) of voxel indices for each row; what lies outside the scan holds the low end of its
        window. None: whole scans. out: an array (n, C, *S) in the store's dtype to read into; the result is its parts.
        """
        rows = np.asarray(rows, dtype=np.int64)
        fill = to_dtype(self.window(rows)[0], self.dtype)
        return self._read("images" if self.spatial_dims == 2 else "volumes", rows, boxes, fill, self.dtype, out)

    def read_masks(self, rows: Sequence[int] | np.ndarray, boxes: Sequence[Box] | None = None) -> list[np.ndarray]:
        """Masks or boxes of masks, uint8 (*S): 0 = background and outside, k = ``mask_classes[k - 1]``."""
        rows = np.asarray(rows, dtype=np.int64)
        if not self.masked[rows].all():
            raise ScanlearnError(
                f"{(~self.masked[rows]).sum()} of {len(rows)} scans of {self.path.name} have no mask; use rows whose "
                "`masked` is true."
            )
        read = self._read("masks", rows, boxes, np.zeros(len(rows), np.uint8), np.dtype(np.uint8), None)
        values = self.info["mask_values"]
        if values == list(range(1, len(values) + 1)):
            return read
        table = np.zeros(256, np.uint8)
        table[values] = np.arange(1, len(values) + 1)
        return [table[mask] for mask in read]

    def _read(
        self,
        kind: str,
        rows: np.ndarray,
        boxes: Sequence[Box] | None,
        fill: np.ndarray,
        dtype: np.dtype,
        out: np.ndarray | None,
    ) -> list[np.ndarray]:
        if len(rows) == 0:
            return []
        opened = self._opened(kind, rows)  # first, as it refuses shapes that the side files only claim
        cuts = None if boxes is None else cuts_of(boxes, self.shapes(rows))
        sizes = self.shapes(rows).tolist() if cuts is None else [cut.size for cut in cuts]
        targets = [np.empty((*self._leading(kind), *size), dtype) for size in sizes] if out is None else list(out)
        inside = targets if cuts is None else [c.inner(t, f) for c, t, f in zip(cuts, targets, fill, strict=True)]
        with reading(self.location):
            if self.spatial_dims == 3:
                sources = opened if cuts is None else [v[c.inside] for v, c in zip(opened, cuts, strict=True)]
                read_into(inside, sources)
            elif out is not None and cuts is None:
                read_into([out], [opened[0][rows]])
            else:
                # An image is one chunk: read them all in one request, then cut.
                whole = opened[0][rows].read().result()
                for i, target in enumerate(inside):
                    target[...] = whole[i] if cuts is None else whole[i][cuts[i].inside]
        return targets

    def _name(self, kind: str, row: int, scan_id: str) -> str:
        if not re.fullmatch(SAFE_ID, scan_id):  # it must not lead out of the folder
            raise ScanlearnError(
                f"The catalogue of {self.location} is damaged: row {row} has no scan id; prepare it again."
            )
        return f"{kind}/{scan_id}"

    def _leading(self, kind: str) -> tuple[int, ...]:
        return () if kind == "masks" else (self.channels,)

    def _opened(self, kind: str, rows: np.ndarray) -> list[ts.TensorStore]:
        leading = self._leading(kind)
        if self.spatial_dims == 2:
            return self._arrays.get([kind], [(len(self), *leading, *self.shape(0))])
        ids = self.catalog.array("scan_id", rows).to_pylist()
        names = [self._name(kind, int(row), scan_id) for row, scan_id in zip(rows, ids, strict=True)]
        return self._arrays.get(names, [(*leading, *shape) for shape in self.shapes(rows).tolist()])


def digest(part: np.ndarray) -> str:
    """sha256 of the parts (N,) uint8 of all rows."""
    return hashlib.sha256(part.tobytes()).hexdigest()


def _reopen(path: str, cache_bytes: int, threads: int | None, fetched: str | None) -> Store:
    return Store(path, cache_bytes=cache_bytes, threads=threads, fetched=fetched)
