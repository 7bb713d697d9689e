import numpy as np
import pytest
from scipy.stats import norm, rankdata

from scanlearn.study.statistics.effects import _rank_biserial, case_effects, separation


def plain(a, b):
    """The effects of one pair of networks by their formulas."""
    n, d = len(a), a - b
    g = d.mean() / np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2) * (1 - 3 / (4 * (2 * n) - 9))
    ranks = rankdata(np.abs(d[d != 0]))
    signs = np.sign(d[d != 0])
    return {
        "hedges_g": g,
        "rank_biserial": (ranks[signs > 0].sum() - ranks[signs < 0].sum()) / ranks.sum(),
        "superiority": np.mean(d > 0) + np.mean(d == 0) / 2,
    }


def figures(seed=0, seeds=3, patients=40):
    rng = np.random.default_rng(seed)
    hard = rng.normal(0.7, 0.1, patients)
    return np.round(hard + rng.normal(0.02, 0.05, (2, seeds, patients)) + np.array([0.03, 0])[:, None, None], 2)


def test_the_values_are_the_formulas_averaged_over_seeds():
    a, b = figures()
    expected = [plain(x, y) for x, y in zip(a, b, strict=True)]
    found = case_effects(a, b, np.arange(40), bootstrap=200)
    for name, estimate in found.items():
        assert estimate["value"] == pytest.approx(np.mean([e[name] for e in expected]))
        assert estimate["low"] < estimate["value"] < estimate["high"]


def test_ranks_in_a_resample_are_those_of_the_patients_drawn():
    rng = np.random.default_rng(1)
    d = np.round(rng.normal(0.1, 1, 25), 1)
    counts = rng.multinomial(25, np.full(25, 1 / 25), 50).astype(float)
    for weight, found in zip(counts, _rank_biserial(d, counts), strict=True):
        drawn = np.repeat(d, weight.astype(int))
        assert found == pytest.approx(plain(drawn, np.zeros(25))["rank_biserial"] if np.any(drawn) else np.nan)


def test_a_patient_counts_once_however_many_scans():
    a, b = figures()
    once = case_effects(a, b, np.arange(40), bootstrap=50)
    twice = case_effects(np.repeat(a, 2, 1), np.repeat(b, 2, 1), np.repeat(np.arange(40), 2), bootstrap=50)
    for name in once:
        assert once[name] == pytest.approx(twice[name])


def test_where_all_patients_point_one_way_the_share_is_not_called_certain():
    b = figures()[1]
    found = case_effects(b + 0.1, b, np.arange(40), bootstrap=50)
    assert found["superiority"] == {"value": 1.0, "low": pytest.approx(0.025 ** (1 / 40)), "high": 1.0}
    assert found["rank_biserial"]["value"] == 1 and np.isnan(found["rank_biserial"]["low"])
    same = case_effects(b, b, np.arange(40), bootstrap=50)
    assert same["hedges_g"]["value"] == 0 and same["superiority"]["value"] == 0.5


def test_separation_of_classes_is_that_of_two_normal_curves():
    auc = norm.cdf(np.array([1.5, 1.0]) / np.sqrt(2))
    draws = np.broadcast_to(auc[:, None, None], (2, 3, 20))
    assert separation(draws[0], draws[1], 50)["value"] == pytest.approx(0.5)
    assert np.isfinite(separation(np.ones((3, 20)), draws[1], 50)["value"])
