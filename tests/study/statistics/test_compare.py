import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import ttest_1samp, wilcoxon

from scanlearn.errors import ScanlearnError
from scanlearn.study.statistics import (
    Runs,
    case_runs,
    compare_all,
    compare_methods,
    correct,
    mean_over_seeds,
    score_runs,
)
from scanlearn.study.statistics.compare import facts_of, way_of
from scanlearn.study.statistics.delong import delong_test
from scanlearn.study.statistics.simulate import Design, dice_studies, score_studies
from scanlearn.tasks.classification_metrics import classification_metrics

PATIENTS = np.arange(80)


def dice(levels=(2.0, 1.6), seeds=5, seed=0):
    return dice_studies(np.random.default_rng(seed), 1, Design(seeds, 80, seed_sd=0.1), np.array(levels))[0]


def classified(levels=(2.0, 1.2), scans=2, seed=0):
    design = Design(4, 60, seed_sd=0.2, scans=scans)
    scores, positive, patient = score_studies(np.random.default_rng(seed), 1, design, np.array(levels))
    runs = [score_runs(expit(s), positive.astype(int), ["no", "yes"], patient, bootstrap=300) for s in scores[0]]
    return runs, scores[0], positive, patient


def test_dice_of_two_methods():
    a, b = dice()
    found = compare_methods(case_runs(a, PATIENTS), case_runs(b, PATIENTS))
    difference = a - b
    assert found["difference"]["value"] == pytest.approx(difference.mean())
    assert found["mean_a"] == pytest.approx(a.mean())
    assert found["seed_part"] == pytest.approx(difference.mean(axis=1).var(ddof=1) / 5)
    assert found["covers"] == ["seeds", "patients"] and (found["seeds"], found["patients"]) == (5, 80)
    assert found["over_seeds"]["p_permutation"] == found["over_seeds"]["smallest_p"] == 0.0625
    assert found["over_patients"]["p_wilcoxon"] == pytest.approx(wilcoxon(difference.mean(axis=0)).pvalue)
    assert found["p"] < 0.05 and found["over_patients"]["p_permutation"] < 0.05
    assert set(found["effects"]) == {"hedges_g", "rank_biserial", "superiority"}
    json.dumps(found, allow_nan=False)


def test_the_other_way_round_is_the_mirror_image():
    a, b = (case_runs(v, PATIENTS) for v in dice())
    one, other = compare_methods(a, b), compare_methods(b, a)
    assert one["difference"]["low"] == pytest.approx(-other["difference"]["high"])
    assert one["p"] == pytest.approx(other["p"])
    for name in ("hedges_g", "rank_biserial"):
        assert one["effects"][name]["low"] == pytest.approx(-other["effects"][name]["high"])
    assert one["effects"]["superiority"]["value"] == pytest.approx(1 - other["effects"]["superiority"]["value"])


def test_the_interval_is_wider_than_those_of_one_source_of_chance():
    a, b = dice()
    found = compare_methods(case_runs(a, PATIENTS), case_runs(b, PATIENTS))
    width = found["difference"]["high"] - found["difference"]["low"]
    for figures in ((a - b).mean(axis=0), (a - b).mean(axis=1)):
        alone = ttest_1samp(figures, 0)
        assert found["standard_error"] > alone._standard_error * (0.9 if len(figures) == 80 else 1)
    assert width > 2 * 1.96 * found["standard_error"]


def test_auroc_of_two_methods_is_paired_by_seed_and_by_patient():
    (a, b), scores, positive, patient = classified()
    found = compare_methods(a, b)
    delong = delong_test(scores[0], scores[1], positive, patient)
    assert found["difference"]["value"] == pytest.approx(delong["difference"])
    assert found["over_patients"]["p_delong"] == pytest.approx(delong["p"])
    assert found["patient_part"] < delong["standard_error"] ** 2 * 1.3
    assert found["patients"] == 60 and found["effects"]["separation"]["value"] > 0
    figure = classification_metrics(expit(scores[0][0]), positive.astype(int), ["no", "yes"], patient, bootstrap=300)
    assert a.draws[0, 0] == pytest.approx(figure["macro"]["auroc"]["value"])


def test_other_figures_and_more_classes_come_with_interval_and_seeds_alone():
    rng = np.random.default_rng(0)
    scores = rng.dirichlet(np.ones(3), (2, 3, 90))
    codes, classes = rng.integers(-1, 3, 90), ["a", "b", "c"]
    runs = [score_runs(s, codes, classes, np.arange(90), figure="balanced_accuracy", bootstrap=200) for s in scores]
    found = compare_methods(*runs)
    assert found["over_patients"] == {} and found["effects"] == {}
    assert found["patients"] == (codes >= 0).sum() and 0 < found["p"] <= 1


def test_seeds_are_matched_by_name_and_the_others_are_named():
    a, b = dice(seeds=4)
    one = case_runs(a, PATIENTS, seeds=(0, 1, 2, 3))
    other = case_runs(b[[3, 1, 0]], PATIENTS, seeds=(3, 1, 0))
    found = compare_methods(one, other)
    assert found["seeds"] == 3 and found["seeds_left_out"] == [2]
    assert found["seed_part"] == pytest.approx((a - b)[[0, 1, 3]].mean(axis=1).var(ddof=1) / 3)
    with pytest.raises(ScanlearnError, match="no seed in common"):
        compare_methods(one, case_runs(b, PATIENTS, seeds=(7, 8, 9, 10)))


def test_one_seed_covers_patients_only_and_says_so():
    a, b = dice()
    found = compare_methods(case_runs(a[0], PATIENTS), case_runs(b[0], PATIENTS))
    assert found["covers"] == ["patients"] and found["seeds"] == 1
    assert np.isfinite(found["difference"]["low"])
    seeds_only = compare_methods(case_runs(a, np.zeros(80)), case_runs(b, np.zeros(80)))
    assert seeds_only["covers"] == ["seeds"] and seeds_only["patients"] == 0 and seeds_only["effects"] == {}


def test_a_case_without_a_figure_somewhere_is_left_out_of_both_and_counted():
    a, b = dice()
    expected = compare_methods(case_runs(a[:, 2:], PATIENTS[2:]), case_runs(b[:, 2:], PATIENTS[2:]))
    a[3, 0], b[0, 1] = np.nan, np.nan
    found = compare_methods(case_runs(a, PATIENTS), case_runs(b, PATIENTS))
    assert found["cases_left_out"] == 2
    assert found["difference"] == expected["difference"] and found["mean_a"] == pytest.approx(expected["mean_a"])
    whole = case_runs(b, PATIENTS)
    one_sided = compare_methods(case_runs(a, PATIENTS), replace(whole, cases=np.where(np.isnan(b), 0.5, b)))
    assert one_sided["cases_left_out"] == 1 and one_sided["patients"] == 79
    with pytest.raises(ScanlearnError, match="nothing to compare"):
        compare_methods(case_runs(a * np.nan, PATIENTS), case_runs(b, PATIENTS))


def test_seeds_that_change_nothing_are_noticed():
    a, b = dice()
    same = np.repeat(a[:1], 5, axis=0)
    assert not compare_methods(case_runs(same, PATIENTS), case_runs(b, PATIENTS))["seeds_matter"]
    assert compare_methods(case_runs(a, PATIENTS), case_runs(b, PATIENTS))["seeds_matter"]


def test_perfect_networks_of_different_seeds_do_differ():
    positive = (np.arange(40) % 2).astype(int)
    scores = np.random.default_rng(0).uniform(0, 0.4, (3, 40)) + positive * 0.5
    runs = score_runs(scores, positive, ["no", "yes"], np.arange(40), bootstrap=50)
    assert runs.draws.min() == 1 and compare_methods(runs, runs)["seeds_matter"]


def test_one_positive_patient_leaves_the_tests_over_patients_open():
    positive = np.arange(20) == 3
    scores = np.random.default_rng(0).random((2, 3, 20))
    found = compare_methods(*(score_runs(s, positive.astype(int), "ab", range(20), bootstrap=50) for s in scores))
    assert np.isnan(found["over_patients"]["p_delong"]) and np.isfinite(found["p"])


def test_runs_of_other_cases_or_resamples_are_refused():
    a, b = dice()
    one = case_runs(a, PATIENTS)
    with pytest.raises(ValueError, match="patients differ"):
        compare_methods(Runs(np.zeros((1, 9)), 5, (0,)), Runs(np.zeros((1, 8)), 5, (0,)))
    with pytest.raises(ValueError, match="the other has not"):
        compare_methods(one, Runs(one.draws, 80, one.seeds, groups=PATIENTS))
    with pytest.raises(ValueError, match="same cases"):
        compare_methods(one, case_runs(b, PATIENTS[::-1]))
    with pytest.raises(ValueError, match="do not fit the seeds"):
        Runs(np.zeros((2, 3)), 5, (1, 1))
    with pytest.raises(ValueError, match="do not fit"):
        case_runs(a, PATIENTS[1:])


def test_scans_of_one_patient_widen_the_interval():
    a, b = dice()
    repeated = [np.repeat(v, 3, axis=1) for v in (a, b)]
    found = [
        compare_methods(*(case_runs(v, groups) for v in repeated)) for groups in (np.repeat(PATIENTS, 3), range(240))
    ]
    assert found[0]["patient_part"] > 2 * found[1]["patient_part"]
    assert found[0]["difference"]["value"] == pytest.approx(found[1]["difference"]["value"])


def test_the_band_of_a_curve():
    runs = case_runs(dice()[0], PATIENTS, seeds=(3, 4, 5, 6, 7))
    band = mean_over_seeds(runs)
    assert 0 < band["low"] < band["value"] < band["high"] < 1 and list(band["by_seed"]) == ["3", "4", "5", "6", "7"]
    wide = mean_over_seeds(runs, within=None)
    assert wide["high"] - wide["value"] == pytest.approx(wide["value"] - wide["low"])
    assert band["high"] - band["value"] < band["value"] - band["low"]


def test_all_pairs_are_one_family():
    runs = {name: case_runs(v, PATIENTS, bootstrap=200) for name, v in zip("abc", dice((2, 1.8, 1.6)), strict=True)}
    found = correct(compare_all(runs, bootstrap=200))
    assert [(c["a"], c["b"]) for c in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    for c in found:
        assert c["family"] == 3 and c["p_holm"] >= c["p"]
        assert c["simultaneous"]["low"] < c["difference"]["low"]
        excludes = c["simultaneous"]["low"] > 0 or c["simultaneous"]["high"] < 0
        assert c["p_holm"] < 0.05 if excludes else c["p"] >= 0.05 / 3
        assert facts_of(way_of(c)) == {k: c[k] for k in facts_of(way_of(c))}
