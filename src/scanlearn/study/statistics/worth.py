"""How many labels pre-training is worth: the count at which scratch reaches the same score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.optimize import isotonic_regression

from scanlearn.errors import ScanlearnError
from scanlearn.study.statistics.runs import Runs, on_common_cases
from scanlearn.study.statistics.two_way import two_way

GRID = 200  # counts tried between the smallest and the largest, evenly in log(count): steps of 2.3 % from 10 to 1,000


def worth_labels(scratch: Mapping[int, Runs], method: Runs, *, higher_is_better: bool = True) -> dict[str, Any]:
    """The label count at which a network from scratch reaches the mean score that a method has, with a 95 % interval.

    The scratch means are made monotone (isotonic regression) and joined by straight lines over log(count); the value
    is where they first reach the method's mean. Between two counts far apart the true curve is rarely straight: where
    the answer matters, measure scratch at counts near it.

    The interval holds every count L at which scratch(L) - method is not told from 0: the hull of those whose 95 %
    interval over seeds and patients (``two_way``; both curves paired by seed and resample) holds 0. It is Fieller's
    idea (1954), and needs no percentiles of three or five resampled seeds, which are too narrow. Nothing is ever
    extrapolated: an answer beyond the counts that were run is one, like "more than 1,000".

    Args:
        scratch: {label count: runs}, two counts or more.
        method: runs of the other method, at whatever label count is asked about.

    Returns:
        ``value``, ``low``, ``high``, each {"labels": a count, "sign": "=", "<" or ">"}: "<" is fewer than the
        smallest count that was run, ">" more than the largest. ``covers`` as ``compare_methods``; with neither seeds
        nor patients the interval is {"labels": NaN, "sign": "="}. ``counts`` that were run, ``seeds`` that all have,
        ``cases_left_out`` (without a figure somewhere).
        Refuses fewer than two counts, no seed common to all, and counts below 1.
    """
    counts = sorted(scratch)
    if len(counts) < 2 or counts[0] < 1:
        raise ScanlearnError(f"Labels saved need scratch at two label counts or more; there are {counts}.")
    seeds = [s for s in method.seeds if all(s in runs.seeds for runs in scratch.values())]
    if not seeds:
        raise ScanlearnError("The method and scratch have no seed in common at all label counts: run the same seeds.")
    sign = 1.0 if higher_is_better else -1.0
    runs, left_out = on_common_cases([r.of_seeds(seeds) for r in (*(scratch[c] for c in counts), method)])
    curve = sign * np.stack([r.draws for r in runs[:-1]])  # (counts, S, 1+B)
    target = sign * runs[-1].draws
    means = isotonic_regression(curve[:, :, 0].mean(axis=1)).x
    low, high, covers = _not_told_apart(counts, curve, target, runs[-1].patients)
    value = _first_reach(counts, means, target[:, 0].mean())
    facts = {"value": value, "low": low, "high": high, "covers": covers, "counts": counts, "seeds": seeds}
    return {**facts, "cases_left_out": left_out}


def _first_reach(counts: list[int], means: np.ndarray, target: float) -> dict[str, Any]:
    if target < means[0]:
        return _answer(counts[0], "<")
    if target > means[-1]:
        return _answer(counts[-1], ">")
    right = int(np.searchsorted(means, target))
    if right == 0:
        return _answer(counts[0])
    share = (target - means[right - 1]) / (means[right] - means[right - 1])
    logs = np.log(counts)
    return _answer(float(np.exp(logs[right - 1] + share * (logs[right] - logs[right - 1]))))


def _not_told_apart(
    counts: list[int], curve: np.ndarray, target: np.ndarray, patients: int
) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    logs = np.log(counts)
    grid = np.union1d(np.linspace(logs[0], logs[-1], GRID), logs)
    left = np.clip(np.searchsorted(logs, grid, side="right") - 1, 0, len(counts) - 2)
    share = (grid - logs[left]) / (logs[left + 1] - logs[left])
    ends = []
    block = max(1, 2**20 // target.size)  # all draws of all counts would fill the memory
    for start in range(0, len(grid), block):
        rows, w = left[start : start + block], share[start : start + block, None, None]
        way = two_way((1 - w) * curve[rows] + w * curve[rows + 1] - target, patients)
        ends.append(way.interval())
    if not way.covers:
        return _answer(float("nan")), _answer(float("nan")), []
    lower, upper = np.concatenate(ends, axis=1)
    reaches, exceeds = np.flatnonzero(upper >= 0), np.flatnonzero(lower <= 0)
    # The last count that was told apart, so that the interval is not too narrow by a step of the grid.
    first = reaches[0] - 1 if len(reaches) else len(grid)
    last = exceeds[-1] + 1 if len(exceeds) else -1
    low, high = (
        _answer(counts[0], "<")
        if at < 0
        else _answer(counts[-1], ">")
        if at == len(grid)
        else _answer(np.exp(grid[at]))
        for at in (first, last)
    )
    return low, high, way.covers


def _answer(labels: float, sign: str = "=") -> dict[str, Any]:
    return {"labels": float(labels), "sign": sign}
