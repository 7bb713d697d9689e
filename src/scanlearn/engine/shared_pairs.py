"""The pairs of scans behind the counts of ``engine.sides``, for somebody who wants to look at them.

Rows count through all sides, one after the other. A place is a part of a side: two parts, or two sides, are two places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scanlearn.catalog.duplicates import Pairs, mirrored
from scanlearn.engine.sides import Side, codes, starts

FILE, COPY, PATIENT, HARMLESS = "file", "copy", "patient", "harmless"
KINDS = (FILE, COPY, PATIENT, HARMLESS)


@dataclass(frozen=True)
class Shown:
    """Some pairs of one kind, and how many there are.

    Kinds: FILE, the same bytes under two patients or in two places; COPY, another file that looks alike; PATIENT, two
    scans of one patient in two places, one pair for each patient and two places; HARMLESS, the same bytes twice under
    one patient in one place. ``bits`` of pairs without a hash are -1.
    """

    kind: str
    pairs: Pairs
    total: int


@dataclass(frozen=True)
class _Rows:
    """What is equal among all N rows, by number: int (N,) each."""

    patient: np.ndarray
    file: np.ndarray
    place: np.ndarray
    side: np.ndarray
    named: np.ndarray  # bool: in a part that has a name
    known: np.ndarray  # bool: whose patient is known


def shared_pairs(sides: Sequence[Side], copies: Pairs, most: int) -> list[Shown]:
    """``most`` pairs at most of each kind: those of two places first, then by the bits in which they differ.

    copies: what ``compare`` found to look alike.
    """
    rows = _rows(sides)
    prints = _prints(sides)
    first, second = _neighbours(rows.file, rows.patient, rows.place)
    harmless = (rows.patient[first] == rows.patient[second]) & (rows.place[first] == rows.place[second])
    found = {FILE: (first[~harmless], second[~harmless]), COPY: (copies.first, copies.second)}
    found |= {PATIENT: _patients(rows), HARMLESS: (first[harmless], second[harmless])}
    out = []
    for kind, (a, b) in found.items():
        within = rows.place[a] == rows.place[b]
        bits = copies.bits if kind == COPY else np.zeros(len(a), np.int64)
        order = np.lexsort((b, a, bits, within))[:most]
        if kind == COPY:
            shown = copies.take(order)
        else:
            distance, turned = _distance(prints, a[order], b[order])
            shown = Pairs(a[order], b[order], distance, turned)
        out.append(Shown(kind, shown, len(a)))
    return out


def _rows(sides: Sequence[Side]) -> _Rows:
    side = np.repeat(np.arange(len(sides)), np.diff(starts(sides)))
    names, part = np.unique(np.concatenate([side.part for side in sides]), return_inverse=True)
    known = np.array([side.known for side in sides])[side]
    patient, file = codes([side.patients for side in sides]), codes([side.files for side in sides])
    return _Rows(patient, file, side * len(names) + part, side, names[part] != "", known)


def _neighbours(*keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(row, row): those that follow each other in the order of all keys and agree in the first of them."""
    order = np.lexsort((np.arange(len(keys[0])), *reversed(keys)))
    same = np.flatnonzero(np.diff(keys[0][order]) == 0)
    a, b = order[same], order[same + 1]
    return np.minimum(a, b), np.maximum(a, b)


def _patients(rows: _Rows) -> tuple[np.ndarray, np.ndarray]:
    """The first scans of one known patient in two places; scans of one side that are in no part are in no other place."""
    some = np.flatnonzero(rows.known)
    _, at = np.unique(np.stack([rows.patient[some], rows.place[some]]), axis=1, return_index=True)
    some = some[np.sort(at)]
    first, second = _neighbours(rows.patient[some], rows.place[some])
    first, second = some[first], some[second]
    parted = (rows.side[first] != rows.side[second]) | (rows.named[first] & rows.named[second])
    return first[parted], second[parted]


def _prints(sides: Sequence[Side]) -> np.ndarray:
    """uint8 (N, 32): zeros where a side has no hashes."""
    return np.concatenate([np.zeros((len(s), 32), np.uint8) if s.prints is None else s.prints for s in sides])


def _distance(prints: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(bits in which the hashes differ, -1 where one is missing; whether the second is nearer when it is mirrored)."""
    a, b = prints[first], prints[second]
    plain = np.bitwise_count(a ^ b).sum(1, dtype=np.int64)
    turned = np.bitwise_count(a ^ mirrored(b)).sum(1, dtype=np.int64)
    there = a.any(1) & b.any(1)
    return np.where(there, np.minimum(plain, turned), -1), there & (turned < plain)
