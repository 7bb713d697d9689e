"""Exact nearest neighbours of a few scans among many, by matrix products of blocks; descriptors may lie in a file.

Only as many scans are asked as there are words, so no index is needed: docs/results/discovery.json has the time for a
million descriptors. Memory holds one block and the neighbours found so far, however many descriptors there are.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import Any

import numpy as np

from scanlearn.errors import ScanlearnError

BLOCK_BYTES = 32 << 20  # of a block in float64
ROUNDING = 1e-11  # of squared lengths: far more than a product in float64 loses, far less than differences that count

Usable = Callable[[int, np.ndarray], np.ndarray]


def nearest(
    values: Any,
    queries: np.ndarray,
    candidates: np.ndarray,
    groups: np.ndarray,
    count: int,
    *,
    per_patient: int | None = 1,
    usable: Usable | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The ``count`` candidates nearest to each query by Euclidean distance, nearest first; ties in the order of rows.

    A query that is itself among the candidates comes first, also where another scan has the same descriptor. Products
    find out who may be among the nearest; their distances are then computed as differences, in float64.

    Args:
        values: float (N, d) descriptors, an array or a ``np.memmap``.
        queries: int (Q,), rows of ``values``.
        candidates: int (M,), rows of ``values``, ascending.
        groups: int (M,), the patient of each candidate.
        count: how many neighbours, K.
        per_patient: at most so many of them are of one patient; None: as many as there are.
        usable: (number of the query, rows of ``values``) -> bool, which candidates may be its neighbours.

    Returns:
        (rows of ``values`` int64 (Q, K), distances float32 (Q, K)).

    Raises:
        ScanlearnError: fewer than ``count`` neighbours.
    """
    asked = _read(values, np.asarray(queries))
    centre = asked.mean(axis=0)  # descriptors have much in common; without it, products lose less to rounding
    asked -= centre
    lengths = np.square(asked).sum(axis=1)
    found = [_Shortlist(count, per_patient) for _ in queries]
    step = max(BLOCK_BYTES // (8 * asked.shape[1]), 1)
    for first in range(0, len(candidates), step):
        rows, patient = candidates[first : first + step], groups[first : first + step]
        block = _read(values, rows)
        block -= centre
        own = np.einsum("nd,nd->n", block, block)
        product = block @ asked.T
        doubt = ROUNDING * float(own.max())
        for q, short in enumerate(found):
            rough = own - 2.0 * product[:, q] + lengths[q]
            fit = None if usable is None else usable(q, rows)
            near = short.near(rough, patient, fit, doubt + ROUNDING * lengths[q])
            square = np.square(block[near] - asked[q]).sum(axis=1)
            square[rows[near] == queries[q]] = -1.0
            short.add(square, rows[near], patient[near])
    nearby = [short.sorted() for short in found]
    _refuse_few(min(len(rows) for rows, _ in nearby), count)
    squares = np.stack([square for _, square in nearby])
    return np.stack([rows for rows, _ in nearby]), np.sqrt(np.maximum(squares, 0.0)).astype(np.float32)


class _Shortlist:
    """The nearest candidates of one query so far. What comes in waits until it is worth sorting."""

    def __init__(self, count: int, per_patient: int | None):
        self.count, self.per_patient = count, per_patient
        self.limit = np.inf  # the square of the distance beyond which nobody can get in
        none = np.zeros(0, np.int64)
        self._parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = [(np.zeros(0), none, none)]
        self._waiting = 0

    def near(self, rough: np.ndarray, patient: np.ndarray, fit: np.ndarray | None, doubt: float) -> np.ndarray:
        """int (n,): those of a block that may be among the nearest, by squares that are wrong by less than ``doubt``."""
        limit = self.limit
        if not np.isfinite(limit) and len(rough) > self.count:  # the block alone says how far it can be at most
            allowed = np.arange(len(rough)) if fit is None else np.flatnonzero(fit)
            best = self._first(rough[allowed], allowed, patient[allowed])
            limit = rough[allowed[best[-1]]] + doubt if len(best) == self.count else np.inf
        inside = rough <= limit + doubt
        return np.flatnonzero(inside if fit is None else inside & fit)

    def add(self, square: np.ndarray, rows: np.ndarray, patient: np.ndarray) -> None:
        """Take candidates in."""
        self._parts.append((square, rows, patient))
        self._waiting += len(rows)
        if self._waiting > self.count:
            self.sorted()

    def sorted(self) -> tuple[np.ndarray, np.ndarray]:
        """(rows, squared distances) of the nearest, at most ``count``, in order."""
        square, rows, patient = (np.concatenate(parts) for parts in zip(*self._parts, strict=True))
        best = self._first(square, rows, patient)
        self._parts, self._waiting = [(square[best], rows[best], patient[best])], 0
        if len(best) == self.count:
            self.limit = float(square[best[-1]])
        return rows[best], square[best]

    def _first(self, square: np.ndarray, rows: np.ndarray, patient: np.ndarray) -> np.ndarray:
        """Which items come first, in order, with no patient there too often."""
        order = np.lexsort((rows, square))
        if self.per_patient is not None:
            order = order[_earlier(patient[order]) < self.per_patient]
        return order[: self.count]


def _earlier(patient: np.ndarray) -> np.ndarray:
    """int (n,): how many earlier items have the same patient."""
    by_patient = np.argsort(patient, kind="stable")
    at, same = np.arange(len(patient)), patient[by_patient]
    begins = np.r_[True, same[1:] != same[:-1]][: len(same)]
    rank = np.empty(len(patient), np.int64)
    rank[by_patient] = at - np.maximum.accumulate(np.where(begins, at, 0))
    return rank


def _read(values: Any, rows: np.ndarray) -> np.ndarray:
    """Some rows in float64; the pages of a mapped file are given back at once, as they would pile up."""
    whole = bool((np.diff(rows) == 1).all())
    block = np.array(values[rows[0] : rows[-1] + 1] if whole else values[rows], np.float64)
    mapped = getattr(values, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
    return block


def _refuse_few(fewest: int, count: int) -> None:
    if fewest < count:
        raise ScanlearnError(
            f"{count} neighbours are wanted, but only {fewest} scans can be neighbours of a reference (other patients, "
            "large enough for the crop): ask for fewer neighbours, smaller crops, or small scans padded."
        )
