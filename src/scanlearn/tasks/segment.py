"""Validating and testing a segmenter: sliding windows over whole scans, overlap and surface distance of each case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scanlearn.catalog.labels import Labels
from scanlearn.console import track
from scanlearn.engine.embedding import unit_scans
from scanlearn.engine.learner import Learner
from scanlearn.engine.run_folder import RunFolder
from scanlearn.networks.network import Network
from scanlearn.objectives.regions import painted
from scanlearn.objectives.segment import Segment
from scanlearn.scans.store import Store
from scanlearn.tasks.kept_cases import KeptCases
from scanlearn.tasks.segmentation_metrics import segmentation_case, segmentation_metrics
from scanlearn.tasks.sliding import sliding_window_logits
from scanlearn.tasks.targets import labelled_rows

OVERLAP = 0.25  # of neighbouring windows in a validation; a test takes one half, at three times the cost in 3D


def segment_image(network: Network, image: Tensor, facts: Mapping[str, Any]) -> np.ndarray:
    """Classes, uint8 (*S), of one image (C, *S) in [0, 1] by a sliding window.

    Args:
        facts: of the run: ``input_size`` is the window; ``regions``, where the output is a pair of channels for each,
            are painted one over the other; ``smallest`` as ``without_specks`` takes it; ``overlap`` and ``windows`` as
            ``sliding_window_logits`` takes them.
    """
    how = {"overlap": facts.get("overlap", 0.5), "weights": facts.get("windows", "gaussian")}
    logits = sliding_window_logits(network, None, image[None], tuple(facts["input_size"]), **how)
    found = without_specks(logits, facts["classes"], facts.get("regions"), facts.get("smallest") or {})
    return found[0].to(torch.uint8).cpu().numpy()


def without_specks(
    logits: Tensor, classes: Sequence[str], regions: Mapping[str, Sequence[int]] | None, smallest: Mapping[str, int]
) -> Tensor:
    """Classes int64 (1, *S) from logits (1, channels, *S) of one scan, where what is too small was not drawn at all.

    ``smallest``: class or region -> voxels of the whole scan, below which it is taken for a mistake, such as 50 for the
    enhancing part of a tumour. Its voxels become what they would be without it.
    """
    names = list(regions or classes)

    def drawn() -> Tensor:
        return painted(logits, regions) if regions else logits.argmax(dim=1)

    found = drawn()
    for name, voxels in smallest.items():
        place = names.index(name)
        values = regions[name] if regions else [place]
        if int(torch.isin(found, torch.tensor(values, device=found.device)).sum()) < voxels:
            logits = logits.clone()
            logits[:, 2 * place + 1 if regions else place] = -torch.inf
            found = drawn()
    return found


def read_unit(store: Store, row: int, device: torch.device) -> Tensor:
    """One whole scan (C, *S) in [0, 1]."""
    return unit_scans(store, [row], None, device)[0]


def test_segmenter(
    network: Network,
    objective: Any,
    store: Store,
    column: Labels,
    facts: dict[str, Any],
    run: RunFolder,
    device: torch.device,
) -> dict[str, Any]:
    """Segment every masked scan of the test part once; figures are of classes, or of regions where the run has them.

    Writes cases.parquet (figures of each case) and examples.npz (a slice of each), see ``KeptCases``.
    """
    rows = labelled_rows(store, column, "test")
    regions, empty = facts.get("regions"), facts.get("empty", "left_out")
    classes = regions or {name: [i + 1] for i, name in enumerate(store.mask_classes)}
    names = store.catalog.array("scan_id")
    with KeptCases(run.path, list(classes), empty) as kept:
        for row in track(rows.tolist(), len(rows), "testing"):
            image = read_unit(store, row, device)
            found = segment_image(network, image, facts)
            truth = store.read_masks([row])[0]
            case = segmentation_case(found, truth, classes, store.spacing(row))
            kept.add(names[row].as_py(), row, case, image[0].cpu().numpy(), truth, found, store.affine(row))
    return {"test": segmentation_metrics(kept.cases, list(classes), store.catalog.patients[rows], empty=empty)}


def segmentation_loss(
    learner: Learner, objective: Segment, store: Store, rows: np.ndarray, column: Labels, size: list[int]
) -> float:
    """The objective's loss with the validation scans as one batch: the Dice of all their voxels, or the mean over scans
    where the objective counts each sample (``batch_dice`` false), and the mean cross-entropy of a voxel."""
    device = next(learner.parameters()).device
    sums: list[tuple[Tensor, ...]] = []
    voxels = 0
    for row in rows:
        image = read_unit(store, int(row), device)
        logits = sliding_window_logits(learner.network, None, image[None], size, OVERLAP).double()
        mask = torch.from_numpy(store.read_masks([int(row)])[0]).to(device).long()[None, None]
        drawn = [objective.loss.sums(*each) for each in objective.drawn(logits, mask)]
        sums.append(tuple(torch.stack(part, dim=1)[0] for part in zip(*drawn, strict=True)))
        voxels += mask.numel()
    above, below, surprise = (torch.stack(part) for part in zip(*sums, strict=True))  # (scans, drawn apart, classes)
    loss = objective.loss
    if loss.batch_dice:
        above, below = above.sum(dim=0, keepdim=True), below.sum(dim=0, keepdim=True)
    lacking = loss.lacking(above, below).mean(dim=(0, 2)).sum()
    return float(loss.dice * lacking + loss.cross_entropy * surprise.sum() / voxels)
