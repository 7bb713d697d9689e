"""Boxes of a store: from the pixels of the published files onto the grid that the scans were laid on, and back."""

from __future__ import annotations

import numpy as np

from scanlearn.catalog.boxes import COLUMN, boxes_of
from scanlearn.errors import ScanlearnError
from scanlearn.scans.store import Store


def store_boxes(store: Store) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(row of the store int64 (n,), corners float64 (n, 4) in pixels of the files, bool (N,) which were looked at).

    Corners are the top, left, bottom and right edge. Raises ScanlearnError for a store without boxes.
    """
    if store.spatial_dims != 2 or COLUMN not in store.catalog.extra_columns:
        raise ScanlearnError(
            f"{store.path.name} holds no boxes of 2D images: prepare it with --boxes TABLE.csv, or from a source with the "
            f"column {COLUMN}."
        )
    return boxes_of(store.catalog)


def to_grid(store: Store, rows: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Corners (n, 4) in pixels of the files of these rows -> in voxels of the store; edges go where the image's go."""
    source, inner, offset = (np.tile(values, 2) for values in store.laid(rows))
    return corners * (inner / source) + offset


def to_file(store: Store, rows: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """The way back, cut at the edges of the image; what lies beside it altogether has no area left."""
    return back(corners, *store.laid(rows))


def back(corners: np.ndarray, source: np.ndarray, inner: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Corners (n, 4) on a grid -> in pixels of the file, for the numbers of a ``Placement``, (2,) or (n, 2) each."""
    source, inner, offset = (np.concatenate([v, v], axis=-1) for v in np.broadcast_arrays(source, inner, offset))
    return np.clip((corners - offset) * (source / inner), 0, source)


def padded(rows: np.ndarray, corners: np.ndarray, count: int) -> np.ndarray:
    """float32 (count, M, 4): the boxes of each of ``count`` rows, at the end zeros, as views and objectives take them."""
    each = np.bincount(rows, minlength=count)
    table = np.zeros((count, max(int(each.max(initial=0)), 1), 4), np.float32)
    order = np.argsort(rows, kind="stable")
    place = np.arange(len(rows)) - np.repeat(np.cumsum(each) - each, each)
    table[rows[order], place] = corners[order]
    return table
