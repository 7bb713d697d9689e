"""How large a difference is, apart from the unit of the figure; each effect with an interval over seeds and patients."""

from __future__ import annotations

import numpy as np
from scipy.stats import norm

from scanlearn.study.statistics.two_way import TwoWay, two_way
from scanlearn.tasks.bootstrap import LEVEL, PatientBootstrap, ratio

SIDES = {"hedges_g": (-np.inf, np.inf), "rank_biserial": (-1.0, 1.0), "superiority": (0.0, 1.0)}


def case_effects(
    a: np.ndarray, b: np.ndarray, patients: np.ndarray, *, bootstrap: int = 2000, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Effects of two methods on the same cases, each the mean over seeds of what one pair of networks shows.

    Args:
        a, b: (S, N) finite figures of each case; rows of one seed are a pair. A patient counts by the mean of its cases.
        patients: (N,).

    Returns:
        ``{name: {"value", "low", "high"}}`` for

        - ``hedges_g``: g_av = J (mean a - mean b) / sqrt((var a + var b) / 2) over patients, J = 1 - 3 / (8 P - 9)
          (Lakens 2013).
        - ``rank_biserial``: (R+ - R-) / (R+ + R-), the matched-pairs rank-biserial correlation: sums of the ranks of
          abs(a - b), zeros left out, of the patients on which a is better and worse (King, Rosopa, Minium 2011; Kerby
          2014).
        - ``superiority``: share of patients on which a is better, ties half (McGraw and Wong 1992; Vargha and Delaney
          2000).

        Intervals over seeds and patients (``two_way``). Where all patients point one way under every seed, resampling
        sees no variance: superiority then has Clopper's and Pearson's limit (1934), the rank-biserial none (NaN).
    """
    resamples = PatientBootstrap(patients, bootstrap, seed)
    size = np.bincount(resamples.index)
    means = np.zeros((2, len(a), resamples.patients))
    for side, figure in enumerate((a, b)):
        np.add.at(means[side].T, resamples.index, figure.T)
    means /= size
    counts = resamples.counts.astype(np.float64)
    draws: dict[str, list[np.ndarray]] = {name: [] for name in SIDES}
    for of_a, of_b in zip(*means, strict=True):
        difference = of_a - of_b
        draws["hedges_g"].append(_hedges(of_a, of_b, counts))
        draws["rank_biserial"].append(_rank_biserial(difference, counts))
        draws["superiority"].append(counts @ ((np.sign(difference) + 1) / 2) / resamples.patients)
    found = {name: two_way(np.stack(rows), resamples.patients) for name, rows in draws.items()}
    return {name: _estimate(name, way) for name, way in found.items()}


def separation(draws_a: np.ndarray, draws_b: np.ndarray, patients: int) -> dict[str, float]:
    """Difference of d' = sqrt(2) z(AUROC) (Salgado 2018): by how many standard deviations more a holds classes apart.

    Args:
        draws_a, draws_b: (S, 1 + B) AUROCs in the same resamples of ``patients`` patients. 0 and 1 count as
            1/(4 P) and 1 - 1/(4 P), for a perfect ranking of few patients is no infinite separation.
    """
    edge = 1 / (4 * max(patients, 1))
    apart = [np.sqrt(2) * norm.ppf(np.clip(d, edge, 1 - edge)) for d in (draws_a, draws_b)]
    return _estimate("hedges_g", two_way(apart[0] - apart[1], patients))


def _hedges(a: np.ndarray, b: np.ndarray, counts: np.ndarray) -> np.ndarray:
    # a, b (P,), counts (1+B, P) with row sums P.
    patients = len(a)
    variance = 0.0
    for values in (a, b):
        centred = values - values.mean()  # sums of squares of small deviations lose no digits
        mean = counts @ centred / patients
        variance = variance + (counts @ centred**2 - patients * mean**2) / max(patients - 1, 1)
    correction = 1 - 3 / (8 * patients - 9)
    return correction * ratio(counts @ (a - b) / patients, np.sqrt(np.maximum(variance, 0) / 2))


def _rank_biserial(difference: np.ndarray, counts: np.ndarray) -> np.ndarray:
    # Midranks of abs(difference) in each resample, where a patient stands as often as it was drawn.
    order = np.argsort(np.abs(difference), kind="stable")
    order = order[difference[order] != 0]
    if not len(order):
        return np.zeros(len(counts))
    size, weight = np.abs(difference[order]), counts[:, order]
    starts = np.flatnonzero(np.diff(size, prepend=-1.0))
    of_tie = np.add.reduceat(weight, starts, axis=1)
    below = np.cumsum(of_tie, axis=1) - of_tie
    rank = (below + (of_tie + 1) / 2)[:, np.cumsum(np.isin(np.arange(len(order)), starts)) - 1] * weight
    return ratio(rank @ np.sign(difference[order]), rank.sum(axis=1))


def _estimate(name: str, way: TwoWay) -> dict[str, float]:
    value = float(way.value)
    low, high = (float(v) for v in way.interval())
    least, most = SIDES[name]
    if way.standard_error == 0 and value in (least, most):
        low = high = float("nan")
        if name == "superiority":
            reach = float(((1 - LEVEL) / 2) ** (1 / way.patients))
            low, high = (reach, 1.0) if value else (0.0, 1 - reach)
    return {"value": value, "low": float(np.clip(low, least, most)), "high": float(np.clip(high, least, most))}
