"""What a detector must beat: the mean boxes of the training part, guessed on every image without looking at it."""

from __future__ import annotations

import numpy as np

from scanlearn.scans.laid_boxes import store_boxes
from scanlearn.scans.store import Store
from scanlearn.tasks.detection_metrics import Boxes


def mean_box(store: Store, train: np.ndarray, rows: np.ndarray) -> Boxes:
    """One box on each of the scans ``rows``: the mean, in shares of the image, of all boxes of the training scans."""
    _, shares = _of_training(store, train)
    return _everywhere(store, rows, shares.mean(axis=0, keepdims=True) if len(shares) else shares)


def mean_boxes(store: Store, train: np.ndarray, rows: np.ndarray) -> Boxes:
    """As many boxes on each scan as training scans with boxes most often have, which is harder to beat: of those that
    have so many, the first from the left, the second and so on are averaged. One box would fall between two lungs.
    """
    row, shares = _of_training(store, train)
    if not len(row):
        return _everywhere(store, rows, shares)
    each = np.bincount(row, minlength=len(store))
    often = int(np.bincount(each[each > 0]).argmax())
    chosen = each[row] == often
    row, shares = row[chosen], shares[chosen]
    order = np.lexsort((shares[:, 1], row))
    return _everywhere(store, rows, shares[order].reshape(-1, often, 4).mean(axis=0))


def _of_training(store: Store, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(row (n,), corners (n, 4) in shares of the image) of the training part's boxes."""
    row, corners, _ = store_boxes(store)
    kept = np.isin(row, train)
    return row[kept], corners[kept] / np.tile(store.laid(row[kept])[0], 2)


def _everywhere(store: Store, rows: np.ndarray, shares: np.ndarray) -> Boxes:
    """The same boxes (k, 4) on every scan, in pixels of its file; all of one confidence, as none is a better guess."""
    corners = (shares * np.tile(store.laid(rows)[0], 2)[:, None]).reshape(-1, 4)
    return Boxes(np.repeat(np.arange(len(rows)), len(shares)), corners, np.ones(len(corners)))
