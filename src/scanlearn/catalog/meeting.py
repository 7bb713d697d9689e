"""Which hashes lie near each other, among those that agree in a group of bits: the compiled loop of ``duplicates``."""

from __future__ import annotations

import numba
import numpy as np


def near_pairs(
    words: np.ndarray,
    keys: np.ndarray,
    owner: np.ndarray,
    turn: tuple[np.ndarray, np.uint64],
    earlier: np.ndarray,
    radius: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of rows with equal keys and at most ``radius`` different bits, and pairs that are so with one of them turned.

    Args:
        words: uint64 (N, 4), hashes.
        keys: uint64 (N,), what rows must agree in to be compared.
        owner: integers (N,); rows of one owner are no pair.
        turn: what a hash, uint64 (4,), and its key are combined with by exclusive or to be turned (mirrored).
        earlier: uint64 (G, 4), groups of bits; pairs that agree in one of them were found before and are left out.
        radius: bits.

    Returns:
        (rows, later rows, bits in which they differ, whether one is turned), int64, int64, int64, bool, of n pairs.
    """
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    begins = np.flatnonzero(np.diff(ordered, prepend=~ordered[:1]))
    known = ordered[begins]
    at = np.minimum(np.searchsorted(known, known ^ turn[1]), len(known) - 1)
    partner = np.where(known[at] == known ^ turn[1], at, -1)
    found = _compare(words[order], owner[order], np.append(begins, len(order)), partner, turn[0], earlier, radius)
    rows = order[found[:, :2]]
    return rows.min(1), rows.max(1), found[:, 2], found[:, 3] == 1


@numba.njit(cache=True, nogil=True)
def _compare(words, owner, bounds, partner, turn, earlier, radius):  # type: ignore[no-untyped-def]
    # Rows are sorted: those of one key are bounds[k] to bounds[k + 1], those of the turned key are of partner[k].
    # Out come rows of (row, row, bits, turned).
    found, count = np.empty((64, 4), np.int64), 0
    for key in range(len(partner)):
        for turned in range(2):
            other = partner[key] if turned else key
            if other < key:  # no row has this key, or its turn was before
                continue
            for i in range(bounds[key], bounds[key + 1]):
                own = words[i] ^ turn if turned else words[i]
                a, b, c, d = own[0], own[1], own[2], own[3]
                for j in range(i + 1 if other == key else bounds[other], bounds[other + 1]):
                    bits = _ones(a ^ words[j, 0]) + _ones(b ^ words[j, 1])
                    bits += _ones(c ^ words[j, 2]) + _ones(d ^ words[j, 3])
                    if bits > radius or owner[i] == owner[j] or _agree(own ^ words[j], earlier):
                        continue
                    if count == len(found):
                        found = np.concatenate((found, np.empty_like(found)))
                    found[count] = i, j, bits, turned
                    count += 1
    return found[:count]


@numba.njit(cache=True, nogil=True)
def _agree(difference, groups):  # type: ignore[no-untyped-def]
    agree = False
    for group in groups:
        agree |= not (difference & group).any()
    return agree


@numba.njit(cache=True, nogil=True, inline="always")
def _ones(word):  # type: ignore[no-untyped-def]
    # Set bits of a uint64, in the form that compilers know as one instruction.
    word = word - ((word >> np.uint64(1)) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((word * np.uint64(0x0101010101010101)) >> np.uint64(56))
