"""Validating and testing a classifier: scores of whole scans, metrics with intervals, a table of predictions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from scanlearn.catalog.labels import Labels
from scanlearn.engine.embedding import embed_scans
from scanlearn.engine.learner import Learner
from scanlearn.engine.run_folder import RunFolder
from scanlearn.errors import ScanlearnError
from scanlearn.files import replacing
from scanlearn.networks.network import Network
from scanlearn.objectives.classify import Classify
from scanlearn.scans.store import Store
from scanlearn.tasks.classification_metrics import classification_metrics, youden_threshold
from scanlearn.tasks.trained import probabilities


def test_classifier(
    network: Network,
    head: Any,
    store: Store,
    column: Labels,
    facts: dict[str, Any],
    run: RunFolder,
    device: torch.device,
) -> dict[str, Any]:
    """Score validation and test scans; see ``judge``."""
    rows = labelled_parts(store, column)
    features = {
        part: embed_scans(network.pooled, store, which, size=facts["input_size"], device=device)
        for part, which in rows.items()
    }
    return judge(lambda x: head.head(x.to(device)).float().cpu(), features, rows, store, column, facts, run)


def labelled_parts(store: Store, column: Labels) -> dict[str, np.ndarray]:
    """Labelled rows of the validation and test parts."""
    parts = {part: np.asarray(store.splits[part]) for part in ("val", "test")}
    return {part: rows[column.labelled[rows]] for part, rows in parts.items()}


def judge(
    logits: Callable[[Tensor], Tensor],
    features: dict[str, np.ndarray],
    rows: dict[str, np.ndarray],
    store: Store,
    column: Labels,
    facts: dict[str, Any],
    run: RunFolder,
) -> dict[str, Any]:
    """Metrics on the test part; the threshold of two classes or several labels is chosen on the validation part.

    Writes predictions.parquet: scan_id, part, true class, a score for each class. No patient is named.
    """
    scores = {
        part: probabilities(logits(torch.from_numpy(x)), facts["multilabel"]).numpy() for part, x in features.items()
    }
    write_predictions(run, store, column, rows, scores)
    patients = store.catalog.patients
    several = len(column.classes) > 2 and not facts["multilabel"]
    threshold: Any = 0.5
    chosen = "0.5"
    if not several:
        try:
            threshold = youden_threshold(scores["val"], column.codes[rows["val"]], column.classes)
            chosen = "largest sensitivity + specificity on the validation part"
        except ScanlearnError as error:  # the validation part may lack a class: say so, keep one half
            chosen = f"0.5 ({error})"
    test = rows["test"]
    metrics = classification_metrics(
        scores["test"], column.codes[test], column.classes, patients[test], threshold=threshold
    )
    return {"test": metrics, "threshold": chosen}


def write_predictions(
    run: RunFolder, store: Store, column: Labels, rows: dict[str, np.ndarray], scores: dict[str, np.ndarray]
) -> None:
    """predictions.parquet in the run folder."""
    names = np.asarray(store.catalog.column("scan_id"))
    tables = []
    for part, which in rows.items():
        truth = column.codes[which]
        shown = (
            [column.classes[c] for c in truth]
            if truth.ndim == 1
            else ["|".join(name for name, on in zip(column.classes, t, strict=True) if on == 1) for t in truth]
        )
        data = {"scan_id": names[which], "part": [part] * len(which), "row": which, "truth": shown}
        data |= {f"score_{name}": scores[part][:, i] for i, name in enumerate(column.classes)}
        tables.append(pa.table(data))
    with replacing(run.path / "predictions.parquet") as temporary:
        pq.write_table(pa.concat_tables(tables), temporary)


def classification_loss(
    learner: Learner, objective: Classify, store: Store, rows: np.ndarray, column: Labels, size: list[int]
) -> float:
    """The objective's loss on the mean features of whole scans, with their labels in ``column``."""
    device = next(learner.parameters()).device
    features = embed_scans(learner.network.pooled, store, rows, size=size, device=device)
    logits = objective.head(torch.from_numpy(features).to(device)).float()
    return float(objective.loss(logits, torch.from_numpy(column.codes[rows]).to(device)))
