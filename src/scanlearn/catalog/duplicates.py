"""Images that look alike, found by their hashes: every pair within a distance, among a million in minutes.

A look is a grey picture of 32 x 32 pixels of a whole scan (``scans.fingerprints``). Its hash is 256 bits, the signs of
the lowest frequencies of its cosine transform: scaling, re-encoding and another window hardly move them, and a picture
mirrored left-right has the same bits but for those of the odd frequencies across, so both are found at once.

Pairs within ``RADIUS`` bits must agree in one of ``RADIUS + 1`` groups of bits (pigeonhole): rows are sorted by each
group, and only rows of equal bits are compared, so no such pair is missed. Pairs are then looked at again: the
correlation of their looks, without what is smooth in them, tells a copy from two patients in the same position.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

SIDE = 32  # pixels of a look
BITS = 256
RADIUS = 15  # bits in which two copies may differ
LIKENESS = 0.95  # correlation of the looks of two copies, at least
_BLOCK = 1 << 20  # pairs compared at once


@dataclass(frozen=True)
class Pairs:
    """Pairs of rows: ``first`` < ``second`` int64 (n,), ``bits`` in which the hashes differ, ``mirrored`` bool (n,)."""

    first: np.ndarray
    second: np.ndarray
    bits: np.ndarray
    mirrored: np.ndarray

    def __len__(self) -> int:
        return len(self.first)

    def take(self, which: np.ndarray) -> Pairs:
        """Some of the pairs: indices, or a mask of n booleans."""
        return Pairs(self.first[which], self.second[which], self.bits[which], self.mirrored[which])


def hashes(looks: np.ndarray) -> np.ndarray:
    """uint8 (N, 32): the 256 bits of looks uint8 (N, 32, 32)."""
    found = np.empty((len(looks), BITS // 8), np.uint8)
    rows, columns, _ = _frequencies()
    basis = _cosines()
    for start in range(0, len(looks), 4096):
        block = looks[start : start + 4096].astype(np.float32)
        spectrum = basis @ block @ basis.T
        found[start : start + 4096] = np.packbits(spectrum[:, rows, columns] > 0, axis=1)
    return found


def mirrored(prints: np.ndarray) -> np.ndarray:
    """uint8 (N, 32): the hashes of the same looks mirrored left-right."""
    return prints ^ _frequencies()[2]


def alike(prints: np.ndarray, apart: np.ndarray | None = None, *, radius: int = RADIUS) -> Pairs:
    """All pairs of hashes uint8 (N, 32) that differ in at most ``radius`` bits, as they are or one of them mirrored.

    apart: numbers (N,), of patients or of sources; only pairs of two numbers count. A hash of zeros is of no picture.
    """
    plain, turned = _as_words(prints), _as_words(mirrored(prints))
    owner = np.arange(len(prints)) if apart is None else np.asarray(apart)
    kept = np.flatnonzero(prints.any(1))
    found: list[Pairs] = []
    for group in _groups(prints[kept], radius + 1):
        keys = _keys(prints, group), _keys(mirrored(prints), group)
        for first, second, flipped in _meeting(kept, keys[0][kept], keys[1][kept]):
            two = np.flatnonzero(owner[first] != owner[second])
            first, second = first[two], second[two]
            bits = np.bitwise_count(plain[first] ^ (turned if flipped else plain)[second]).sum(axis=1, dtype=np.int64)
            near = np.flatnonzero(bits <= radius)
            if len(near):
                found.append(Pairs(first[near], second[near], bits[near], np.full(len(near), flipped)))
    return _once(found)


def likeness(looks: np.ndarray, pairs: Pairs) -> np.ndarray:
    """float64 (n,): correlation of the looks of each pair, less what is smooth in them; 1 is the same picture."""
    out = np.empty(len(pairs))
    for start in range(0, len(pairs), 4096):
        part = pairs.take(np.arange(start, min(start + 4096, len(pairs))))
        a, b = looks[part.first], looks[part.second]
        b = np.where(part.mirrored[:, None, None], b[:, :, ::-1], b)
        out[start : start + 4096] = (_sharp(a) * _sharp(b)).sum((1, 2))
    return out


def _sharp(looks: np.ndarray) -> np.ndarray:
    """float64 (n, 32, 32) of mean 0 and length 1: the look less the mean of the 7 x 7 pixels around."""
    image = np.pad(looks.astype(np.float64), ((0, 0), (4, 3), (4, 3)), mode="reflect").cumsum(1).cumsum(2)
    smooth = (image[:, 7:, 7:] - image[:, :-7, 7:] - image[:, 7:, :-7] + image[:, :-7, :-7]) / 49
    sharp = looks - smooth
    sharp -= sharp.mean((1, 2), keepdims=True)
    return sharp / np.maximum(np.sqrt((sharp**2).sum((1, 2), keepdims=True)), 1e-9)


# ---------------------------------------------------------------- groups of bits


def _groups(prints: np.ndarray, count: int) -> list[np.ndarray]:
    """All bits dealt to ``count`` groups, those that divide the rows best first, so that every group divides them well."""
    share = np.unpackbits(prints[:: max(1, len(prints) // 65_536)], axis=1).mean(0) if len(prints) else np.zeros(BITS)
    order = np.argsort(np.abs(share - 0.5), kind="stable")
    return [order[start::count] for start in range(count)]


def _keys(prints: np.ndarray, group: np.ndarray) -> np.ndarray:
    """uint64 (N,): the bits of one group as a number."""
    keys = np.zeros(len(prints), np.uint64)
    for bit in group[:64]:
        keys = keys << np.uint64(1) | (prints[:, bit // 8] >> np.uint8(7 - bit % 8) & np.uint8(1))
    return keys


def _meeting(rows: np.ndarray, plain: np.ndarray, turned: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, bool]]:
    """(rows, later rows, whether the later one is mirrored): blocks of all pairs whose keys are equal."""
    order = np.argsort(plain, kind="stable")
    ordered = plain[order]
    ends = np.searchsorted(ordered, ordered, "right")
    yield from _blocks(rows[order], np.arange(1, len(order) + 1), ends, rows[order], False)
    starts, ends = np.searchsorted(ordered, turned, "left"), np.searchsorted(ordered, turned, "right")
    yield from _blocks(rows, starts, ends, rows[order], True)


def _blocks(
    own: np.ndarray, starts: np.ndarray, ends: np.ndarray, others: np.ndarray, flipped: bool
) -> Iterator[tuple[np.ndarray, np.ndarray, bool]]:
    """Pairs of own[i] and others[starts[i]:ends[i]], a million at a time."""
    counts = np.maximum(ends - starts, 0)
    kept = np.flatnonzero(counts)
    total = np.concatenate([[0], np.cumsum(counts[kept])])
    at = 0
    while at < len(kept):
        stop = max(int(np.searchsorted(total, total[at] + _BLOCK, "right")) - 1, at + 1)
        rows, many = kept[at:stop], counts[kept[at:stop]]
        inside = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)
        a, b = np.repeat(own[rows], many), others[np.repeat(starts[rows], many) + inside]
        fine = a < b if flipped else slice(None)  # of mirrored pairs each is met from both sides
        yield np.minimum(a, b)[fine], np.maximum(a, b)[fine], flipped
        at = stop


def _once(found: list[Pairs]) -> Pairs:
    """Each pair once, sorted; one that is alike both ways counts the way of fewer bits."""
    empty = np.zeros(0, np.int64)
    if not found:
        return Pairs(empty, empty, empty, np.zeros(0, bool))
    parts = [np.concatenate([getattr(pairs, name) for pairs in found]) for name in Pairs.__dataclass_fields__]
    every = Pairs(*parts)
    every = every.take(np.lexsort((every.mirrored, every.bits, every.second, every.first)))
    new = np.ones(len(every), bool)
    new[1:] = (np.diff(every.first) != 0) | (np.diff(every.second) != 0)
    return every.take(new)


def _as_words(prints: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(prints).view(np.uint64)


@cache
def _frequencies() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(down, across) of the 256 lowest frequencies but 0, and uint8 (32,): the bits of those that are odd across."""
    down, across = np.divmod(np.arange(SIDE * SIDE), SIDE)
    order = np.lexsort((across, down**2 + across**2))[1 : BITS + 1]
    return down[order], across[order], np.packbits(across[order] % 2 == 1)


@cache
def _cosines() -> np.ndarray:
    """float32 (32, 32): the basis of the cosine transform (DCT-II), a row for each frequency."""
    k, x = np.arange(SIDE)[:, None], np.arange(SIDE)[None]
    return np.cos(np.pi * k * (2 * x + 1) / (2 * SIDE)).astype(np.float32)
