"""Which of the scans comes when: an endless walk over them, plain, or with a share of the samples for each group.

A walk is a function of the seed and of the number of a sample alone, so it can be entered anywhere, by any number of
workers and ranks, without having been walked until there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from scanlearn.catalog.table import Catalog
from scanlearn.errors import ScanlearnError, unknown
from scanlearn.keys import key_of
from scanlearn.randomness import permutation

BLOCK = 4096
NAMES = ("scan_id", "paths", "patient_id", "study_id", "mask_path", "sha256")  # columns whose words no message may show


@dataclass(frozen=True)
class Shares:
    """What part of the samples each group of scans gets.

    group: int64 (n,), the group of each entry that is walked over, 0..G-1. weights: (G,), 0 or more, any sum. block:
    every so many samples the groups have their shares exactly, and between them they come in a random order; the batch
    size gives every batch the same mixture.
    """

    group: np.ndarray
    weights: tuple[float, ...]
    block: int = BLOCK

    def quotas(self) -> np.ndarray:
        """int64 (G,): samples of each group in a block; the nearest whole numbers, and one for the smallest weight."""
        wanted = np.asarray(self.weights, np.float64)
        exact = wanted / wanted.sum() * self.block
        counts = np.maximum(np.floor(exact), exact > 0).astype(np.int64)
        largest_remainders = np.argsort(counts - exact, kind="stable")
        counts[largest_remainders[: max(self.block - counts.sum(), 0)]] += 1
        counts[np.argmax(counts)] -= counts.sum() - self.block  # what the smallest weights got beyond their share
        return counts


class Walk:
    """Every entry once in each pass, each pass in a new order."""

    def __init__(self, count: int, seed: int):
        self.count, self.seed = count, seed

    def items(self, times: np.ndarray) -> np.ndarray:
        """int64, shape of ``times``: which entry (0..count-1) each of these samples is."""
        items = np.empty(times.shape, np.int64)
        for epoch in np.unique(times // self.count):
            now = times // self.count == epoch
            items[now] = _order(self.seed, int(epoch), self.count)[times[now] % self.count]
        return items


class SharedWalk:
    """Every group has a walk of its own, and in each block of samples as many steps of it as its share.

    So all entries of a group are visited equally often, whatever the weights.
    """

    def __init__(self, shares: Shares, seed: int):
        self.quotas, self.block = shares.quotas(), shares.block
        self.ends = np.cumsum(self.quotas)
        self.seed = key_of(seed, "blocks")
        self.members = [np.flatnonzero(shares.group == g) for g in range(len(self.quotas))]
        self.walks = [Walk(len(rows), key_of(seed, "group", g)) for g, rows in enumerate(self.members)]

    def items(self, times: np.ndarray) -> np.ndarray:
        """int64, shape of ``times``: which entry each of these samples is."""
        place = Walk(self.block, self.seed).items(times)
        group = np.searchsorted(self.ends, place, side="right")
        items = np.empty(times.shape, np.int64)
        for g in np.unique(group):
            now = group == g
            turn = times[now] // self.block * self.quotas[g] + place[now] - (self.ends[g] - self.quotas[g])
            items[now] = self.members[g][self.walks[g].items(turn)]
        return items


@lru_cache(maxsize=32)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return permutation(seed, epoch, count)


def shares_of(
    catalog: Catalog, rows: np.ndarray, sampling: Mapping[str, Mapping[str, float]] | None
) -> tuple[np.ndarray, Shares | None]:
    """(rows that are drawn at all, their shares), from a recipe's ``sampling: {dataset: {lidc: 1, deeplesion: 1}}``.

    A weight is the part of all samples that the group gets, whatever its size; 0 leaves its rows out. None: all rows,
    equally often.

    Raises ScanlearnError for another number of columns than one, an unknown column or name, a word of these rows
    without a weight, and weights that are none.
    """
    if sampling is None:
        return rows, None
    if len(sampling) != 1:
        raise ScanlearnError(f"sampling takes one column, such as {{dataset: {{a: 1, b: 1}}}}, not {len(sampling)}.")
    ((column, weights),) = sampling.items()
    if column in NAMES:
        raise ScanlearnError(f"sampling takes a column of groups such as dataset or modality, not {column}.")
    if not isinstance(weights, Mapping) or not weights:
        raise ScanlearnError(f"sampling.{column} needs a weight for each of its words, such as {{a: 1, b: 2}}.")
    words = catalog.words(column).to_pylist()
    codes = catalog.codes(column)[rows]
    names = _checked(column, weights, words, [words[code] for code in np.unique(codes)])
    table = np.full(len(words), -1, np.int64)
    for place, name in enumerate(names):
        table[words.index(name)] = place
    kept = table[codes] >= 0
    if not kept.any():
        raise ScanlearnError(f"sampling.{column} leaves no scan to train on: give a name more than 0.")
    return rows[kept], Shares(table[codes[kept]], tuple(float(weights[name]) for name in names))


def _checked(column: str, weights: Mapping[str, float], words: Sequence[str], present: Sequence[str]) -> list[str]:
    """The names with a weight above 0."""
    for name, weight in weights.items():
        if not name or name not in words:
            raise unknown(f"word in the column {column!r}", name, [word for word in words if word])
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
            raise ScanlearnError(f"sampling.{column}.{name} must be a number, 0 or more, not {weight!r}.")
    lacking = [name for name in present if name not in weights]
    if lacking:
        shown = repr(lacking[0]) if lacking[0] else "scans without a word"
        raise ScanlearnError(f"sampling.{column} gives no weight to {shown}: name it, with 0 to leave it out.")
    names = [name for name, weight in weights.items() if weight > 0]
    if len(names) > BLOCK // 4:
        raise ScanlearnError(f"sampling.{column} names {len(names)} groups; {BLOCK // 4} can have a weight.")
    for name in names:
        if name not in present:
            raise ScanlearnError(f"sampling.{column}.{name} has no scan to train on: give it the weight 0.")
    return names
