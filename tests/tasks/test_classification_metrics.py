import math

import numpy as np
import pytest
import torch
import torchmetrics.functional.classification as tm
from sklearn.metrics import average_precision_score, balanced_accuracy_score, recall_score, roc_auc_score

from scanlearn.errors import ScanlearnError
from scanlearn.tasks.bootstrap import PatientBootstrap
from scanlearn.tasks.classification_metrics import FIGURES, classification_metrics, ranking, youden_threshold

NAMES = ["normal", "bacteria", "virus", "fungus"]


def sample(classes, seed=0, patients=50, scans=3, decimals=2):
    """Probabilities with ties, codes and patients of patients * scans cases."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, classes, patients * scans)
    scores = rng.random((len(codes), classes))
    scores[np.arange(len(codes)), codes] += 0.4
    scores = np.round(scores / scores.sum(axis=1, keepdims=True), decimals)
    return scores, codes, np.repeat(np.arange(patients), scans)


def values(figures):
    return {name: figures[name]["value"] for name in FIGURES}


# ---- the figures themselves ----


def test_two_classes_are_judged_for_the_last_one_as_sklearn_does():
    scores, codes, patients = sample(2)
    result = classification_metrics(scores, codes, NAMES[:2], patients, bootstrap=10, threshold=0.6)
    answer = scores[:, 1] >= 0.6
    expected = {
        "auroc": roc_auc_score(codes, scores[:, 1]),
        "ap": average_precision_score(codes, scores[:, 1]),
        "accuracy": (answer == codes).mean(),
        "balanced_accuracy": balanced_accuracy_score(codes, answer),
        "sensitivity": recall_score(codes, answer),
        "specificity": recall_score(codes, answer, pos_label=0),
    }
    assert list(result["classes"]) == ["bacteria"]
    assert values(result["classes"]["bacteria"]) == pytest.approx(expected)
    assert values(result["macro"]) == pytest.approx(expected)
    assert result["kind"] == "binary" and result["threshold"] == {"bacteria": 0.6}
    assert result["classes"]["bacteria"]["positives"] == codes.sum()
    assert classification_metrics(scores[:, 1], codes, NAMES[:2], patients, bootstrap=10, threshold=0.6) == result


def test_more_classes_are_judged_one_against_the_rest_as_torchmetrics_does():
    scores, codes, patients = sample(4)
    result = classification_metrics(scores, codes, NAMES, patients, bootstrap=10)
    s, c = torch.from_numpy(scores), torch.from_numpy(codes)
    for average, got in (("none", result["classes"]), ("macro", result["macro"])):
        expected = {
            "auroc": tm.multiclass_auroc(s, c, 4, average=average),
            "ap": tm.multiclass_average_precision(s, c, 4, average=average),
            "sensitivity": tm.multiclass_recall(s, c, 4, average=average),
            "specificity": tm.multiclass_specificity(s, c, 4, average=average),
        }
        for figure, value in expected.items():
            if average == "none":
                assert [got[name][figure]["value"] for name in NAMES] == pytest.approx(value.tolist(), abs=1e-6)
            else:
                assert got[figure]["value"] == pytest.approx(value.item(), abs=1e-6)
    assert result["macro"]["accuracy"]["value"] == (scores.argmax(1) == codes).mean()
    assert result["macro"]["balanced_accuracy"] == result["macro"]["sensitivity"]
    assert result["threshold"] is None


def test_labels_of_several_findings_may_be_missing_cell_by_cell():
    rng = np.random.default_rng(0)
    codes = (rng.random((200, 3)) < 0.3).astype(np.float32)
    scores = np.clip(0.4 * codes + 0.6 * rng.random((200, 3)), 0, 1)
    codes[rng.random((200, 3)) < 0.3] = np.nan
    codes[:7] = np.nan
    thresholds = [0.3, 0.5, 0.7]
    result = classification_metrics(scores, codes, NAMES[:3], np.arange(200), bootstrap=10, threshold=thresholds)
    for i, name in enumerate(NAMES[:3]):
        known = ~np.isnan(codes[:, i])
        truth, score = codes[known, i], scores[known, i]
        got = values(result["classes"][name])
        assert got["auroc"] == pytest.approx(roc_auc_score(truth, score))
        assert got["ap"] == pytest.approx(average_precision_score(truth, score))
        assert got["accuracy"] == pytest.approx(((score >= thresholds[i]) == truth).mean())
        assert got["sensitivity"] == pytest.approx(recall_score(truth, score >= thresholds[i]))
    assert result["missing"] == np.isnan(codes).all(axis=1).sum() >= 7
    for figure in FIGURES:
        mean = np.mean([result["classes"][name][figure]["value"] for name in NAMES[:3]])
        assert result["macro"][figure]["value"] == pytest.approx(mean)


def test_cases_without_a_label_do_not_count():
    scores, codes, patients = sample(3)
    hidden = np.where(np.arange(len(codes)) % 5 == 0, -1, codes)
    known = hidden >= 0
    result = classification_metrics(scores, hidden, NAMES[:3], patients, bootstrap=50)
    assert result.pop("missing") == (~known).sum()
    expected = classification_metrics(scores[known], hidden[known], NAMES[:3], patients[known], bootstrap=50)
    assert expected.pop("missing") == 0 and result == expected


# ---- the interval ----


def test_each_resample_equals_a_data_set_with_the_drawn_patients_in_it():
    scores, codes, patients = sample(2, patients=12, decimals=1)
    resamples = PatientBootstrap(patients, 30, seed=5)
    auroc, ap = ranking(scores[:, 1], codes == 1, resamples.counts, resamples.index)
    for row, counts in enumerate(resamples.counts):
        cases = np.concatenate([np.flatnonzero(patients == p) for p in range(12) for _ in range(counts[p])])
        assert counts.sum() == 12
        assert auroc[row] == pytest.approx(roc_auc_score(codes[cases], scores[cases, 1]))
        assert ap[row] == pytest.approx(average_precision_score(codes[cases], scores[cases, 1]))
        assert resamples.totals(scores)[row] == pytest.approx(scores[cases].sum(axis=0))


def test_blocks_do_not_change_the_draws():
    many = PatientBootstrap(np.arange(3000), 400, seed=1)  # two blocks
    assert (many.counts.sum(axis=1) == 3000).all() and (many.counts[0] == 1).all()
    assert many.counts[1:].var() == pytest.approx(1.0, abs=0.02)  # Poisson-like
    assert np.array_equal(many.counts, PatientBootstrap(np.arange(3000), 400, seed=1).counts)
    assert not np.array_equal(many.counts, PatientBootstrap(np.arange(3000), 400, seed=2).counts)


def test_the_interval_covers_the_truth_when_patients_have_several_scans():
    # Whether a scan is right is decided by its patient alone: 40 patients are 40 observations, not 200.
    rng = np.random.default_rng(0)
    covered = {"patient": 0, "scan": 0}
    for _ in range(200):
        right = np.repeat(rng.random(40) < 0.7, 5)
        scores, patients = np.where(right, 0.9, 0.1), np.repeat(np.arange(40), 5)
        for unit, groups in (("patient", patients), ("scan", np.arange(200))):
            result = classification_metrics(scores, np.ones(200, int), NAMES[:2], groups, bootstrap=300)
            accuracy = result["macro"]["accuracy"]
            covered[unit] += accuracy["low"] - 1e-9 <= 0.7 <= accuracy["high"] + 1e-9
    assert covered["patient"] >= 180
    assert covered["scan"] <= 140


def test_the_interval_of_auroc_covers_the_truth():
    rng = np.random.default_rng(0)
    truth = 0.5 * (1 + math.erf(1 / 2))  # two unit normals one apart
    covered = 0
    for _ in range(100):
        codes = np.arange(120) % 2
        scores = 1 / (1 + np.exp(-rng.normal(codes)))
        auroc = classification_metrics(scores, codes, NAMES[:2], np.arange(120), bootstrap=300)["macro"]["auroc"]
        covered += auroc["low"] <= truth <= auroc["high"]
    assert covered >= 88


def test_resamples_without_both_classes_are_skipped_and_counted():
    codes = np.array([1] + [0] * 9)
    scores = np.linspace(0.9, 0.1, 10)
    result = classification_metrics(scores, codes, NAMES[:2], np.arange(10), bootstrap=1000)
    lacking = (PatientBootstrap(np.arange(10), 1000, 0).counts[1:, 0] == 0).sum()
    assert 300 < lacking < 400  # 0.9**10 = 0.35
    assert result["macro"]["auroc"] == {"value": 1.0, "low": 1.0, "high": 1.0, "skipped": lacking}
    assert result["macro"]["specificity"]["skipped"] == 0


def test_a_class_that_no_case_has_is_nan_and_left_out_of_the_mean():
    scores, codes, patients = sample(4)
    codes = np.where(codes == 3, 0, codes)
    result = classification_metrics(scores, codes, NAMES, patients, bootstrap=20)
    fungus = result["classes"]["fungus"]
    assert math.isnan(fungus["auroc"]["value"]) and math.isnan(fungus["auroc"]["low"])
    assert fungus["positives"] == 0
    mean = np.mean([result["classes"][name]["auroc"]["value"] for name in NAMES[:3]])
    assert result["macro"]["auroc"]["value"] == pytest.approx(mean)


@pytest.mark.filterwarnings("error")
def test_one_patient_one_class_or_no_label_gives_no_interval_and_no_error():
    scores, codes, patients = sample(2)
    one_patient = classification_metrics(scores, codes, NAMES[:2], np.zeros(len(codes)), bootstrap=20)
    assert one_patient["macro"]["auroc"]["value"] == pytest.approx(roc_auc_score(codes, scores[:, 1]))
    assert math.isnan(one_patient["macro"]["auroc"]["low"])
    one_class = classification_metrics(scores, np.zeros_like(codes), NAMES[:2], patients, bootstrap=20)
    assert math.isnan(one_class["macro"]["auroc"]["value"]) and math.isnan(one_class["macro"]["sensitivity"]["low"])
    assert one_class["macro"]["specificity"]["value"] == pytest.approx((scores[:, 1] < 0.5).mean())
    nothing = classification_metrics(scores, np.full_like(codes, -1), NAMES[:2], patients, bootstrap=20)
    assert nothing["cases"] == 0 and all(math.isnan(value) for value in values(nothing["macro"]).values())


# ---- the threshold ----


def youden_by_loops(score, truth):
    best = -2.0
    for level in sorted(set(score), reverse=True):
        index = (score[truth] >= level).mean() - (score[~truth] >= level).mean()
        best = max(best, index)
    return best


def test_youden_threshold_is_the_best_of_all_and_lies_between_two_scores():
    for seed in range(5):
        scores, codes, _ = sample(2, seed=seed)
        (threshold,) = youden_threshold(scores, codes, NAMES[:2])
        score, truth = scores[:, 1], codes == 1
        got = (score[truth] >= threshold).mean() - (score[~truth] >= threshold).mean()
        assert got == pytest.approx(youden_by_loops(score, truth))
        assert threshold not in score
    assert youden_threshold([0.2, 0.4, 0.8, 0.9], [0, 0, 1, 1], NAMES[:2]) == pytest.approx([0.6])


def test_a_threshold_needs_both_kinds_of_validation_cases():
    assert np.isnan(youden_threshold([0.2, 0.4, 0.8], [0, 0, 0], NAMES[:2])).all()
    scores, codes = np.array([[0.2, 0.3], [0.8, 0.4]]), np.array([[0.0, 0], [1, 0]])
    np.testing.assert_allclose(youden_threshold(scores, codes, NAMES[:2]), [0.5, np.nan])  # the other one is chosen
    with pytest.raises(ScanlearnError, match="not for three"):
        youden_threshold(*sample(3)[:2], NAMES[:3])


# ---- wrong input ----


def test_wrong_input_is_refused():
    scores, codes, patients = sample(3)
    with pytest.raises(ValueError, match="do not fit 2 classes"):
        classification_metrics(scores, codes, NAMES[:2], patients)
    with pytest.raises(ValueError, match="no probabilities"):
        classification_metrics(scores * 9 - 4, codes, NAMES[:3], patients)
    with pytest.raises(ValueError, match="has no name"):
        classification_metrics(scores, codes + 1, NAMES[:3], patients)
    with pytest.raises(ScanlearnError, match="1 of 150 cases"):
        classification_metrics(np.where(np.arange(150)[:, None] == 3, np.nan, scores), codes, NAMES[:3], patients)
