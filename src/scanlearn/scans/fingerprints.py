"""A small grey picture of every scan, by which copies are found that were re-encoded, resized or mirrored.

STORE/ looks.arrow   the picture (32 x 32 bytes) and its hash (32 bytes) of each row
       alike.arrow   pairs of rows of different patients that look alike

``prepare`` writes both; for a store of before they are written when somebody first asks. Pictures stay in the store,
which holds the scans anyway; the record of a run takes hashes alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from scanlearn.catalog.duplicates import BITS, LIKENESS, SIDE, Pairs, alike, hashes, likeness
from scanlearn.catalog.mapped import damaged, numbers, open_mapped, write_mapped
from scanlearn.console import track, warn
from scanlearn.files import replacing
from scanlearn.scans.places import is_far
from scanlearn.scans.sources import ArraySource, FileSource
from scanlearn.scans.store import Store

LOOKS, ALIKE = "looks.arrow", "alike.arrow"
_ROWS = 64  # images read at once
_TYPES = {"look": pa.binary(SIDE * SIDE), "print": pa.binary(BITS // 8)}
_PAIRS = {"first": pa.int64(), "second": pa.int64()}


@dataclass(frozen=True)
class Looks:
    """Of N scans: ``pictures`` uint8 (N, 32, 32), and ``prints`` uint8 (N, 32), their hashes; all 0 for what is unread."""

    pictures: np.ndarray
    prints: np.ndarray

    @classmethod
    def of(cls, pictures: np.ndarray) -> Looks:
        """With the hashes of these pictures."""
        return cls(pictures, hashes(pictures))


def look(image: np.ndarray) -> np.ndarray:
    """uint8 (..., 32, 32) of grey images (..., H, W) of any size and range: means of equal areas, from black to white."""
    down, across = _areas(image.shape[-2]), _areas(image.shape[-1])
    small = down @ image.astype(np.float32) @ across.T
    low, high = small.min((-2, -1), keepdims=True), small.max((-2, -1), keepdims=True)
    return np.rint((small - low) * (255 / np.maximum(high - low, 1e-12))).astype(np.uint8)


def projection(volume: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """float32 (H, W): a volume (X, Y, Z) from the front, as on a radiograph: each pixel is the mean along its ray.

    ``affine`` (voxel -> RAS+ mm) tells how it lies, so that files whose axes run otherwise give the same.
    """
    from nibabel.orientations import apply_orientation, io_orientation

    lies = io_orientation(affine)
    turned = apply_orientation(volume, lies) if np.isfinite(lies).all() else volume
    return turned.mean(axis=1, dtype=np.float32).T[::-1, ::-1]


def looks_of(store: Store) -> Looks:
    """The looks of the scans of a store; made and kept beside it where it lacks them."""
    found = kept_looks(store)
    if found is not None:
        return found
    try:
        return keep_looks(store)
    except OSError:
        warn("the looks of the scans cannot be kept beside the store, so they are made again the next time.")
        return _made(store)


def keep_looks(store: Store) -> Looks:
    """Make the looks of a store, and the pairs of different patients that look alike, and keep both beside it."""
    made = _made(store)
    if not is_far(store.location):
        columns = {name: _as_binary(array) for name, array in (("look", made.pictures), ("print", made.prints))}
        with replacing(Path(store.location) / LOOKS) as temporary:
            write_mapped(temporary, columns)
        pairs = copies(made, store.catalog.codes("patient_id"))
        with replacing(Path(store.location) / ALIKE) as temporary:
            write_mapped(temporary, {"first": pa.array(pairs.first), "second": pa.array(pairs.second)})
    return made


def kept_looks(store: Store) -> Looks | None:
    """The looks that lie beside a store, mapped; None where there are none, an error where they are damaged."""
    path = store.side_file(LOOKS)
    if path is None:
        return None
    table = open_mapped(path, _TYPES, len(store))
    pictures, prints = (_bytes(table[name].chunk(0)) for name in _TYPES)
    return Looks(pictures.reshape(-1, SIDE, SIDE), prints)


def kept_alike(store: Store) -> np.ndarray | None:
    """int64 (n, 2): rows of different patients that look alike, None where nobody has looked."""
    path = store.side_file(ALIKE)
    if path is None:
        return None
    table = open_mapped(path, _PAIRS)
    found = np.stack([numbers(table[name].chunk(0)) for name in _PAIRS], axis=1)
    if len(found) and not (found.min() >= 0 and found.max() < len(store)):
        raise damaged(path, "names rows that the store lacks")
    return found


def copies(looks: Looks, apart: np.ndarray | None = None) -> Pairs:
    """Pairs of scans that show the same picture, re-encoded, resized or mirrored perhaps; ``apart`` as in ``alike``."""
    pairs = alike(looks.prints, apart)
    return pairs.take(likeness(looks.pictures, pairs) >= LIKENESS)


def looks_of_source(reader: FileSource | ArraySource) -> Looks:
    """The looks of the scans of a source that is no store; a scan that cannot be read is all 0."""
    count = len(reader.catalog)
    pictures = np.zeros((count, SIDE, SIDE), np.uint8)
    for row in track(range(count), count, "looks"):
        try:
            scan = reader.read(row)
            pictures[row] = _of_array(scan.array, scan.affine)
        except Exception:  # whatever a file does to the code that reads it, the others go on
            continue
    return Looks.of(pictures)


def _made(store: Store) -> Looks:
    """The looks of all scans of a store, from its voxels, without what was padded."""
    pictures = np.zeros((len(store), SIDE, SIDE), np.uint8)
    for row, found in track(enumerate(_looks(store)), len(store), "looks"):
        pictures[row] = found
    return Looks.of(pictures)


def _as_binary(array: np.ndarray) -> pa.Array:
    flat = np.ascontiguousarray(array).reshape(len(array), -1)
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(flat.shape[1]), len(flat), [None, pa.py_buffer(flat)])


def _bytes(column: pa.Array) -> np.ndarray:
    """uint8 (N, width): a view of a column of bytes."""
    return np.frombuffer(column.buffers()[1], np.uint8, len(column) * column.type.byte_width).reshape(len(column), -1)


def _looks(store: Store) -> Iterator[np.ndarray]:
    step = _ROWS if store.spatial_dims == 2 else 1
    for start in range(0, len(store), step):
        rows = np.arange(start, min(start + step, len(store)))
        _, inner, offset = (bounds.astype(np.int64) for bounds in store.laid(rows))
        for row, array, size, first in zip(rows.tolist(), store.read(rows), inner, offset, strict=True):
            first = np.maximum(first, 0)  # a volume cut to its grid begins before it
            inside = tuple(slice(a, a + n) for a, n in zip(first.tolist(), size.tolist(), strict=True))
            yield _of_array(array[:, *inside], store.affine(row))


def _of_array(array: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """The look of a scan (C, *S): an image of several channels is their mean, of a volume the first one counts."""
    if array.ndim == 3:
        return look(array[0] if len(array) == 1 else array.mean(0, dtype=np.float32))
    return look(projection(array[0], affine))


@lru_cache(4096)
def _areas(size: int) -> np.ndarray:
    """float32 (32, size): the share of each of ``size`` pixels in the mean of each of 32 equal stretches."""
    edges = np.linspace(0, size, SIDE + 1)
    pixels = np.arange(size)
    shared = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (np.maximum(shared, 0) * (SIDE / size)).astype(np.float32)
