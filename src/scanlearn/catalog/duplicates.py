"""Images that look alike, found by their hashes: every pair within a distance, among a million in minutes.

A look is a grey picture of 32 x 32 pixels of a whole scan (``scans.fingerprints``). Its hash is 256 bits, the signs of
the lowest frequencies of its cosine transform: scaling, re-encoding and another window hardly move them, and a picture
mirrored left-right has the same bits but for those of the odd frequencies across, so both are found at once.

Pairs within ``RADIUS`` bits must agree in one of ``RADIUS + 1`` groups of bits (pigeonhole): rows are sorted by each
group, and only rows of equal bits are compared (``catalog.meeting``), so no such pair is missed. Pairs are then looked
at again: the correlation of their looks, without what is smooth in them, tells a copy from two patients in the same
position.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

SIDE = 32  # pixels of a look
BITS = 256
RADIUS = 15  # bits in which two copies may differ
LIKENESS = 0.95  # correlation of the looks of two copies, at least
_EXACT = 1 << 17  # cosines are multiples of 1 / _EXACT: the sums of their products with pixels are exact in float64
_AT_ONCE = 1024  # looks


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
    """uint8 (N, 32): the 256 bits of looks uint8 (N, 32, 32), the same on every machine and among any other looks."""
    found = np.empty((len(looks), BITS // 8), np.uint8)
    down, across, _ = _frequencies()
    basis = _cosines()
    for start in range(0, len(looks), _AT_ONCE):
        block = looks[start : start + _AT_ONCE].astype(np.float64)
        rows = (block.reshape(-1, SIDE) @ basis).reshape(len(block), SIDE, -1)  # a large product, not one for each look
        spectrum = (rows.transpose(0, 2, 1).reshape(-1, SIDE) @ basis).reshape(len(block), -1, basis.shape[1])
        found[start : start + _AT_ONCE] = np.packbits(spectrum[:, across, down] > 0, axis=1)
    return found


def mirrored(prints: np.ndarray) -> np.ndarray:
    """uint8 (N, 32): the hashes of the same looks mirrored left-right."""
    return prints ^ _frequencies()[2]


def alike(prints: np.ndarray, apart: np.ndarray | None = None, *, radius: int = RADIUS) -> Pairs:
    """All pairs of hashes uint8 (N, 32) that differ in at most ``radius`` bits, as they are or one of them mirrored.

    apart: numbers (N,), of patients or of sources; only pairs of two numbers count. A hash of zeros is of no picture.
    """
    from scanlearn.catalog.meeting import near_pairs  # compiled: only those who compare wait for it

    kept = np.flatnonzero(prints.any(1))
    shown, turn = prints[kept], _frequencies()[2]
    owner = kept if apart is None else np.asarray(apart)[kept].astype(np.int64)  # one type, compiled once
    words, groups = _as_words(shown), _groups(shown, radius + 1)
    masks = np.stack([_as_words(_only(group)) for group in groups])
    parts = []
    for number, group in enumerate(groups):
        turned = _as_words(turn), _keys(turn[None], group)[0]
        parts.append(near_pairs(words, _keys(shown, group), owner, turned, masks[:number], radius))
    first, second, bits, flipped = (np.concatenate(cells) for cells in zip(*parts, strict=True))
    return _once(Pairs(kept[first], kept[second], bits, flipped))


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
    """The bits dealt to ``count`` groups, those that divide the rows best first, so that every group divides them well.

    At most 64 to a group, as many as a number has.
    """
    share = np.unpackbits(prints[:: max(1, len(prints) // 65_536)], axis=1).mean(0) if len(prints) else np.zeros(BITS)
    order = np.argsort(np.abs(share - 0.5), kind="stable")
    return [order[start::count][:64] for start in range(count)]


def _keys(prints: np.ndarray, group: np.ndarray) -> np.ndarray:
    """uint64 (N,): the bits of one group as a number."""
    keys = np.zeros(len(prints), np.uint64)
    for bit in group:
        keys = keys << np.uint64(1) | (prints[:, bit // 8] >> np.uint8(7 - bit % 8) & np.uint8(1))
    return keys


def _only(group: np.ndarray) -> np.ndarray:
    """uint8 (32,): the hash whose bits are those of a group."""
    return np.packbits(np.isin(np.arange(BITS), group))


def _once(pairs: Pairs) -> Pairs:
    """Each pair once, sorted; one that is alike both ways counts the way of fewer bits."""
    pairs = pairs.take(np.lexsort((pairs.mirrored, pairs.bits, pairs.second, pairs.first)))
    new = np.ones(len(pairs), bool)
    new[1:] = (np.diff(pairs.first) != 0) | (np.diff(pairs.second) != 0)
    return pairs.take(new)


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
    """float64 (32, F): the basis of the cosine transform (DCT-II), a column for each of the frequencies in use."""
    k = np.arange(max(part.max() for part in _frequencies()[:2]) + 1)[None]
    waves = np.cos(np.pi * k * (2 * np.arange(SIDE)[:, None] + 1) / (2 * SIDE))
    return np.rint(waves * _EXACT) / _EXACT
