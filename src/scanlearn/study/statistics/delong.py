"""AUROCs measured on the same cases, and how they vary together: DeLong's structural components."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import norm, rankdata

from scanlearn.errors import ScanlearnError
from scanlearn.tasks.bootstrap import LEVEL


def delong(scores: Any, positive: Any, patients: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """AUROCs of M classifiers on the same N cases, and their covariance over cases, or patients, that could be drawn.

    V10_i = share of negatives that positive i outscores, V01_j = share of positives that outscore negative j, ties
    half; both from midranks in O(N log N) (Sun and Xu 2014). With every case on its own
    Cov = S10 / m + S01 / n, the sample covariances of V10 and V01 (DeLong, DeLong and Clarke-Pearson 1988). With
    patients the components less the AUROC are first summed over each patient's cases, and what a patient's positives
    and negatives have in common is added (Obuchowski 1997):
    Cov = [I10/(I10-1) B10] / m^2 + [I01/(I01-1) B01] / n^2 + [I/(I-1) (B11 + B11')] / (m n), with B the sums of
    products over patients and I10, I01, I how many have a positive, a negative, any case.

    Args:
        scores: (M, N), higher for positive.
        positive: (N,) bool.
        patients: (N,) whose cases they are; None: each case is a patient.

    Returns:
        AUROCs (M,) and covariance (M, M). Refuses fewer than two patients with a positive or with a negative case.
    """
    scores, positive = np.atleast_2d(np.asarray(scores, np.float64)), np.asarray(positive, bool)
    patients = np.arange(len(positive)) if patients is None else np.asarray(patients)
    if scores.ndim != 2 or scores.shape[1:] != positive.shape or positive.shape != patients.shape:
        raise ValueError(f"scores {scores.shape}, positive {positive.shape} and patients {patients.shape} do not fit")
    if not np.isfinite(scores).all():
        raise ScanlearnError("DeLong's test needs a score for every case: some are no numbers.")
    index = np.unique(patients, return_inverse=True)[1]
    groups = [np.unique(index[kind]) for kind in (positive, ~positive)]
    if min(len(group) for group in groups) < 2:
        raise ScanlearnError(
            f"DeLong's test needs two patients with positive and two with negative cases; there are {len(groups[0])} "
            f"and {len(groups[1])}: enlarge the test part."
        )
    above, below, auc = _components(scores, positive)
    sums = np.zeros((2, len(scores), index.max() + 1))
    for part, components, kind in ((0, above, positive), (1, below, ~positive)):
        np.add.at(sums[part].T, index[kind], (components - auc[:, None]).T)
        sums[part] /= kind.sum()
    both = sums[0] @ sums[1].T
    covariance = both + both.T
    covariance *= sums.shape[2] / (sums.shape[2] - 1)
    for part, group in zip(sums, groups, strict=True):
        covariance += part @ part.T * len(group) / (len(group) - 1)
    return auc, covariance


def delong_test(a: Any, b: Any, positive: Any, patients: Any = None) -> dict[str, float]:
    """Are two classifiers' AUROCs equal, in patients that could be drawn? The networks themselves are fixed.

    Args:
        a, b: scores (N,), or (S, N) of S networks whose mean AUROC counts.
        positive, patients: as ``delong``.

    Returns:
        ``auc_a``, ``auc_b``, ``difference`` a - b, its ``standard_error``, 95 % interval ``low``..``high``, ``z`` and
        two-sided ``p``. Two classifiers that rank all cases alike have z 0 and p 1.
    """
    a, b = (np.atleast_2d(np.asarray(v, np.float64)) for v in (a, b))
    auc, covariance = delong(np.concatenate([a, b]), positive, patients)
    contrast = np.concatenate([np.full(len(a), 1 / len(a)), np.full(len(b), -1 / len(b))])
    difference = float(contrast @ auc)
    error = float(np.sqrt(max(contrast @ covariance @ contrast, 0)))
    if error < 1e-12:  # rounding: no case speaks for either
        error, z = 0.0, 0.0 if abs(difference) < 1e-12 else float("nan")
    else:
        z = difference / error
    half = float(norm.ppf((1 + LEVEL) / 2)) * error
    return {
        "auc_a": float(auc[: len(a)].mean()),
        "auc_b": float(auc[len(a) :].mean()),
        "difference": difference,
        "standard_error": error,
        "low": difference - half,
        "high": difference + half,
        "z": z,
        "p": float(2 * norm.sf(abs(z))),
    }


def exchange_terms(a: np.ndarray, b: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """(N,) how much each case adds to AUROC(a) - AUROC(b); where a and b swap a case's scores, its term changes sign.

    The difference after any swaps is the sum of the terms with their signs, so that the exact permutation test of
    Bandos, Rockette and Gur (2005) is a sign test on these terms. Scores (N,) count by their midranks within each
    classifier, for two classifiers need not share a scale.
    """
    a, b, count = rankdata(a), rankdata(b), int(positive.sum())
    terms = np.empty(len(positive))
    for kind, sign in ((positive, 1.0), (~positive, -1.0)):
        others = np.sort(np.concatenate([a[~kind], b[~kind]]))
        outscored = [np.searchsorted(others, v[kind], s) for v in (a, b) for s in ("left", "right")]
        terms[kind] = sign * (outscored[0] + outscored[1] - outscored[2] - outscored[3]) / 4
    return terms / (count * (len(positive) - count))


def _components(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # V10 (M, m), V01 (M, n), AUROC (M,).
    count = int(positive.sum())
    others = positive.size - count
    ranks = rankdata(scores, axis=1)
    above = (ranks[:, positive] - rankdata(scores[:, positive], axis=1)) / others
    below = 1 - (ranks[:, ~positive] - rankdata(scores[:, ~positive], axis=1)) / count
    return above, below, above.mean(axis=1)
