"""Validating and testing a classifier: scores of whole scans, metrics with intervals, a table of predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from scanlearn.catalog.labels import Labels
from scanlearn.console import say
from scanlearn.engine.embedding import embed_scans
from scanlearn.engine.learner import Learner
from scanlearn.engine.run_folder import RunFolder
from scanlearn.errors import ScanlearnError
from scanlearn.files import replacing
from scanlearn.networks.network import Network
from scanlearn.objectives.classify import Classify
from scanlearn.scans.store import Store
from scanlearn.tasks.classification_metrics import classification_metrics, youden_threshold
from scanlearn.tasks.targets import labelled_parts
from scanlearn.tasks.trained import probabilities

PER = ("scan", "study")


def test_classifier(
    network: Network,
    head: Classify,
    store: Store,
    column: Labels,
    facts: dict[str, Any],
    run: RunFolder,
    device: torch.device,
) -> dict[str, Any]:
    """Score validation and test scans; see ``judge``."""
    rows = labelled_parts(store, column)
    scores = {part: scan_scores(network, head.answers, store, at, facts, device) for part, at in rows.items()}
    return judge(scores, rows, store, column, facts, run)


@torch.no_grad()
def scan_scores(
    network: Network,
    answers: Callable[[Tensor], Tensor],
    store: Store,
    rows: np.ndarray,
    facts: dict[str, Any],
    device: torch.device,
) -> np.ndarray:
    """Probabilities of scans, float32 (n, K).

    Of one crop those of the scan's (mean) features; of ten the mean of their ten probabilities, as the papers have it.

    Args:
        answers: features (n, num_features) -> logits (n, K).
        facts: of the run: ``input_size``, ``multilabel``, ``crops``.
    """

    def scored(features: Tensor) -> Tensor:
        return probabilities(answers(features), facts["multilabel"])

    where: dict[str, Any] = {"size": facts["input_size"], "device": device, "crops": facts["crops"]}
    if facts["crops"] > 1:
        return embed_scans(lambda images: scored(network.pooled(images)), store, rows, **where)
    features = embed_scans(network.pooled, store, rows, **where)
    return scored(torch.from_numpy(features).to(device)).cpu().numpy()


@dataclass(frozen=True)
class Cases:
    """What is judged, n scans or studies: ``rows`` (n,) of the store (of a study's first scan), ``scores`` (n, K) and
    ``codes`` (n,) or (n, K)."""

    rows: np.ndarray
    scores: np.ndarray
    codes: np.ndarray


def judge(
    scores: dict[str, np.ndarray],
    rows: dict[str, np.ndarray],
    store: Store,
    column: Labels,
    facts: dict[str, Any],
    run: RunFolder,
) -> dict[str, Any]:
    """Metrics on the test part; the threshold of two classes or several labels is chosen on the validation part.

    Where studies are judged, ``test_per_scan`` says how good the same scores are scan by scan. Patients are resampled in
    either. Writes predictions.parquet: scan_id, part, true class, a score for each class; no patient is named.
    """
    scans = {part: Cases(rows[part], scores[part], column.codes[rows[part]]) for part in rows}
    if facts.get("per") == "study":
        studies = {part: of_studies(cases, study_numbers(store, cases.rows)) for part, cases in scans.items()}
        return {
            **_judged(studies, store, column, facts, run),
            "test_per_scan": _metrics(scans, store, column, facts)[0],
        }
    return _judged(scans, store, column, facts, run)


def _judged(
    cases: dict[str, Cases], store: Store, column: Labels, facts: dict[str, Any], run: RunFolder
) -> dict[str, Any]:
    write_predictions(run, store, column, cases)
    metrics, chosen = _metrics(cases, store, column, facts)
    absent = [name for name, figures in metrics["classes"].items() if np.isnan(figures["auroc"]["value"])]
    if absent:
        say(f"  not judged, as the test part has no positive or no negative case of them: {', '.join(absent)}")
    return {"test": metrics, "threshold": chosen}


def _metrics(
    cases: dict[str, Cases], store: Store, column: Labels, facts: dict[str, Any]
) -> tuple[dict[str, Any], str]:
    """(metrics of the test part, how the threshold was chosen)."""
    threshold: Any = 0.5
    chosen = "0.5"
    if len(column.classes) == 2 or facts["multilabel"]:
        threshold, chosen = choose_thresholds(cases["val"], column.classes)
    test, over = cases["test"], facts.get("mean_over")
    patients = store.catalog.patients[test.rows]
    metrics = classification_metrics(
        test.scores, test.codes, column.classes, patients, threshold=threshold, mean_over=over
    )
    return metrics, chosen


def choose_thresholds(validation: Cases, classes: Sequence[str]) -> tuple[np.ndarray, str]:
    """(threshold of each question, how they were chosen): one half for a class that the validation part cannot choose for."""
    found = youden_threshold(validation.scores, validation.codes, classes)
    lacking = [name for name, value in zip(classes[len(classes) - len(found) :], found, strict=True) if np.isnan(value)]
    how = "largest sensitivity + specificity on the validation part"
    if lacking:
        why = f"0.5 for {', '.join(lacking)}, of which the validation part has no positive or no negative case"
        how = why if len(lacking) == len(found) else f"{how}; {why}"
    return np.where(np.isnan(found), 0.5, found), how


def study_numbers(store: Store, rows: np.ndarray) -> np.ndarray:
    """int64 (n,): the study of each scan; a study is one patient's, whatever it is called."""
    study = store.catalog.codes("study_id")[rows].astype(np.int64)
    if (study == 0).any():
        raise ScanlearnError(
            f"{int((study == 0).sum())} of {len(rows)} scans have no study, so studies cannot be judged: use --per scan, or "
            "prepare the store from a table with a column study."
        )
    patient = store.catalog.codes("patient_id")[rows].astype(np.int64)
    return patient * (int(study.max(initial=0)) + 1) + study


def of_studies(cases: Cases, study: np.ndarray) -> Cases:
    """The studies (n,) of scans: the highest probability of each class; present if any scan says so, else uncertain if
    any does, else absent if any does."""
    _, first, number = np.unique(study, return_index=True, return_inverse=True)
    scores = np.full((len(first), cases.scores.shape[1]), -np.inf, np.float32)
    np.maximum.at(scores, number, cases.scores)
    weight = np.select([cases.codes == 1, cases.codes == -1, cases.codes == 0], [2, 1, 0], -1)
    strongest = np.full(scores.shape, -1)
    np.maximum.at(strongest, number, weight)
    return Cases(cases.rows[first], scores, np.array([np.nan, 0, -1, 1], np.float32)[strongest + 1])


def write_predictions(run: RunFolder, store: Store, column: Labels, cases: dict[str, Cases]) -> None:
    """predictions.parquet in the run folder; of several labels the truth is written as in a label column."""
    names = np.asarray(store.catalog.column("scan_id"))
    tables = []
    for part, found in cases.items():
        data = {"scan_id": names[found.rows], "part": [part] * len(found.rows), "row": found.rows}
        data |= {"truth": truth_words(found.codes, column.classes)}
        data |= {f"score_{name}": found.scores[:, i] for i, name in enumerate(column.classes)}
        tables.append(pa.table(data))
    with replacing(run.path / "predictions.parquet") as temporary:
        pq.write_table(pa.concat_tables(tables), temporary)


def truth_words(codes: np.ndarray, classes: Sequence[str]) -> list[str]:
    """The class of each case, or its labels: "Mass|?Edema", where ? stands before what is not known; "" for none."""
    if codes.ndim == 1:
        return [classes[c] for c in codes]
    signs = np.select([codes == 1, codes == 0], ["", "-"], "?")
    return ["|".join(s + c for s, c in zip(row, classes, strict=True) if s != "-") for row in signs]


def truth_codes(words: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """float32 (n, K) of 1, 0 and NaN from ``truth_words`` of several labels."""
    place = {sign + name: (i, value) for i, name in enumerate(classes) for sign, value in (("", 1.0), ("?", np.nan))}
    codes = np.zeros((len(words), len(classes)), np.float32)
    for row, cell in enumerate(words):
        for word in cell.split("|") if cell else ():
            at, value = place[word]
            codes[row, at] = value
    return codes


def classification_loss(
    learner: Learner, objective: Classify, store: Store, rows: np.ndarray, column: Labels, size: list[int]
) -> float:
    """The objective's loss on the mean features of whole scans, with their labels in ``column``."""
    device = next(learner.parameters()).device
    features = embed_scans(learner.network.pooled, store, rows, size=size, device=device)
    logits = objective.head(torch.from_numpy(features).to(device)).float()
    return float(objective.loss(logits, torch.from_numpy(column.codes[rows]).to(device)))
