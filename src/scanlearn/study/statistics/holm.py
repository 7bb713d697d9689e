"""Many tests, one error rate: Holm's correction."""

from __future__ import annotations

from typing import Any

import numpy as np


def holm(p: Any) -> np.ndarray:
    """Adjusted p-values of Holm's step-down test (Holm 1979) along the last axis.

    With p sorted, p_(1) <= ... <= p_(m): adjusted p_(i) = max over j <= i of min(1, (m - j + 1) p_(j)). Rejecting where
    it is below 0.05 makes one false rejection or more in at most 5 % of all families, however the tests depend on each
    other.

    Args:
        p: (..., m) p-values; NaN stands for a test that could not be made. It stays NaN and counts in m, so that a test
            that fails makes the others no easier.

    Returns:
        (..., m) adjusted p-values. Refuses p-values outside 0..1 with a ValueError.
    """
    p = np.asarray(p, np.float64)
    if ((p < 0) | (p > 1)).any():
        raise ValueError("p-values lie in 0..1")
    order = np.argsort(p, axis=-1, kind="stable")  # NaN last
    steps = np.take_along_axis(p, order, -1) * np.arange(p.shape[-1], 0, -1)
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, np.minimum(np.maximum.accumulate(steps, axis=-1), 1), -1)
    return adjusted


def simultaneous_level(family: int, level: float = 0.95) -> float:
    """The level at which each of `family` intervals holds its truth so that all do, with probability ``level``.

    Bonferroni: 1 - (1 - level) / family. Where such an interval leaves out 0, Holm's test rejects too; Holm's test
    may reject more. (Intervals that match Holm exactly exist, Strassburger and Bretz 2008, but say nothing about the
    size of what was found.)
    """
    if family < 1:
        raise ValueError("a family has one comparison or more")
    return 1 - (1 - level) / family
