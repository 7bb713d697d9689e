"""A small edition of bench/study_coverage.py: promises kept on simulated studies, within what chance allows."""

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import binom

from scanlearn.study.statistics.compare import facts_of
from scanlearn.study.statistics.holm import holm
from scanlearn.study.statistics.runs import Runs
from scanlearn.study.statistics.simulate import Design, dice_truth, study_draws
from scanlearn.study.statistics.two_way import TwoWay, two_way
from scanlearn.study.statistics.verdict import verdict
from scanlearn.study.statistics.worth import worth_labels

DESIGNS = [
    ("dice", Design(5, 40, seed_sd=0.1), 1000),
    ("dice", Design(5, 600, seed_sd=0.1), 400),
    ("dice", Design(3, 120, seed_sd=0.0), 1000),
    ("dice", Design(3, 120, seed_sd=0.3), 1000),
    ("auroc", Design(5, 60, seed_sd=0.2), 400),
    ("auroc", Design(3, 50, seed_sd=0.1, scans=2), 400),
]


def chance(low: float, high: float, studies: int) -> tuple[float, float]:
    """What a true share between low and high comes to in this many studies, but for one case in a thousand."""
    return binom.ppf(0.0005, studies, low) / studies, binom.ppf(0.9995, studies, high) / studies


@pytest.mark.parametrize(("kind", "design", "studies"), DESIGNS)
def test_intervals_hold_the_truth_in_93_to_97_of_100_studies(kind, design, studies):
    levels = np.array([2.0, 1.7])
    draws, truth = study_draws(kind, np.random.default_rng(6), studies, design, levels, 200)
    low, high = two_way(draws[:, 0] - draws[:, 1], design.patients).interval()
    least, most = chance(0.93, 0.97, studies)
    assert least <= np.mean((low <= truth[0] - truth[1]) & (truth[0] - truth[1] <= high)) <= most
    low, high = two_way(draws[:, 0], design.patients).bounded_interval()
    assert least <= np.mean((low <= truth[0]) & (truth[0] <= high)) <= most


def test_intervals_over_patients_alone_would_not():
    design = Design(5, 120, seed_sd=0.3)
    draws, truth = study_draws("dice", np.random.default_rng(7), 300, design, np.array([2.0, 1.7]), 200)
    difference, delta = draws[:, 0] - draws[:, 1], truth[0] - truth[1]
    low, high = np.quantile(difference[..., 1:].mean(axis=1), [0.025, 0.975], axis=-1)
    assert np.mean((low <= delta) & (delta <= high)) < 0.8


@pytest.mark.parametrize(("kind", "design", "studies"), DESIGNS[1:5])
def test_of_equal_methods_none_is_called_better(kind, design, studies):
    draws, _ = study_draws(kind, np.random.default_rng(8), studies, design, np.full(3, 1.8), 200)
    pairs = list(combinations(range(3), 2))
    ways = [two_way(draws[:, i] - draws[:, j], design.patients) for i, j in pairs]
    p, means = np.stack([way.p_value() for way in ways], axis=1), draws[..., 0].mean(axis=2)
    most = chance(0.05, 0.05, studies)[1]
    assert np.mean((holm(p) < 0.05).any(axis=1)) <= most
    winners = 0
    for n in range(studies):
        comparisons = []
        for at, ((i, j), way) in enumerate(zip(pairs, ways, strict=True)):
            one = TwoWay(way.value[n], way.seed_part[n], way.patient_part[n], way.seeds, way.patients)
            sides = {"a": "xyz"[i], "b": "xyz"[j], "mean_a": means[n, i], "mean_b": means[n, j]}
            comparisons.append({**sides, **facts_of(one, p[n, at])})
        winners += verdict(comparisons, 100, kind).winner is not None
    assert winners / studies <= most


def test_the_worth_in_labels_lies_in_its_interval():
    design, counts, levels, studies = Design(5, 120), (50, 100, 500), np.array([1.2, 1.5, 2.1, 0.0]), 100
    truth = dice_truth(design, levels)
    scale = np.linspace(1, 3, 401)
    levels[3] = np.interp((truth[1] + truth[2]) / 2, dice_truth(design, scale), scale)
    draws, _ = study_draws("dice", np.random.default_rng(9), studies, design, levels, 100)
    held = 0
    for study in draws:
        runs = [Runs(d, design.patients, tuple(range(5))) for d in study]
        answer = worth_labels(dict(zip(counts, runs, strict=False)), runs[3])
        low, high = answer["low"], answer["high"]
        true = np.sqrt(100 * 500)
        held += (low["sign"] == "<" or low["labels"] <= true) and (high["sign"] == ">" or high["labels"] >= true)
    assert chance(0.93, 1.0, studies)[0] <= held / studies
