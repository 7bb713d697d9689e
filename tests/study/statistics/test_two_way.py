import numpy as np
import pytest
from scipy.stats import t, ttest_1samp

from scanlearn.study.statistics.delong import delong
from scanlearn.study.statistics.simulate import Design, dice_studies, dice_truth, score_studies, score_truth
from scanlearn.study.statistics.two_way import TwoWay, two_way
from scanlearn.tasks.bootstrap import PatientBootstrap


def test_without_patients_it_is_the_t_test_over_seeds():
    values = np.array([0.03, 0.05, 0.02, 0.06, 0.01])
    way, expected = two_way(values[:, None], 0), ttest_1samp(values, 0)
    assert way.covers == ["seeds"]
    assert way.p_value() == pytest.approx(expected.pvalue)
    assert way.interval() == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_with_one_seed_it_speaks_of_patients_only():
    figures = np.random.default_rng(0).normal(0.1, 1, 80)
    draws = PatientBootstrap(np.arange(80), 20_000, 0).totals(figures)[None] / 80
    way, expected = two_way(draws, 80), ttest_1samp(figures, 0)
    assert way.covers == ["patients"] and way.seed_part == 0
    assert way.interval() == pytest.approx(tuple(expected.confidence_interval(0.95)), abs=0.004)
    assert way.p_value() == pytest.approx(expected.pvalue, abs=0.01)


def test_the_two_parts_are_those_of_the_analysis_of_variance():
    seeds, patients = 4, 50
    rng = np.random.default_rng(1)
    x = rng.normal(size=(seeds, 1)) + rng.normal(size=patients) + rng.normal(size=(seeds, patients))
    way = two_way(PatientBootstrap(np.arange(patients), 20_000, 0).totals(x.T).T / patients, patients)
    of_seeds, of_patients = x.mean(1, keepdims=True), x.mean(0, keepdims=True)
    rest = ((x - of_seeds - of_patients + x.mean()) ** 2).sum() / (seeds - 1) / (patients - 1)
    mean_square = seeds * of_patients.var(ddof=1)
    assert way.seed_part == pytest.approx(of_seeds.var(ddof=1) / seeds)
    assert way.patient_part == pytest.approx((mean_square - rest) / seeds / patients, rel=0.05)


def test_p_and_interval_agree():
    rng = np.random.default_rng(2)
    ways = TwoWay(rng.normal(0, 2, 300), rng.gamma(1, 0.5, 300), rng.gamma(1, 0.5, 300), 3, 40)
    for alpha in (0.05, 0.01):
        low, high = ways.interval(1 - alpha)
        np.testing.assert_array_equal(ways.p_value() < alpha, (low > 0) | (high < 0))


def test_the_critical_value_is_students_where_one_source_of_chance_is_alone_and_between_them_else():
    assert TwoWay(0, 1.0, 0.0, 3, 40).critical(0.05) == pytest.approx(t.ppf(0.975, 2))
    assert TwoWay(0, 0.0, 1.0, 3, 40).critical(0.05) == pytest.approx(t.ppf(0.975, 39))
    seeds, patients = t.ppf(0.975, 2), t.ppf(0.975, 39)
    assert TwoWay(0, 1.0, 1.0, 3, 40).critical(0.05) == pytest.approx((seeds + patients) / 2)
    weight = 4**1.5
    expected = (weight * seeds + patients) / (weight + 1)
    assert TwoWay(0, 4.0, 1.0, 3, 40).critical(0.05) == pytest.approx(expected)
    cochran_cox = (4 * t.ppf(1 - 5e-10, 2) + t.ppf(1 - 5e-10, 39)) / 5
    assert TwoWay(0, 4.0, 1.0, 3, 40).critical(1e-9) == pytest.approx(cochran_cox)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_a_smaller_alpha_never_has_a_narrower_interval(seeds):
    share, alpha = np.linspace(0, 1, 41)[:, None], np.geomspace(1e-6, 0.99, 200)
    assert (np.diff(TwoWay(0, share, 1 - share, seeds, 40).critical(alpha), axis=1) < 0).all()


def test_nothing_known_gives_no_interval_and_no_p():
    way = two_way(np.array([[0.8]]), 1)
    assert way.covers == [] and np.isnan(way.interval()).all() and np.isnan(way.bounded_interval()).all()
    assert np.isnan(way.p_value())


def test_equal_everywhere_has_p_1_and_another_constant_has_none():
    assert two_way(np.zeros((3, 10)), 5).p_value() == 1
    assert np.isnan(two_way(np.full((3, 10), 0.1), 5).p_value())


def test_resamples_without_the_figure_do_not_count():
    draws = np.random.default_rng(3).normal(size=(3, 201))
    holes = draws.copy()
    holes[1, 5], holes[0, 9] = np.nan, np.nan
    whole = np.delete(draws, (5, 9), axis=1)
    assert two_way(holes, 30).patient_part == pytest.approx(two_way(whole, 30).patient_part)
    assert two_way(np.where(np.arange(201) > 1, np.nan, draws), 30).covers == ["seeds"]


def test_a_bounded_interval_stays_inside_and_joins_the_plain_one_where_it_is_short():
    low, high = TwoWay(0.98, 0.0004, 0.0004, 3, 40).bounded_interval()
    assert 0 < low < 0.98 < high < 1
    short = TwoWay(0.5, 1e-8, 1e-8, 5, 100)
    np.testing.assert_allclose(short.bounded_interval(), short.interval(), atol=1e-6)


def test_the_smallest_difference_shown_is_found_as_often_as_it_says():
    rng, seed_sd, patient_sd, n = np.random.default_rng(4), 0.7, 1.0, 5_000
    design = TwoWay(0.0, seed_sd**2 / 5, patient_sd**2, 5, 200)
    shown = design.smallest_shown(0.05)
    by_seed = rng.normal(0, seed_sd, (n, 5))
    part = patient_sd**2 * rng.chisquare(199, n) / 199
    study = TwoWay(shown + by_seed.mean(1) + rng.normal(0, patient_sd, n), by_seed.var(1, ddof=1) / 5, part, 5, 200)
    assert np.mean(study.p_value() < 0.05) == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("kind", ["dice", "auroc"])
def test_the_simulated_truth_is_what_many_patients_and_seeds_come_to(kind):
    rng, design, levels = np.random.default_rng(5), Design(40, 2000, seed_sd=0.3), np.array([1.5, 0.7])
    if kind == "dice":
        found, truth = dice_studies(rng, 1, design, levels)[0].mean(axis=(1, 2)), dice_truth(design, levels)
    else:
        scores, positive, _ = score_studies(rng, 1, design, levels)
        found = delong(scores[0].reshape(80, -1), positive)[0].reshape(2, 40).mean(axis=1)
        truth = score_truth(design, levels)
    np.testing.assert_allclose(found, truth, atol=0.025)
