import itertools
import math

import numpy as np
import pytest
from scipy.stats import permutation_test, wilcoxon
from sklearn.metrics import roc_auc_score

from scanlearn.tasks.bootstrap import PatientBootstrap
from scanlearn.tasks.compare import paired_classification, paired_comparison


def test_over_seeds_the_permutation_p_value_is_exact():
    rng = np.random.default_rng(0)
    for count in (3, 5, 8):
        a, b = rng.normal(0.3, 1, count), rng.normal(0, 1, count)
        difference = a - b
        patterns = [abs(np.dot(signs, difference)) for signs in itertools.product((-1, 1), repeat=count)]
        expected = np.mean([p >= abs(difference.sum()) - 1e-12 for p in patterns])
        result = paired_comparison(a, b)
        assert result["p_permutation"] == pytest.approx(expected)
        assert result["p_wilcoxon"] == pytest.approx(wilcoxon(difference).pvalue)
        assert result["difference"]["value"] == pytest.approx(difference.mean())
        assert result["smallest_p"] == 2 / 2**count


def test_with_many_patients_the_p_value_agrees_with_scipy():
    rng = np.random.default_rng(1)
    a = rng.normal(0.15, 1, 80)
    expected = permutation_test(
        (a, np.zeros(80)), lambda x, y: (x - y).mean(), permutation_type="samples", n_resamples=20_000, rng=0
    ).pvalue
    assert paired_comparison(a, np.zeros(80))["p_permutation"] == pytest.approx(expected, abs=0.015)


def test_a_clear_win_and_no_difference():
    a = np.linspace(0.7, 0.9, 20)
    clear = paired_comparison(a, a - 0.05)
    assert clear["difference"]["low"] == pytest.approx(0.05) and clear["a_better"] == 20
    assert clear["p_permutation"] < 0.001 and clear["p_wilcoxon"] < 0.001
    same = paired_comparison(a, a)
    assert same["p_permutation"] == same["p_wilcoxon"] == 1.0 and same["equal"] == 20


def test_no_difference_is_called_significant_about_as_often_as_promised():
    rng = np.random.default_rng(2)
    results = [paired_comparison(rng.normal(size=10), rng.normal(size=10), bootstrap=10) for _ in range(300)]
    for name in ("p_permutation", "p_wilcoxon"):
        assert 0.02 < np.mean([r[name] <= 0.05 for r in results]) < 0.085


def test_scans_of_one_patient_are_no_independent_witnesses():
    # One patient with fifty scans on which a is better, three patients with one scan on which it is worse.
    a = np.concatenate([np.full(50, 0.8), [0.5, 0.5, 0.5]])
    b = np.concatenate([np.full(50, 0.7), [0.6, 0.6, 0.6]])
    patients = np.concatenate([np.zeros(50), [1, 2, 3]])
    assert paired_comparison(a, b)["p_permutation"] < 0.001
    grouped = paired_comparison(a, b, patients)
    assert grouped["p_permutation"] == 1.0 or grouped["p_permutation"] >= 0.125
    assert grouped["groups"] == 4 and grouped["pairs"] == 53 and grouped["b_better"] == 3
    assert grouped["difference"]["low"] < 0 < grouped["difference"]["high"]


def test_pairs_with_nan_are_left_out_and_counted():
    a, b = np.array([0.5, np.nan, 0.7, 0.9]), np.array([0.4, 0.4, np.nan, 0.6])
    result = paired_comparison(a, b)
    assert result["left_out"] == 2 and result["pairs"] == 2
    assert result["mean_a"] == pytest.approx(0.7) and result["mean_b"] == pytest.approx(0.5)


@pytest.mark.filterwarnings("error")
def test_nothing_to_compare_is_nan_and_unpaired_input_is_refused():
    empty = paired_comparison([np.nan], [1.0])
    assert all(math.isnan(empty[name]) for name in ("mean_a", "p_permutation", "p_wilcoxon"))
    single = paired_comparison([0.9], [0.8])
    assert math.isnan(single["difference"]["low"]) and single["smallest_p"] == 1.0
    with pytest.raises(ValueError, match="not paired"):
        paired_comparison([1.0, 2.0], [1.0])


def test_the_difference_of_two_aurocs_is_taken_on_the_same_resampled_patients():
    rng = np.random.default_rng(0)
    codes, patients = rng.integers(0, 2, 150), np.repeat(np.arange(50), 3)
    good = np.clip(0.3 * codes + 0.7 * rng.random(150), 0, 1)
    twin = np.clip(good + 0.02 * rng.normal(size=150), 0, 1)
    result = paired_classification(good, twin, codes, ["no", "yes"], patients, bootstrap=200)
    assert result["value"] == pytest.approx(roc_auc_score(codes, good) - roc_auc_score(codes, twin))
    differences = []
    for counts in PatientBootstrap(patients, 200, seed=0).counts[1:]:
        cases = np.repeat(np.arange(150), counts[patients])
        differences.append(roc_auc_score(codes[cases], good[cases]) - roc_auc_score(codes[cases], twin[cases]))
    assert [result["low"], result["high"]] == pytest.approx(np.quantile(differences, [0.025, 0.975]))
    assert result["high"] - result["low"] < 0.03  # far narrower than the interval of either AUROC
