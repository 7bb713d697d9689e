"""Is one network better than another on the same cases, or over the same seeds? Paired differences with an interval and
p-values; what a report says about a pre-trained network and its twin trained from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import wilcoxon

from scanlearn.tasks.bootstrap import PatientBootstrap, estimate, ratio
from scanlearn.tasks.classification_metrics import macro_draws

# Up to this many patients or seeds every one of the 2**n sign patterns is tried, and the p-value is exact.
EXACT_UP_TO = 14


def paired_comparison(
    a: Any, b: Any, groups: Any = None, *, bootstrap: int = 2000, permutations: int = 10_000, seed: int = 0
) -> dict[str, Any]:
    """Difference of the means of a and b (N,), measured on the same N cases or with the same N seeds.

    With fewer than about ten groups percentile intervals are too narrow; there the p-values are the better judge.

    Args:
        a, b: one figure for each case (a Dice) or each seed (an AUROC). Pairs with a NaN are left out and counted.
        groups: (N,) the patient of each case; both resampling and sign changes take all of a patient's cases together.
            None: every pair stands for itself, as seeds do.

    Returns:
        ``mean_a``, ``mean_b``, ``difference`` (an estimate of mean a - mean b, see ``bootstrap.estimate``),
        ``p_permutation`` (two-sided, signs of the differences changed at random; exact up to 14 groups), ``p_wilcoxon``
        (two-sided, signed ranks of the groups' mean differences), ``smallest_p`` that a permutation of so few groups
        can give at all (5 seeds: 0.0625), ``a_better``, ``b_better``, ``equal`` (groups), ``pairs``, ``groups``,
        ``left_out``.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    groups = np.arange(len(a)) if groups is None else np.asarray(groups)
    if a.ndim != 1 or a.shape != b.shape or a.shape != groups.shape:
        raise ValueError(f"a {a.shape}, b {b.shape} and groups {groups.shape} are not paired")
    whole = np.isfinite(a) & np.isfinite(b)
    a, b, difference = a[whole], b[whole], a[whole] - b[whole]
    resamples = PatientBootstrap(groups[whole], bootstrap, seed)
    sums = np.bincount(resamples.index, difference, minlength=resamples.patients)
    means = sums / np.bincount(resamples.index, minlength=resamples.patients)
    draws = ratio(resamples.totals(difference), resamples.totals(np.ones(len(difference))))
    return {
        "mean_a": float(a.mean()) if len(a) else float("nan"),
        "mean_b": float(b.mean()) if len(b) else float("nan"),
        "difference": estimate(draws),
        "p_permutation": _sign_test(sums, permutations, seed),
        "p_wilcoxon": _wilcoxon(means),
        "smallest_p": min(1.0, 2.0 ** (1 - resamples.patients)),
        "a_better": int((means > 0).sum()),
        "b_better": int((means < 0).sum()),
        "equal": int((means == 0).sum()),
        "pairs": len(a),
        "groups": resamples.patients,
        "left_out": int((~whole).sum()),
    }


def paired_classification(
    scores_a: Any,
    scores_b: Any,
    codes: Any,
    classes: Sequence[str],
    patients: Any,
    *,
    figure: str = "auroc",
    bootstrap: int = 2000,
    seed: int = 0,
) -> dict[str, float]:
    """Difference a - b of a macro figure of two classifiers on the same cases: an estimate, see ``bootstrap.estimate``.

    An AUROC is no mean over cases, so both classifiers are judged on the same resampled patients. Arguments as
    ``classification_metrics``; ``figure`` is one of its ``FIGURES``, at threshold 0.5 where it needs one.
    """
    first, second = (macro_draws(s, codes, classes, patients, figure, bootstrap, seed) for s in (scores_a, scores_b))
    return estimate(first - second)


def _wilcoxon(means: np.ndarray) -> float:
    if not np.any(means):
        return 1.0 if len(means) else float("nan")
    return float(wilcoxon(means).pvalue)


def _sign_test(sums: np.ndarray, permutations: int, seed: int) -> float:
    """Two-sided p of the sum (n,) when each sign is as likely as its opposite."""
    count = len(sums)
    if count == 0:
        return float("nan")
    # Sums that are equal on paper may differ in their last digits.
    reached = abs(sums.sum()) * (1 - 1e-9) - 1e-12 * np.abs(sums).sum()
    if count <= EXACT_UP_TO:
        signs = 1.0 - 2.0 * ((np.arange(2**count)[:, None] >> np.arange(count)) & 1)
        return float((np.abs(signs @ sums) >= reached).mean())
    generator, extreme = np.random.default_rng(seed), 1  # the sample itself is one of the patterns: p is never 0
    for block in np.array_split(np.arange(permutations), 1 + permutations * count // 2**20):
        signs = 1.0 - 2.0 * generator.integers(0, 2, (len(block), count))
        extreme += int((np.abs(signs @ sums) >= reached).sum())
    return extreme / (permutations + 1)
