"""Classifiers that learn from a few features, for many episodes at once: support (E, W, k, d), query (E, Q, d) -> (E, Q, W).

All take float64 and return logits whose softmax over W is the probability. Sources: Snell 2017 (prototypes), Wang 2019
(SimpleShot), Tian 2020 (logistic regression on normalised features).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Classifier = Callable[[np.ndarray, np.ndarray], np.ndarray]


def prototypes(support: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Minus the *squared* Euclidean distance to the mean of each class (Snell, equation 2)."""
    return -squared_distances(query, support.mean(2))


def cosine(support: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Cosine between the query and the mean of each class."""
    return unit(query) @ unit(support.mean(2)).swapaxes(1, 2)


def simpleshot(support: np.ndarray, query: np.ndarray) -> np.ndarray:
    """``prototypes`` of features that are centred and brought to length 1; the means keep the length they have.

    The centre is the mean of the episode's support: there are no base classes here to take it from.
    """
    return prototypes(*centred(support, query))


def nearest(support: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Minus the squared Euclidean distance to the nearest support of each class."""
    ways, shots = support.shape[1:3]
    return -squared_distances(query, flat(support)).reshape(*query.shape[:2], ways, shots).min(3)


def logistic(support: np.ndarray, query: np.ndarray, c: float = 1.0, steps: int = 200) -> np.ndarray:
    """Multinomial logistic regression on features as ``simpleshot`` takes them.

    Minimises ``c * sum of cross-entropies + |W|^2 / 2``; the intercept is one more feature, constant 1. The weights lie
    in the span of the support, so that what is descended (Nesterov, strongly convex) is one number a support and class.
    """
    support, query = centred(support, query)
    ways, shots = support.shape[1:3]
    x = flat(support)
    gram = x @ x.swapaxes(1, 2) + 1.0
    truth = np.repeat(np.eye(ways), shots, axis=0)
    smooth = 1.0 + 0.5 * c * np.linalg.eigvalsh(gram)[:, -1][:, None, None]  # largest curvature; the smallest is 1
    momentum = (np.sqrt(smooth) - 1) / (np.sqrt(smooth) + 1)
    weights = ahead = np.zeros((len(x), ways * shots, ways))
    for _ in range(steps):
        moved = ahead - (c * (softmax(gram @ ahead) - truth) + ahead) / smooth
        weights, ahead = moved, moved + momentum * (moved - weights)
    return (query @ x.swapaxes(1, 2) + 1.0) @ weights


CLASSIFIERS: dict[str, Classifier] = {
    "prototypes": prototypes,
    "cosine": cosine,
    "simpleshot": simpleshot,
    "logistic": logistic,
    "nearest": nearest,
}


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(E, Q, M) between a (E, Q, d) and b (E, M, d); the common offset is taken off first, as it only costs digits."""
    offset = b.mean(1, keepdims=True)
    a, b = a - offset, b - offset
    squares = (a**2).sum(2)[:, :, None] - 2 * a @ b.swapaxes(1, 2) + (b**2).sum(2)[:, None]
    return np.maximum(squares, 0.0)


def centred(support: np.ndarray, query: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both less the mean of the support, then of length 1."""
    centre = support.mean((1, 2), keepdims=True)
    return unit(support - centre), unit(query - centre[:, 0])


def unit(x: np.ndarray) -> np.ndarray:
    """Vectors of length 1; the zero vector stays what it is."""
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def flat(support: np.ndarray) -> np.ndarray:
    """(E, W, k, d) -> (E, W * k, d)."""
    return support.reshape(len(support), -1, support.shape[-1])


def softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    raised = np.exp(logits - logits.max(-1, keepdims=True))
    return raised / raised.sum(-1, keepdims=True)
