import numpy as np
import pytest
from sklearn import metrics as sk

from scanlearn.tasks.bootstrap import PatientBootstrap
from scanlearn.tasks.fewshot.metrics import FIGURES, judge, pooled_auc, summary

E, Q = 12, 20


def cases(ways, seed=0):
    """Logits with ties, truth with gaps (-1), and the patient of each query out of nine."""
    rng = np.random.default_rng(seed)
    truth = np.tile(np.arange(Q) % ways, (E, 1))
    logits = rng.integers(0, 4, (E, Q, ways)) + 1.5 * (truth[..., None] == np.arange(ways))
    truth[3, 5:9] = -1
    return logits.astype(float), truth, rng.integers(0, 9, (E, Q))


def plain(logits, truth, ways):
    """The figures by scikit-learn, of one episode or of one resample of it."""
    said = logits.argmax(1)
    asked = range(ways) if ways > 2 else [1]
    each = []
    for w in asked:
        positive = truth == w
        margin = logits[:, w] - np.log(np.exp(np.delete(logits, w, 1)).sum(1))
        each.append(
            [
                (said == truth).mean(),
                sk.precision_score(positive, said == w, zero_division=0),
                sk.recall_score(positive, said == w),
                sk.recall_score(~positive, said != w),
                sk.f1_score(positive, said == w),
                sk.roc_auc_score(positive, np.round(margin, 9)),
            ]
        )
    return np.mean(each, axis=0)


@pytest.mark.parametrize("ways", [2, 3])
def test_the_figures_of_an_episode_are_those_of_scikit_learn(ways):
    logits, truth, patients = cases(ways)
    values, means, _ = judge(logits, truth, patients, PatientBootstrap(np.arange(9), 0, 0))
    expected = [plain(logits[e][truth[e] >= 0], truth[e][truth[e] >= 0], ways) for e in range(E)]
    np.testing.assert_allclose(values, expected, atol=1e-9)
    np.testing.assert_allclose(means, [np.mean(expected, axis=0)], atol=1e-9)


@pytest.mark.parametrize("ways", [2, 3])
def test_a_resample_counts_every_query_as_often_as_its_patient_was_drawn(ways):
    logits, truth, patients = cases(ways)
    resamples = PatientBootstrap(np.arange(9), 3, 0)
    _, means, _ = judge(logits, truth, patients, resamples)
    for b in range(1, 4):
        each = []
        for e in range(E):
            times = resamples.counts[b, patients[e]] * (truth[e] >= 0)
            each.append(plain(np.repeat(logits[e], times, axis=0), np.repeat(truth[e], times), ways))
        np.testing.assert_allclose(means[b], np.mean(each, axis=0), atol=1e-9)


def test_an_episode_never_answered_with_yes_has_precision_0_and_is_counted():
    logits, truth = np.zeros((2, 4, 2)), np.array([[0, 0, 1, 1]] * 2)
    logits[1, 3, 1] = 1.0
    values, _, silent = judge(logits, truth, np.array([[0, 1, 2, 3]] * 2), PatientBootstrap(np.arange(4), 0, 0))
    assert silent == 1
    np.testing.assert_allclose(values, [[0.5, 0, 0, 1, 0, 0.5], [0.75, 1, 0.5, 1, 2 / 3, 0.75]])


def test_distances_so_large_that_probabilities_are_all_one_still_rank():
    logits = np.array([[[0.0, -9000.0], [0.0, -4000.0], [0.0, 5000.0], [0.0, -1000.0]]])
    values, _, _ = judge(logits, np.array([[0, 0, 1, 1]]), np.arange(4)[None], PatientBootstrap(np.arange(4), 0, 0))
    assert values[0, FIGURES.index("auc")] == 1.0


def test_the_episode_interval_is_1_96_standard_errors_of_the_episodes_and_the_other_one_percentiles():
    values, means = np.full((4, 6), np.nan), np.full((101, 6), np.nan)
    values[:, 0], means[:, 0] = [0.4, 0.6, 0.8, 1.0], [0.7, *np.linspace(0, 1, 100)]
    found = summary(values, means)
    half = 1.96 * np.std([0.4, 0.6, 0.8, 1.0], ddof=1) / 2
    assert found["accuracy"]["episode_interval"] == pytest.approx({"low": 0.7 - half, "high": 0.7 + half})
    assert found["accuracy"]["patient_interval"] == pytest.approx({"low": 0.025, "high": 0.975, "skipped": 0})
    assert found["auc"]["episodes"] == 0 and np.isnan(found["auc"]["mean"])


@pytest.mark.parametrize("ways", [2, 3])
def test_the_pooled_auc_compares_every_pair_of_queries_of_all_episodes(ways):
    logits, truth, _ = cases(ways)
    yes, no = [], []
    for e, q in np.argwhere(truth >= 0):
        for w in range(ways) if ways > 2 else [1]:
            margin = logits[e, q, w] - np.log(np.exp(np.delete(logits[e, q], w)).sum())
            (yes if truth[e, q] == w else no).append(round(margin, 9))
    wanted = np.mean([(a > b) + (a == b) / 2 for a in yes for b in no])
    assert pooled_auc(np.round(logits, 9), truth) == pytest.approx(wanted, abs=1e-3)
    moved = logits + 100.0 * np.arange(E)[:, None, None] * (
        np.arange(ways) == ways - 1
    )  # another scale in each episode
    assert pooled_auc(moved, truth) < pooled_auc(logits, truth)
    assert np.isnan(pooled_auc(logits[:1, :1], truth[:1, :1])) == (ways == 2)
