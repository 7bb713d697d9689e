"""Is it learning? Cheap looks at the features while training, and a warning in plain words when they collapse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scanlearn.catalog.labels import Labels, labels_of
from scanlearn.engine.embedding import embed_scans
from scanlearn.engine.probes import alignment_uniformity, collapse_warning, feature_std, knn_probe, linear_probe, rankme
from scanlearn.scans.store import Store


class Monitor:
    """Embeds a fixed sample of training scans and measures the features.

    Always: RankMe, standard deviation of unit-length features, alignment and uniformity of two views. Where label
    columns exist: a nearest-neighbour and a linear probe, both kept apart by patient.
    """

    def __init__(self, store: Store, rows: np.ndarray, scans: int, seed: int, input_size: tuple[int, ...]):
        order = np.random.default_rng(seed).permutation(len(rows))
        self.rows = np.sort(np.asarray(rows)[order[:scans]])
        self.store, self.input_size = store, input_size
        self._looks = 0
        catalog = store.catalog  # of a million rows, a few hundred are looked at
        self.patients = catalog.patients[self.rows]
        columns = {name: labels_of(catalog.array(name, self.rows), name) for name in catalog.label_columns}
        self.labels = {name: _probe_labels(labels) for name, labels in columns.items()}

    def measure(
        self, embed: Callable[[Tensor], Tensor], device: torch.device, pair: tuple[Tensor, Tensor] | None
    ) -> dict[str, Any]:
        """Numbers for the log. ``pair``: two views of the same scans, for alignment and uniformity."""
        features = embed_scans(embed, self.store, self.rows, size=self.input_size, device=device)
        values: dict[str, Any] = {"rankme": rankme(features), "feature_std": feature_std(features)}
        if pair is not None:
            with torch.no_grad():
                a, b = (embed(view).float().cpu() for view in pair)
            values["alignment"], values["uniformity"] = alignment_uniformity(a, b)
        for name, codes in self.labels.items():
            if codes is not None:
                known = codes >= 0
                knn = knn_probe(features[known], codes[known], self.patients[known])
                linear = linear_probe(features[known], codes[known], self.patients[known])
                values[f"knn_auroc_{name}"] = knn["auroc"]
                values[f"linear_auroc_{name}"] = linear["auroc"]
        # An untrained network with fresh batch-norm statistics may look collapsed: the first look accuses nobody.
        warning = collapse_warning(values) if self._looks else None
        self._looks += 1
        if warning:
            values["warning"] = warning
        return values


def _probe_labels(labels: Labels) -> np.ndarray | None:
    """Codes of a column worth probing: 2 to 20 classes among the sampled scans, each in at least ten of them."""
    if labels.kind != "class" or not 2 <= len(labels.classes) <= 20:
        return None
    counts = np.bincount(labels.codes[labels.codes >= 0], minlength=len(labels.classes))
    return labels.codes if counts.min() >= 10 else None
