"""Which of several methods rank first over many studies, data sets or seeds; the facts of a critical-difference diagram."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import binomtest, friedmanchisquare, rankdata, studentized_range

from scanlearn.errors import ScanlearnError


def mean_ranks(scores: Any, methods: Sequence[str], *, higher_is_better: bool = True, alpha: float = 0.05) -> dict:
    """Mean ranks of K methods over N blocks, Friedman's test, and Nemenyi's critical difference (Demsar 2006).

    In each block the best method has rank 1, ties share their mean rank.
    CD = q_alpha(K) / sqrt(2) * sqrt(K (K + 1) / (6 N)) with q the studentized range of infinite degrees of freedom: two
    methods whose mean ranks lie further apart differ, at alpha for all pairs together. The test knows no more than the
    ranks, so it sees less than ``compare_methods``, but joins figures of unlike scale. Blocks count as independent:
    data sets are; seeds and label counts that share their test patients are not, and speak of these patients only.

    Args:
        scores: (N, K) one figure of each method in each block (a data set, a label count, a seed). A block with a NaN
            is left out and counted.

    Returns:
        ``ranks`` {method: mean rank}, best first; ``critical_difference``; ``groups``, the largest sets of methods of
        which none differs from another, best first (bars of the diagram; a method on its own has none); ``p_friedman``
        (chi-square with ties corrected; two methods: exact sign test); ``blocks``, ``left_out``, ``alpha``.
        Refuses fewer than two methods or two whole blocks.
    """
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 2 or scores.shape[1] != len(methods):
        raise ValueError(f"scores {scores.shape} do not fit {len(methods)} methods")
    whole = np.isfinite(scores).all(axis=1)
    kept, count = scores[whole] * (-1 if higher_is_better else 1), len(methods)
    if count < 2 or len(kept) < 2:
        raise ScanlearnError(
            f"Mean ranks need two methods and two blocks with a figure of each; there are {count} and {len(kept)}."
        )
    means = rankdata(kept, axis=1).mean(axis=0)
    critical = (
        studentized_range.ppf(1 - alpha, count, np.inf) / np.sqrt(2) * np.sqrt(count * (count + 1) / 6 / len(kept))
    )
    order = np.argsort(means, kind="stable")
    return {
        "ranks": {methods[i]: float(means[i]) for i in order},
        "critical_difference": float(critical),
        "groups": [[methods[i] for i in order[rows]] for rows in _groups(means[order], critical)],
        "p_friedman": _friedman(kept),
        "blocks": len(kept),
        "left_out": int((~whole).sum()),
        "alpha": alpha,
    }


def _groups(means: np.ndarray, critical: float) -> list[slice]:
    # means rise; each group runs as far as the difference allows, and one inside another says nothing new.
    ends = np.searchsorted(means, means + critical, side="right")
    return [
        slice(start, int(end))
        for start, end in enumerate(ends)
        if end - start > 1 and (start == 0 or end > ends[start - 1])
    ]


def _friedman(scores: np.ndarray) -> float:
    if (scores == scores[:, :1]).all():
        return 1.0
    if scores.shape[1] > 2:
        return float(friedmanchisquare(*scores.T).pvalue)
    difference = scores[:, 0] - scores[:, 1]
    return float(binomtest(int((difference > 0).sum()), int((difference != 0).sum())).pvalue)
