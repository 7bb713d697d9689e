import numpy as np
import pytest

from scanlearn.errors import ScanlearnError
from scanlearn.study.statistics import Runs, case_runs, worth_labels, worth_sentence

PATIENTS = np.arange(60)


def runs(mean, seed=0, seeds=5, noise=0.02):
    rng = np.random.default_rng(seed)
    hard = np.random.default_rng(99).normal(0, 0.05, 60)
    values = mean + hard + rng.normal(0, noise, (seeds, 1)) + rng.normal(0, 0.02, (seeds, 60))
    return case_runs(values - values.mean() + mean, PATIENTS, bootstrap=300)


def scratch(*means):
    return {count: runs(mean, seed) for seed, (count, mean) in enumerate(zip((50, 100, 1000), means, strict=True))}


def test_the_count_lies_where_the_line_over_log_count_meets_the_score():
    worth = worth_labels(scratch(0.5, 0.6, 0.8), runs(0.7, 7))
    assert worth["value"] == {"labels": pytest.approx(np.sqrt(100 * 1000)), "sign": "="}
    assert worth["low"]["labels"] < worth["value"]["labels"] < worth["high"]["labels"]
    assert worth["covers"] == ["seeds", "patients"]
    exact = worth_labels(scratch(0.5, 0.6, 0.8), runs(0.6, 7))
    assert exact["value"]["labels"] == pytest.approx(100, rel=1e-6)


def test_a_dip_of_the_curve_is_levelled():
    worth = worth_labels(scratch(0.62, 0.58, 0.8), runs(0.7, 7))
    expected = 100 * 10 ** ((0.7 - 0.6) / (0.8 - 0.6))
    assert worth["value"]["labels"] == pytest.approx(expected)


def test_nothing_is_extrapolated():
    above = worth_labels(scratch(0.5, 0.6, 0.8), runs(0.9, 7))
    assert above["value"] == above["low"] == above["high"] == {"labels": 1000, "sign": ">"}
    below = worth_labels(scratch(0.5, 0.6, 0.8), runs(0.4, 7))
    assert below["value"] == below["low"] == below["high"] == {"labels": 50, "sign": "<"}
    near = worth_labels(scratch(0.5, 0.6, 0.8), runs(0.79, 7))
    assert near["value"]["sign"] == "=" and near["high"] == {"labels": 1000, "sign": ">"}
    assert "to more than 1,000)" in worth_sentence("moco_v2", 100, near)
    assert "scratch with more than 1,000 labels (95 % interval: the same)" in worth_sentence("moco", 100, above)


def test_a_distance_counts_downwards():
    distance = {count: runs(-mean, i) for i, (count, mean) in enumerate(((50, -9.0), (500, -5.0)))}
    worth = worth_labels(distance, runs(7.0, 7), higher_is_better=False)
    assert worth["value"]["labels"] == pytest.approx(np.sqrt(50 * 500), rel=1e-6)
    assert worth["low"]["labels"] < worth["high"]["labels"]


def test_more_noise_between_seeds_makes_a_wider_interval():
    widths = []
    for noise in (0.005, 0.05):
        curve = {c: runs(m, i, noise=noise) for i, (c, m) in enumerate(((50, 0.5), (5000, 0.8)))}
        worth = worth_labels(curve, runs(0.65, 7, noise=noise))
        widths.append(np.log(worth["high"]["labels"] / worth["low"]["labels"]))
    assert widths[1] > 2 * widths[0]


def test_without_seeds_and_patients_there_is_no_interval_and_it_is_said():
    bare = {count: Runs(np.array([[m]]), 0, (0,)) for count, m in ((50, 0.5), (100, 0.6))}
    worth = worth_labels(bare, Runs(np.array([[0.55]]), 0, (0,)))
    assert worth["covers"] == [] and np.isnan(worth["low"]["labels"])
    assert "there is no interval" in worth_sentence("moco_v2", 20, worth)


def test_one_seed_speaks_of_patients_only():
    one = {c: r.of_seeds([0]) for c, r in scratch(0.5, 0.6, 0.8).items()}
    worth = worth_labels(one, runs(0.7, 7))
    assert worth["covers"] == ["patients"] and worth["seeds"] == [0]
    assert "chance in patients only" in worth_sentence("moco_v2", 100, worth)


def test_a_case_without_a_figure_somewhere_is_left_out_everywhere():
    curve, method = scratch(0.5, 0.6, 0.8), runs(0.7, 7)
    holes = curve[100].cases.copy()
    holes[2, 5] = np.nan
    curve[100] = case_runs(holes, PATIENTS, bootstrap=300)
    worth = worth_labels(curve, method)
    assert worth["cases_left_out"] == 1
    without = {c: case_runs(np.delete(r.cases, 5, axis=1), PATIENTS[1:]) for c, r in curve.items()}
    assert worth["low"] == worth_labels(without, case_runs(np.delete(method.cases, 5, axis=1), PATIENTS[1:]))["low"]


def test_one_count_or_no_common_seed_is_refused():
    with pytest.raises(ScanlearnError, match="two label counts"):
        worth_labels({50: runs(0.5)}, runs(0.6))
    other = Runs(runs(0.6).draws, 60, (10, 11, 12, 13, 14))
    with pytest.raises(ScanlearnError, match="no seed in common"):
        worth_labels(scratch(0.5, 0.6, 0.7), other)
