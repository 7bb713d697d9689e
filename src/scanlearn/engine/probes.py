"""What frozen features are worth, measured while a network learns: have they collapsed, do neighbours share a label,
can a linear model read the label off them. Pure functions over arrays; nothing here touches a network."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional

from scanlearn.catalog.groups import first_seen

Array = np.ndarray | Tensor

NAN = float("nan")


def rankme(features: Array) -> float:
    """Effective rank of features (N, d): exp of the entropy of their singular values, between 1 and min(N, d).

    0 for features that are all zero, NaN where one is not finite. Source: Garrido et al., "RankMe", ICML 2023, eq. 1-2.
    """
    x = _numpy(features, np.float64)
    if not np.isfinite(x).all():
        return NAN
    # The smaller Gram matrix has the squared singular values: ten times faster than the decomposition of x itself,
    # and what rounding hides (below 1e-8 of the largest) lies under the epsilon of the definition.
    gram = x.T @ x if x.shape[0] >= x.shape[1] else x @ x.T
    singular = np.sqrt(np.clip(np.linalg.eigvalsh(gram), 0, None))
    if singular.sum() == 0:
        return 0.0
    share = singular / singular.sum() + 1e-7
    return float(np.exp(-(share * np.log(share)).sum()))


def feature_std(features: Array) -> float:
    """Spread of L2-normalised features (N, d): mean over the dimensions of their standard deviation, times sqrt(d).

    1 where directions are spread evenly over the sphere, about 0.6 where they are but a ReLU left no negative value,
    0 where every scan gets the same direction. Source: Chen & He, SimSiam, CVPR 2021, figure 2.
    """
    x = _unit(_tensor(features).double())
    return float(x.std(dim=0).mean() * math.sqrt(x.shape[1]))


def alignment_uniformity(a: Array, b: Array) -> tuple[float, float]:
    """How near the features of two views of one scan are, and how evenly scans cover the sphere; a, b (N, d), paired.

    Returns (alignment, uniformity): the mean squared distance of a pair (0..4, smaller is better), and the log of the
    mean of exp(-2 distance**2) over all pairs of different scans, mean of both views (-8..0, smaller is better).
    Source: Wang & Isola, ICML 2020, alpha = t = 2.
    """
    first, second = _unit(_tensor(a).double()), _unit(_tensor(b).double())
    if first.shape != second.shape:
        raise ValueError(f"the two views have features of shapes {tuple(first.shape)} and {tuple(second.shape)}")
    alignment = (first - second).square().sum(dim=1).mean()
    uniformity = (_uniformity(first) + _uniformity(second)) / 2
    return float(alignment), float(uniformity)


def _uniformity(x: Tensor) -> Tensor:
    # |x - y|^2 = 2 - 2 x.y on the sphere: one matrix product instead of all differences.
    count = len(x)
    if count < 2:
        return x.new_tensor(NAN)
    potential = torch.exp(4 * (x @ x.T) - 4)
    return ((potential.sum() - potential.diagonal().sum()) / (count * (count - 1))).log()


def knn_probe(features: Array, codes: Array, patients: Any, k: int = 20, temperature: float = 0.1) -> dict[str, float]:
    """Can a scan's label be told from the k scans of *other patients* that lie nearest by cosine similarity?

    Every scan is asked once; neighbours vote with weight exp(similarity / temperature) (Wu et al., CVPR 2018, §3.4).
    Exact: similarities are matrix products of blocks, N**2 of them, so sample scans first when N is beyond 50,000.

    Args:
        features: (N, d), on any device.
        codes: int (N,) with -1 for missing, or float (N, K) for several labels a scan: 0, 1, and -1 (uncertain) or NaN.
        patients: (N,) whose scans they are; anything that np.unique takes.

    Returns:
        ``accuracy`` (of the largest vote; mean over all labels with more than half of the votes for (N, K) codes) and
        ``auroc`` (of the last class when there are two, else mean of one class against the rest). NaN where it cannot
        be told: a single patient, a single class, features that are not finite.
    """
    targets, keep, several = _targets(codes)
    x = _tensor(features)
    x = _unit(x[torch.from_numpy(keep).to(x.device)].float())
    patient = torch.from_numpy(np.unique(np.asarray(patients)[keep], return_inverse=True)[1]).to(x.device)
    if len(x) == 0 or int(patient.max()) == 0 or not bool(torch.isfinite(x).all()):
        return {"accuracy": NAN, "auroc": NAN}
    target = torch.from_numpy(targets).to(x)
    known, value = (~target.isnan()).to(x), target.nan_to_num()
    votes = []
    for block, owner in zip(x.split(1024), patient.split(1024), strict=True):
        similarity = (block @ x.T).masked_fill_(owner[:, None] == patient, -math.inf)
        near, index = similarity.topk(min(k, len(x) - 1), dim=1)
        weight = ((near - near[:, :1]) / temperature).exp()[:, None]  # (block, 1, k); 0 for the patient's own scans
        votes.append(((weight @ value[index]) / (weight @ known[index]))[:, 0])
    return _judge(targets, torch.cat(votes).cpu().numpy(), several, ap=False)


def linear_probe(
    features: Array, codes: Array, patients: Any, folds: int = 5, seed: int = 0, strength: float | None = None
) -> dict[str, float]:
    """Logistic regression on frozen features, cross-validated so that no patient is in two folds.

    Features are standardised by the training part of each fold; scores of all held-out parts are judged together.

    Args:
        features, codes, patients: as ``knn_probe``; several labels are fitted one by one on the scans that have them.
        folds: at most as many as there are patients; stratified by class where a scan has one label.
        strength: scikit-learn's ``C``. Default 5 / d: a prior under which the logit's spread does not grow with the
            width d of the network, so encoders of different widths are judged alike.

    Returns:
        ``auroc`` and ``ap`` (average precision), of the last class when there are two, else the mean over classes,
        and ``accuracy``. NaN where it cannot be told, as in ``knn_probe``.
    """
    targets, keep, several = _targets(codes)
    x, patient = _numpy(features)[keep], first_seen(np.asarray(patients)[keep])  # folds that no salt changes
    folds = min(folds, len(np.unique(patient)))
    if not several:  # the stratified splitter refuses more folds than the largest class has scans
        folds = min(folds, int(targets.sum(0).max(initial=0)))
    if folds < 2 or not np.isfinite(x).all():
        return {"auroc": NAN, "ap": NAN, "accuracy": NAN}
    strength = 5.0 / x.shape[1] if strength is None else strength
    scores = np.full(targets.shape, NAN)
    for train, held_out in _folds(targets, patient, folds, seed, several):
        if len(train) == 0 or len(held_out) == 0:  # the stratified splitter may leave a fold empty
            continue
        scaler = StandardScaler().fit(x[train])
        seen, unseen = scaler.transform(x[train]), scaler.transform(x[held_out])
        if several:
            for label in range(targets.shape[1]):
                known = ~np.isnan(targets[train, label])
                scores[held_out, label] = _fit(seen[known], targets[train[known], label], unseen, 2, strength)[:, 1]
        else:
            scores[held_out] = _fit(seen, targets[train].argmax(1), unseen, targets.shape[1], strength)
    return _judge(targets, scores, several, ap=True)


def _folds(
    targets: np.ndarray, patient: np.ndarray, folds: int, seed: int, several: bool
) -> list[tuple[np.ndarray, np.ndarray]]:
    if several:
        return list(GroupKFold(folds, shuffle=True, random_state=seed).split(targets, groups=patient))
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class rarer than the folds: expected here, judged all the same
        return list(splitter.split(targets, targets.argmax(1), patient))


def _fit(x: np.ndarray, classes: np.ndarray, unseen: np.ndarray, count: int, strength: float) -> np.ndarray:
    """(n, count) probabilities for the unseen; a class that the training part lacks gets 0."""
    present = np.unique(classes).astype(int)
    scores = np.zeros((len(unseen), count)) if len(present) else np.full((len(unseen), count), NAN)
    if len(present) < 2:
        scores[:, present] = 1.0
        return scores
    # 200 iterations are far more than the default strength needs (20-70 at d = 512); with a weak penalty the cap stops
    # a fit that would only push separable classes further apart.
    model = LogisticRegression(C=strength, max_iter=200)
    # Products this small are ten times slower on two threads than on one, and worse where other threads spin.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        scores[:, present] = model.fit(x, classes).predict_proba(unseen)
    return scores


def collapse_warning(measured: dict[str, float]) -> str | None:
    """One sentence for the person if the measures say that features collapse, else None.

    Reads ``feature_std`` and ``rankme``, whichever are there. Every threshold lies below what an untrained ResNet gives
    for radiographs that look alike, so a network that has only just started is not accused.
    """
    spread, rank = measured.get("feature_std"), measured.get("rankme")
    if any(value is not None and not math.isfinite(value) for value in (spread, rank)):
        return "The features are not finite any more: the run has diverged; lower the learning rate or use fp32."
    if spread is not None and spread < 0.01:
        return (
            f"The features have collapsed: all scans get the same features (feature_std {spread:.4f}, healthy is above "
            "0.1); lower the learning rate, or check that the views differ and that the objective compares scans."
        )
    if rank is not None and rank < 2:
        return (
            f"The features have collapsed to a line (rankme {rank:.1f}): scans differ in one direction only; lower the "
            "learning rate, enlarge the batch or weaken the objective that dominates."
        )
    return None


def _targets(codes: Array) -> tuple[np.ndarray, np.ndarray, bool]:
    """Targets (n, K) float32 with NaN for missing or uncertain, which of the N scans have any, and whether labels are several."""
    values = _numpy(codes, None)
    if values.ndim == 2:
        values = np.where(values < 0, NAN, values)
        keep = ~np.isnan(values).all(axis=1)
        return values[keep].astype(np.float32), keep, True
    keep = values >= 0
    return (values[keep, None] == np.unique(values[keep])).astype(np.float32), keep, False


def _judge(targets: np.ndarray, scores: np.ndarray, several: bool, ap: bool) -> dict[str, float]:
    """Accuracy, macro AUROC and average precision of scores (n, K) against targets (n, K); NaN cells do not count."""
    cells = ~(np.isnan(targets) | np.isnan(scores))
    accuracy = NAN
    if several and cells.any():
        accuracy = float(((scores > 0.5) == (targets > 0.5))[cells].mean())
    told = cells.all(axis=1)
    if not several and targets.shape[1] > 1 and told.any():
        accuracy = float((scores[told].argmax(1) == targets[told].argmax(1)).mean())
    columns = [1] if not several and targets.shape[1] == 2 else list(range(targets.shape[1]))
    # A class (or label) that all scans have, or none, has no ranking to judge.
    columns = [c for c in columns if len(np.unique(targets[cells[:, c], c])) == 2]
    result = {"auroc": _mean([roc_auc_score(targets[cells[:, c], c], scores[cells[:, c], c]) for c in columns])}
    if ap:
        parts = [average_precision_score(targets[cells[:, c], c], scores[cells[:, c], c]) for c in columns]
        result["ap"] = _mean(parts)
    return {**result, "accuracy": accuracy}


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else NAN


def _unit(x: Tensor) -> Tensor:
    return functional.normalize(x, dim=1)


def _tensor(values: Array) -> Tensor:
    return values.detach() if isinstance(values, Tensor) else torch.from_numpy(np.ascontiguousarray(values))


def _numpy(values: Array, dtype: Any = np.float32) -> np.ndarray:
    if isinstance(values, Tensor):
        values = values.detach()
        values = (values.float() if values.dtype == torch.bfloat16 else values).cpu().numpy()
    return np.asarray(values, dtype)
