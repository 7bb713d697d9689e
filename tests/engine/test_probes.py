import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from scanlearn.engine.probes import (
    alignment_uniformity,
    collapse_warning,
    feature_std,
    knn_probe,
    linear_probe,
    rankme,
)


def clusters(seed=0, patients=60, scans=3, classes=3, width=16, spread=1.0):
    """Features of patients whose scans resemble each other, around one centre for each class."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), scans)
    codes = patient % classes
    centres = 2.0 * rng.normal(size=(classes, width))
    own = rng.normal(size=(patients, width))
    features = centres[codes] + own[patient] + spread * rng.normal(size=(len(patient), width))
    return features.astype(np.float32), codes, patient


# ---- collapse ----


@pytest.mark.parametrize("shape", [(50, 8), (8, 50)])
def test_rankme_is_the_exponential_of_the_entropy_of_the_singular_values(shape):
    x = np.random.default_rng(0).normal(size=shape)
    singular = np.linalg.svd(x, compute_uv=False)
    entropy = 0.0
    for value in singular:
        share = value / singular.sum() + 1e-7
        entropy -= share * math.log(share)
    assert rankme(x) == pytest.approx(math.exp(entropy), rel=1e-6)


def test_rankme_counts_directions():
    basis = np.eye(6)
    assert rankme(np.repeat(basis, 10, axis=0)) == pytest.approx(6, rel=1e-4)
    assert rankme(np.outer(np.arange(1, 30), np.ones(8))) == pytest.approx(1, rel=1e-4)
    assert rankme(np.zeros((5, 4))) == 0.0
    assert math.isnan(rankme(np.full((5, 4), np.nan)))


def test_feature_std_is_one_on_the_sphere_and_zero_after_collapse():
    x = torch.randn(4000, 64, generator=torch.Generator().manual_seed(0))
    assert feature_std(x) == pytest.approx(1.0, abs=0.02)
    assert feature_std(x.relu()) == pytest.approx(math.sqrt((0.5 - 1 / (2 * math.pi)) / 0.5), abs=0.02)
    # The same direction at every length is a collapse too.
    assert feature_std(torch.linspace(1, 9, 50)[:, None] * torch.ones(1, 64)) == pytest.approx(0.0, abs=1e-6)


def test_alignment_and_uniformity_equal_plain_loops():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(9, 5)), rng.normal(size=(9, 5))
    u, v = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    alignment = sum(((u[i] - v[i]) ** 2).sum() for i in range(9)) / 9
    uniformity = 0.0
    for x in (u, v):
        pairs = [math.exp(-2 * ((x[i] - x[j]) ** 2).sum()) for i in range(9) for j in range(i)]
        uniformity += math.log(sum(pairs) / len(pairs)) / 2
    assert alignment_uniformity(a, b) == pytest.approx((alignment, uniformity))
    assert alignment_uniformity(a, a)[0] == pytest.approx(0.0, abs=1e-12)
    with pytest.raises(ValueError, match=r"\(9, 5\) and \(8, 5\)"):
        alignment_uniformity(a, b[:8])


def test_collapse_is_told_in_words_and_healthy_features_are_not_accused():
    healthy = torch.randn(200, 32, generator=torch.Generator().manual_seed(0))
    measures = {"rankme": rankme(healthy), "feature_std": feature_std(healthy), "knn_finding": 0.5}
    assert collapse_warning(measures) is None
    assert collapse_warning({}) is None
    assert "all scans get the same features" in collapse_warning({"feature_std": 0.001, "rankme": 30.0})
    assert "line" in collapse_warning({"feature_std": 0.3, "rankme": 1.2})
    assert "diverged" in collapse_warning({"feature_std": float("nan")})


# ---- nearest neighbours ----


def knn_by_loops(features, codes, patients, k, temperature):
    x = features.astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    classes = np.unique(codes)
    scores = np.zeros((len(x), len(classes)))
    for i in range(len(x)):
        others = [j for j in range(len(x)) if patients[j] != patients[i]]
        for j in sorted(others, key=lambda j: -(x[i] @ x[j]))[:k]:
            scores[i, list(classes).index(codes[j])] += math.exp(x[i] @ x[j] / temperature)
    return scores / scores.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("k", [5, 1000])
def test_neighbours_vote_as_in_plain_loops(classes, k):
    features, codes, patients = clusters(classes=classes, spread=6.0, patients=30)
    scores = knn_by_loops(features, codes, patients, k, 0.1)
    got = knn_probe(features, codes, patients, k=k, temperature=0.1)
    assert got["accuracy"] == pytest.approx((scores.argmax(1) == codes).mean())
    expected = roc_auc_score(codes, scores[:, 1] if classes == 2 else scores, multi_class="ovr")
    assert got["auroc"] == pytest.approx(expected, abs=1e-6)


def test_copies_of_a_patient_tell_nothing():
    # Random features with random labels, each scan there twice: neighbours of the same patient would answer them all.
    rng = np.random.default_rng(0)
    features = np.repeat(rng.normal(size=(300, 32)), 2, axis=0)
    codes, patients = np.repeat(rng.integers(0, 2, 300), 2), np.repeat(np.arange(300), 2)
    assert knn_probe(features, codes, np.arange(600), k=1)["accuracy"] == 1.0
    assert knn_probe(features, codes, patients, k=1)["accuracy"] < 0.6
    assert linear_probe(features, codes, patients)["auroc"] < 0.65


def test_the_order_of_the_scans_and_their_blocks_do_not_change_the_answer():
    features, codes, patients = clusters(patients=500, scans=3, spread=5.0)  # 1,500 scans: two blocks
    order = np.random.default_rng(0).permutation(len(features))
    whole, shuffled = (knn_probe(features[o], codes[o], patients[o]) for o in (np.arange(len(features)), order))
    assert whole == pytest.approx(shuffled, abs=1e-6)


def test_torch_and_numpy_and_bfloat16_are_taken():
    features, codes, patients = clusters()
    names = np.array([f"patient {p}" for p in patients])
    for probe in (knn_probe, linear_probe):
        expected = probe(features, codes, patients)
        assert probe(torch.from_numpy(features).requires_grad_(), torch.from_numpy(codes), names) == expected
    coarse = torch.from_numpy(features).bfloat16()
    assert knn_probe(coarse, codes, patients)["auroc"] == pytest.approx(
        knn_probe(features, codes, patients)["auroc"], abs=0.02
    )
    assert rankme(coarse) == pytest.approx(rankme(features), rel=0.02)
    assert feature_std(coarse) == pytest.approx(feature_std(features), rel=0.02)


def test_scans_without_a_label_neither_ask_nor_vote():
    features, codes, patients = clusters(spread=4.0)
    hidden = np.where(np.arange(len(codes)) % 4 == 0, -1, codes)
    for probe in (knn_probe, linear_probe):
        assert probe(features, hidden, patients) == probe(
            features[hidden >= 0], hidden[hidden >= 0], patients[hidden >= 0]
        )


# ---- linear probe ----


def test_linear_probe_finds_what_is_linear_and_nothing_in_noise():
    features, codes, patients = clusters(spread=0.5, patients=90)
    result = linear_probe(features, codes, patients)
    assert result["auroc"] > 0.97 and result["accuracy"] > 0.9 and result["ap"] > 0.95
    noise = np.random.default_rng(0).normal(size=features.shape)
    assert 0.35 < linear_probe(noise, codes, patients)["auroc"] < 0.65


def test_linear_probe_is_the_same_for_the_same_seed_and_any_scale():
    features, codes, patients = clusters(spread=3.0)
    result = linear_probe(features, codes, patients, seed=3)
    assert result == linear_probe(features, codes, patients, seed=3)
    assert result != linear_probe(features, codes, patients, seed=4)
    assert result == pytest.approx(linear_probe(features * 1000 + 5, codes, patients, seed=3), abs=0.01)


def test_several_labels_are_judged_one_by_one_on_the_scans_that_have_them():
    features, codes, patients = clusters(spread=2.0, patients=80)
    rng = np.random.default_rng(0)
    labels = np.stack([codes == 0, codes == 1, rng.random(len(codes)) < 0.5], axis=1).astype(np.float32)
    labels[rng.random(labels.shape) < 0.2] = np.nan
    labels[:5] = np.nan
    for probe in (knn_probe, linear_probe):
        both = probe(features, labels[:, :2], patients)
        single = [probe(features, labels[:, [i]], patients)["auroc"] for i in (0, 1)]
        assert both["auroc"] == pytest.approx(np.mean(single), abs=0.01)
        assert both["auroc"] > 0.9
        assert both["auroc"] > probe(features, labels, patients)["auroc"]


# ---- degenerate input ----


@pytest.mark.parametrize("probe", [knn_probe, linear_probe])
def test_uncertain_labels_count_like_missing_ones(probe):
    generator = np.random.default_rng(0)
    features, patients = generator.standard_normal((60, 4)), np.arange(60)
    unknown = (features[:, :2] > 0).astype(np.float32)
    unknown[:9, 1] = np.nan
    uncertain = np.where(np.isnan(unknown), -1, unknown)
    assert probe(features, uncertain, patients) == probe(features, unknown, patients)


@pytest.mark.parametrize("probe", [knn_probe, linear_probe])
def test_what_cannot_be_told_is_nan(probe):
    features, codes, patients = clusters(patients=12)
    everything = [
        probe(features, codes, np.zeros(len(codes))),  # one patient
        probe(features, np.zeros_like(codes), patients),  # one class
        probe(features, np.full_like(codes, -1), patients),  # no label
        probe(features * np.nan, codes, patients),
    ]
    assert all(math.isnan(value) for result in everything for value in result.values())


@pytest.mark.filterwarnings("error")
def test_rare_classes_and_few_patients_are_no_error():
    features, codes, patients = clusters(patients=12)
    codes = np.where(patients == 0, 7, codes)  # a class that one patient has, codes with a gap
    for probe in (knn_probe, linear_probe):
        assert all(0 <= value <= 1 for value in probe(features, codes, patients).values())
    few = patients < 3
    linear_probe(features[few], codes[few], patients[few])
    labels = np.full((len(codes), 2), np.nan, np.float32)
    labels[:, 0] = codes == 1
    labels[:3, 1] = 1.0  # a label that one patient has
    for probe in (knn_probe, linear_probe):
        assert probe(features, labels, patients)["auroc"] == pytest.approx(
            probe(features, labels[:, :1], patients)["auroc"]
        )
