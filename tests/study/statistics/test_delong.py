import numpy as np
import pytest
from scipy.stats import permutation_test, rankdata
from sklearn.metrics import roc_auc_score

from scanlearn.errors import ScanlearnError
from scanlearn.study.statistics.delong import delong, delong_test, exchange_terms
from scanlearn.tasks.bootstrap import PatientBootstrap
from scanlearn.tasks.classification_metrics import ranking


def plain(scores, positive, patients):
    """Obuchowski's estimator with a loop over every pair of a positive and a negative case."""
    count, m, n = len(scores), int(positive.sum()), int((~positive).sum())
    names = np.unique(patients)
    auc = np.zeros(count)
    above = np.zeros((count, len(names)))  # sums of V10 - AUROC over a patient's positives
    below = np.zeros((count, len(names)))
    kernel = np.zeros((count, m, n))
    for r in range(count):
        for i, x in enumerate(scores[r][positive]):
            for j, y in enumerate(scores[r][~positive]):
                kernel[r, i, j] = 1.0 if x > y else 0.5 if x == y else 0.0
        auc[r] = kernel[r].mean()
        for p, name in enumerate(names):
            above[r, p] = sum(kernel[r, i].mean() - auc[r] for i in np.flatnonzero(patients[positive] == name))
            below[r, p] = sum(kernel[r, :, j].mean() - auc[r] for j in np.flatnonzero(patients[~positive] == name))
    some, others, every = len(np.unique(patients[positive])), len(np.unique(patients[~positive])), len(names)
    covariance = np.zeros((count, count))
    for r in range(count):
        for s in range(count):
            covariance[r, s] = above[r] @ above[s] * some / (some - 1) / m**2
            covariance[r, s] += below[r] @ below[s] * others / (others - 1) / n**2
            covariance[r, s] += (above[r] @ below[s] + above[s] @ below[r]) * every / (every - 1) / (m * n)
    return auc, covariance


def cases(seed=0, patients=40, scans=3, ties=True):
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), scans)
    positive = rng.random(len(patient)) < 0.4
    scores = positive * 0.9 + rng.normal(0, 0.7, patients)[patient] + rng.normal(0, 0.6, (3, len(patient)))
    return (np.round(scores, 1) if ties else scores), positive, patient


@pytest.mark.parametrize("clustered", [False, True])
def test_the_fast_form_is_the_plain_one_ties_included(clustered):
    scores, positive, patient = cases()
    groups = patient if clustered else np.arange(len(patient))
    auc, covariance = delong(scores, positive, groups if clustered else None)
    expected, plainly = plain(scores, positive, groups)
    np.testing.assert_allclose(auc, expected, rtol=1e-12)
    np.testing.assert_allclose(covariance, plainly, rtol=1e-9)
    assert auc[0] == pytest.approx(roc_auc_score(positive, scores[0]))


def test_without_patients_it_is_delongs_own_formula():
    scores, positive, _ = cases(1)
    above = np.array([[np.mean((x > s[~positive]) + 0.5 * (x == s[~positive])) for x in s[positive]] for s in scores])
    below = np.array([[np.mean((y < s[positive]) + 0.5 * (y == s[positive])) for y in s[~positive]] for s in scores])
    expected = np.cov(above) / positive.sum() + np.cov(below) / (~positive).sum()
    np.testing.assert_allclose(delong(scores, positive)[1], expected, rtol=1e-9)


@pytest.mark.parametrize("scans", [1, 4])
def test_its_variance_is_that_of_resampled_patients(scans):
    scores, positive, patient = cases(2, 150, scans, ties=False)
    _, covariance = delong(scores, positive, patient)
    counts = PatientBootstrap(patient, 4000, 0).counts
    draws = np.stack([ranking(s, positive, counts, patient)[0][1:] for s in scores])
    np.testing.assert_allclose(np.diag(covariance), draws.var(axis=1), rtol=0.1)
    as_if_alone = delong(scores, positive)[1][0, 0] / covariance[0, 0]
    assert as_if_alone == pytest.approx(1) if scans == 1 else as_if_alone < 0.9


def test_two_classifiers_and_their_mean_over_networks():
    scores, positive, patient = cases(3)
    auc, covariance = delong(scores, positive, patient)
    test = delong_test(scores[:2], scores[2], positive, patient)
    contrast = np.array([0.5, 0.5, -1])
    assert test["difference"] == pytest.approx(auc[:2].mean() - auc[2])
    assert test["standard_error"] ** 2 == pytest.approx(contrast @ covariance @ contrast)
    assert test["low"] < test["difference"] < test["high"] and (test["p"] < 0.05) == (test["low"] * test["high"] > 0)
    same = delong_test(scores[0], 3 * scores[0] + 1, positive, patient)
    assert same["p"] == 1 and same["difference"] == 0


def test_too_few_patients_of_a_kind_are_refused():
    with pytest.raises(ScanlearnError, match="there are 1 and 2"):
        delong(np.arange(4.0), np.array([1, 1, 0, 0], bool), np.array([0, 0, 1, 2]))


def test_exchanging_scores_case_by_case_changes_the_difference_as_the_terms_say():
    rng = np.random.default_rng(4)
    positive = np.arange(24) % 3 == 0
    a, b = np.round(rng.normal(positive, 1), 1), np.round(rng.normal(positive, 1), 1)
    terms = exchange_terms(a, b, positive)
    ranks = rankdata(a), rankdata(b)
    for _ in range(20):
        swap = rng.random(24) < 0.5
        swapped = [np.where(swap, ranks[1 - i], ranks[i]) for i in (0, 1)]
        expected = np.subtract(*(roc_auc_score(positive, s) for s in swapped))
        assert terms @ np.where(swap, -1, 1) == pytest.approx(expected, abs=1e-12)


def test_the_permutation_p_is_scipys():
    rng = np.random.default_rng(5)
    positive = np.arange(60) % 2 == 0
    a, b = rng.normal(positive * 1.4, 1), rng.normal(positive * 0.8, 1)
    terms = exchange_terms(a, b, positive)
    p = permutation_test((terms,), np.sum, permutation_type="samples", n_resamples=9999, rng=0).pvalue

    def difference(x, y, axis):
        both = [v[..., positive][..., :, None] - v[..., ~positive][..., None, :] for v in (x, y)]
        return np.subtract(*((np.sign(v) / 2).mean(axis=(-2, -1)) for v in both))

    auc = permutation_test(
        (rankdata(a), rankdata(b)), difference, permutation_type="samples", n_resamples=2000, batch=200, rng=1
    ).pvalue
    assert p == pytest.approx(auc, abs=0.03)
