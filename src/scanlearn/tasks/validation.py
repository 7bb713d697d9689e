"""What a fine-tuning is validated by: its own loss on the labelled validation scans, read whole as in the test."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from scanlearn.catalog.labels import Labels
from scanlearn.engine.embedding import embed_scans
from scanlearn.engine.learner import Learner
from scanlearn.engine.stopping import Validate
from scanlearn.errors import ScanlearnError
from scanlearn.objectives.classify import Classify
from scanlearn.objectives.segment import Segment
from scanlearn.scans.store import Store
from scanlearn.tasks.bootstrap import ratio
from scanlearn.tasks.segment import read_unit
from scanlearn.tasks.sliding import sliding_window_logits

OVERLAP = 0.25  # of neighbouring windows; the test takes one half, at three times the cost in 3D


def validation_figure(task: str, store: Store, column: Labels, size: list[int]) -> Validate:
    """The figure of a fine-tuning, lower is better; it depends on the weights and on nothing that is drawn.

    Raises:
        ScanlearnError: the validation part has no scan with a label or a mask.
    """
    rows = np.asarray(store.splits["val"])
    rows = rows[column.labelled[rows]]
    if len(rows) == 0:
        what = "mask" if task == "segment" else "label"
        raise ScanlearnError(
            f"No scan of the validation part of {store.path.name} has a {what} to validate by: add --stopping.every 0, or "
            "prepare a store with a larger validation part."
        )

    def figure(learner: Learner) -> float:
        objective: Any = learner.objectives[task]
        if task == "segment":
            return segmentation_loss(learner, objective, store, rows, size)
        return classification_loss(learner, objective, store, rows, column.codes[rows], size)

    return figure


def classification_loss(
    learner: Learner, objective: Classify, store: Store, rows: np.ndarray, codes: np.ndarray, size: list[int]
) -> float:
    """The objective's loss on the mean features of whole scans; codes (n,) or (n, K) are their labels."""
    device = next(learner.parameters()).device
    features = embed_scans(learner.network.pooled, store, rows, size=size, device=device)
    logits = objective.head(torch.from_numpy(features).to(device)).float()
    return float(objective.loss(logits, torch.from_numpy(codes).to(device)))


def segmentation_loss(learner: Learner, objective: Segment, store: Store, rows: np.ndarray, size: list[int]) -> float:
    """The objective's loss with the validation scans as one batch: the Dice of all their voxels, or the mean over scans
    where the objective counts each sample (``batch_dice`` false), and the mean cross-entropy of a voxel."""
    device = next(learner.parameters()).device
    overlap, total = np.zeros((len(rows), objective.classes - 1)), np.zeros((len(rows), objective.classes - 1))
    entropy, voxels = 0.0, 0
    for i, row in enumerate(rows):
        image = read_unit(store, int(row), device)
        logits = sliding_window_logits(learner.network, None, image[None], size, OVERLAP)
        mask = torch.from_numpy(store.read_masks([int(row)])[0]).to(device).long()[None]
        for k, found in enumerate(torch.softmax(logits, dim=1)[0, 1:]):
            truth = mask[0] == k + 1
            overlap[i, k] = float((found * truth).sum(dtype=torch.float64))
            total[i, k] = float(found.sum(dtype=torch.float64) + truth.sum())
        entropy += float(F.cross_entropy(logits, mask, reduction="sum"))
        voxels += mask.numel()
    if objective.batch_dice:
        overlap, total = overlap.sum(0), total.sum(0)
    dice = ratio(2 * overlap + objective.smooth, total + objective.smooth)
    return float(objective.dice * (1 - dice).mean() + objective.cross_entropy * entropy / voxels)
