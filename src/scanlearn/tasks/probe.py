"""What frozen features know, before any fine-tuning: nearest neighbours and a linear classifier, kept apart by patient."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from scanlearn.engine.device import default_device
from scanlearn.engine.embedding import embed_scans
from scanlearn.engine.leaks import keep_apart, not_seen
from scanlearn.engine.probes import feature_std, knn_probe, linear_probe, rankme
from scanlearn.errors import ScanlearnError
from scanlearn.scans.store import Store, open_store
from scanlearn.weights.encoder import load_network, read_card


def part_rows(store: Store, part: str) -> np.ndarray:
    """Rows of train, val, test or all."""
    return np.arange(len(store)) if part == "all" else np.asarray(store.splits[part])


def input_size(run: str | Path, store: Store) -> tuple[int, ...]:
    """The image size that a saved network was trained on; the store's own where it was not trained yet."""
    size = read_card(run)["notes"].get("input_size")
    return tuple(size) if size else store.shape(0)


def features_of(run: str | Path, store: Store, rows: np.ndarray, batch_size: int = 64) -> np.ndarray:
    """Pooled features of scans, float32 (n, num_features), by the network saved in ``run``, in evaluation mode."""
    device = default_device()
    network = load_network(run).to(device).eval()
    return embed_scans(network.pooled, store, rows, size=input_size(run, store), device=device, batch_size=batch_size)


def probe(
    run: str | Path, store: str | Path | Store, *, target: str | None = None, part: str = "train"
) -> dict[str, Any]:
    """Probe the features of one part of a store.

    Args:
        run: a run folder, its encoder folder or a .safetensors file.
        store: a prepared data set.
        target: the label column; None takes every class or multi-label column.
        part: train | val | test | all.

    Returns:
        ``{"rankme", "feature_std", "targets": {column: {"knn_accuracy", "knn_auroc", "linear_auroc", "linear_ap",
        "linear_accuracy"}}, "checked": {"done", "open"}}``; see ``scanlearn.engine.probes`` for each figure, and
        ``engine.leaks`` for what was checked.

    Raises:
        ScanlearnError: the run was trained on patients or files of the val or test part that is asked for.
    """
    store = store if isinstance(store, Store) else open_store(store)
    rows = part_rows(store, part)
    checked = keep_apart(store, {part: rows})
    checked.add(not_seen(run, store, part))
    features = features_of(run, store, rows)
    patients = store.catalog.patients[rows]
    columns = [target] if target else list(store.catalog.label_columns)
    result: dict[str, Any] = {"rankme": rankme(features), "feature_std": feature_std(features), "targets": {}}
    result["checked"] = asdict(checked)
    for column in columns:
        labels = store.catalog.labels(column)
        if labels.kind not in ("class", "multilabel") or not 2 <= len(labels.classes) <= 50:
            if target:
                raise ScanlearnError(f"The column {column!r} holds a {labels.kind}; a probe needs 2 to 50 classes.")
            continue
        knn = knn_probe(features, labels.codes[rows], patients)
        linear = linear_probe(features, labels.codes[rows], patients)
        result["targets"][column] = {f"knn_{k}": v for k, v in knn.items()} | {
            f"linear_{k}": v for k, v in linear.items()
        }
    return result


def probe_table(result: dict[str, Any]) -> str:
    """The figures as plain text."""
    lines = [f"RankMe {result['rankme']:.1f} · feature standard deviation {result['feature_std']:.3f}"]
    for column, figures in result["targets"].items():
        lines.append(
            f"{column:20} " + " · ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in figures.items())
        )
    if not result["targets"]:
        lines.append("The store has no label column to probe.")
    lines += [*result["checked"]["done"], *(f"Not checked: {text}" for text in result["checked"]["open"])]
    return "\n".join(lines)
