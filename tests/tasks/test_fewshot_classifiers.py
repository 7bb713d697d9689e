import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from scanlearn.tasks.fewshot.classifiers import CLASSIFIERS, centred, flat, logistic, softmax


@pytest.fixture
def episodes():
    """Support (E, W, k, d) and query (E, Q, d) around the means of three classes."""
    rng = np.random.default_rng(0)
    means = rng.normal(size=(4, 3, 1, 6))
    return means + 0.5 * rng.normal(size=(4, 3, 5, 6)), rng.normal(size=(4, 7, 6))


def test_prototypes_are_snells_equation_with_the_squared_distance_worked_by_hand():
    support = np.array([[[[0.0, 0.0], [2.0, 0.0]], [[0.0, 3.0], [0.0, 5.0]]]])  # means (1, 0) and (0, 4)
    query = np.array([[[1.0, 1.0], [0.0, 2.0]]])
    logits = CLASSIFIERS["prototypes"](support, query)
    np.testing.assert_allclose(logits, [[[-1.0, -10.0], [-5.0, -4.0]]], atol=1e-12)
    loss = -np.log(softmax(logits))[0, [0, 1], [0, 1]].mean()  # mean negative log-likelihood of the true classes 0, 1
    assert loss == pytest.approx((math.log1p(math.exp(-9)) + math.log1p(math.exp(-1))) / 2, abs=1e-12)


def test_every_classifier_equals_a_plain_loop(episodes):
    support, query = episodes
    norm = np.linalg.norm
    for e in range(len(support)):
        centre = support[e].reshape(-1, 6).mean(0)
        short = lambda v, c=centre: (v - c) / norm(v - c)  # noqa: E731
        for q in range(query.shape[1]):
            x = query[e, q]
            for w in range(3):
                mean = support[e, w].mean(0)
                lengths = np.mean([short(s) for s in support[e, w]], axis=0)
                expected = {
                    "prototypes": -(norm(x - mean) ** 2),
                    "cosine": x @ mean / norm(x) / norm(mean),
                    "simpleshot": -(norm(short(x) - lengths) ** 2),
                    "nearest": -min(norm(x - s) ** 2 for s in support[e, w]),
                }
                for name, value in expected.items():
                    assert CLASSIFIERS[name](support, query)[e, q, w] == pytest.approx(value, abs=1e-10), name


@pytest.mark.parametrize("ways", [2, 3])
@pytest.mark.parametrize("c", [1.0, 30.0])
def test_logistic_regression_is_the_one_of_scikit_learn(episodes, ways, c):
    support, query = episodes[0][:, :ways], episodes[1]
    found = softmax(logistic(support, query, c, steps=1000))
    x, asked = centred(support, query)
    with_one = lambda v: np.concatenate([v, np.ones((*v.shape[:-1], 1))], axis=-1)  # noqa: E731
    for e in range(len(support)):
        # With two classes scikit-learn has one vector where we have two opposite ones of half its length.
        model = LogisticRegression(C=c * (2 if ways == 2 else 1), fit_intercept=False, tol=1e-10, max_iter=5000)
        model.fit(with_one(flat(x))[e], np.repeat(np.arange(ways), support.shape[2]))
        np.testing.assert_allclose(found[e], model.predict_proba(with_one(asked)[e]), atol=1e-4)


def test_the_default_number_of_steps_has_converged_for_fifteen_shots_of_five_ways():
    rng = np.random.default_rng(1)
    support, query = rng.normal(size=(2, 5, 15, 512)) + rng.normal(size=(1, 5, 1, 512)), rng.normal(size=(2, 9, 512))
    np.testing.assert_allclose(logistic(support, query), logistic(support, query, steps=2000), atol=1e-8)


def test_an_offset_that_all_features_share_moves_no_distance(episodes):
    support, query = episodes
    for name in ("prototypes", "simpleshot", "nearest", "logistic"):
        near, far = (CLASSIFIERS[name](support + shift, query + shift) for shift in (0.0, 1e4))
        np.testing.assert_allclose(near, far, atol=1e-6)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_features_that_are_all_alike_give_no_preference_and_no_nan(name):
    logits = CLASSIFIERS[name](np.ones((2, 2, 3, 4)), np.ones((2, 5, 4)))
    np.testing.assert_allclose(logits - logits[..., :1], 0, atol=1e-9)
