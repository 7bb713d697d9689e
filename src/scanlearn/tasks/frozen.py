"""Frozen fine-tuning: a logistic regression on features that no label has touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from scanlearn.catalog.labels import Labels
from scanlearn.console import say
from scanlearn.engine.device import start_fabric
from scanlearn.engine.leaks import Checked, keep_apart
from scanlearn.engine.recipe import Recipe
from scanlearn.engine.resume import facts_of
from scanlearn.engine.run_folder import RunFolder
from scanlearn.engine.train import Training, write_facts
from scanlearn.errors import ScanlearnError
from scanlearn.files import write_json
from scanlearn.scans.store import Store
from scanlearn.tasks.classify import judge
from scanlearn.tasks.probe import features_of
from scanlearn.tasks.targets import labelled_parts
from scanlearn.tasks.trained import probabilities, save_head
from scanlearn.weights.encoder import load_network, save_network, terms_of

ALWAYS = 30.0  # logit of what is always there


def finetune_frozen(
    store: Store,
    init: str,
    column: Labels,
    taught: Labels,
    rows: np.ndarray,
    out: Path,
    facts: dict[str, Any],
    plan: Recipe,
    checked: Checked,
) -> dict[str, Any]:
    """Fit on the labelled rows, test on the test part. The head is stored as a linear layer on the raw features.

    ``column`` holds the labels of the test, ``taught`` those that are fitted.
    """
    if init == "none":
        raise ScanlearnError("mode frozen needs features: give the run whose encoder makes them with --init.")
    if facts["crops"] > 1 or plan.objectives["classify"]["three_way"]:
        raise ScanlearnError("mode frozen fits yes and no on whole scans: use --crops 1 and no policy multiclass.")
    parts = labelled_parts(store, column)
    training = Training(rows=rows, labels=column.codes, parts={"fine-tuning": rows, **parts}, checked=checked)
    checked.add(keep_apart(store, training.parts))
    run = RunFolder(out)
    run.create(resume=False)
    with run.held():
        return _fit_and_test(store, init, column, taught, training, parts, facts, plan, run)


def _fit_and_test(
    store: Store,
    init: str,
    column: Labels,
    taught: Labels,
    training: Training,
    parts: dict[str, np.ndarray],
    facts: dict[str, Any],
    plan: Recipe,
    run: RunFolder,
) -> dict[str, Any]:
    rows = training.rows
    features = {part: features_of(init, store, which) for part, which in {"train": rows, **parts}.items()}
    weight, bias = logistic_regression(
        features.pop("train"), taught.codes[rows], facts["multilabel"], len(column.classes)
    )
    head = {"head.1.weight": torch.from_numpy(weight), "head.1.bias": torch.from_numpy(bias)}
    notes = {"input_size": facts["input_size"], "task": "classify", "init": facts["init"], **terms_of(init)}
    if "licence_notice" in notes:
        say(notes["licence_notice"])
    save_network(load_network(init), run.encoder, **notes)
    save_head(head, run.encoder, facts)
    scores = {
        part: probabilities(torch.from_numpy(x @ weight.T + bias), facts["multilabel"]).numpy()
        for part, x in features.items()
    }
    tested = judge(scores, parts, store, column, facts, run)
    results = {**facts, "steps": 0, **tested}
    write_json(run.results, results)
    # Last, as it makes the folder that of a run: whatever stopped before is simply done again.
    about = facts_of(store, rows, start_fabric("32-true"), facts["seed"], init)
    write_facts(run, plan, store, training, about)
    return results


def logistic_regression(
    features: np.ndarray, codes: np.ndarray, multilabel: bool, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """(weight (K, d), bias (K,)) float32 on raw features, fitted on standardised ones (scikit-learn, C = 5 / d).

    Two classes become the logits (0, z); labels of several kinds are fitted one by one on the scans that have them, one
    of 0.7 as seven parts present and three parts absent. One that all of them have, or none, is always or never there.
    """
    mean, spread = features.mean(0), features.std(0) + 1e-6
    x = (features - mean) / spread
    if multilabel:
        fits = [_fit_label(x, label) for label in codes.T]
        weight = np.stack([w[0] for w, _ in fits])
        bias = np.array([b[0] for _, b in fits])
    else:
        weight, bias = np.zeros((classes, x.shape[1])), np.full(classes, -ALWAYS)  # a class without a label: never
        present = np.unique(codes)
        w, b = _fit(x, codes)
        if len(present) == 2:
            w, b = np.concatenate([np.zeros_like(w), w]), np.concatenate([np.zeros_like(b), b])
        weight[present], bias[present] = w, b
    return (weight / spread).astype(np.float32), (bias - (weight / spread) @ mean).astype(np.float32)


def _fit_label(x: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As ``_fit``, for one label of several, NaN where it is not known; few scans may all lack a rare finding."""
    known = ~np.isnan(label)
    if len(np.unique(label[known])) > 1 or (label[known] % 1).any():
        return _fit_shares(x[known], label[known])
    return np.zeros((1, x.shape[1])), np.array([ALWAYS if (label[known] == 1).any() else -ALWAYS])


def _fit_shares(x: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As ``_fit``, for labels that say what share of a scan is present."""
    if ((share == 0) | (share == 1)).all():
        return _fit(x, share.astype(int))
    answers = np.repeat([1, 0], len(x))
    return _fit(np.concatenate([x, x]), answers, np.concatenate([share, 1 - share]))


def _fit(x: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    if len(np.unique(y)) < 2:
        raise ScanlearnError("The labelled scans are all of one class: choose more labels.")
    with threadpool_limits(1):  # two threads on problems this small only wait for each other
        model = LogisticRegression(C=5.0 / x.shape[1], max_iter=1000).fit(x, y, weight)
    return model.coef_, model.intercept_
