"""Validating and testing a segmenter: sliding windows over whole scans, overlap and surface distance of each case,
pictures of some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from scanlearn.catalog.labels import Labels
from scanlearn.console import track
from scanlearn.engine.embedding import unit_scans
from scanlearn.engine.learner import Learner
from scanlearn.engine.run_folder import RunFolder
from scanlearn.files import replacing
from scanlearn.networks.network import Network
from scanlearn.objectives.regions import painted
from scanlearn.objectives.segment import Segment
from scanlearn.scans.store import Store
from scanlearn.tasks.segmentation_metrics import PER_CASE, segmentation_case, segmentation_metrics
from scanlearn.tasks.sliding import sliding_window_logits
from scanlearn.tasks.targets import labelled_rows

OVERLAP = 0.25  # of neighbouring windows in a validation; the test takes one half, at three times the cost in 3D
SHOWN = 8  # cases kept as pictures: the worst and the best


def segment_image(network: Network, image: Tensor, facts: Mapping[str, Any]) -> np.ndarray:
    """Classes, uint8 (*S), of one image (C, *S) in [0, 1] by a sliding window.

    Args:
        facts: of the run: ``input_size`` is the window; ``regions``, where the output is a pair of channels for each,
            are painted one over the other; ``smallest`` as ``without_specks`` takes it.
    """
    logits = sliding_window_logits(network, None, image[None], tuple(facts["input_size"]))
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

    Writes cases.parquet (scan_id and figures of each case) and examples.npz (slices through the worst and best cases).
    """
    rows = labelled_rows(store, column, "test")
    regions = facts.get("regions")
    classes = regions or {name: [i + 1] for i, name in enumerate(store.mask_classes)}
    cases, slices = [], []
    for row in track(rows, len(rows), "testing"):
        image = read_unit(store, int(row), device)
        found = segment_image(network, image, facts)
        truth = store.read_masks([int(row)])[0]
        cases.append(segmentation_case(found, truth, classes, store.spacing(int(row))))
        slices.append(example_slice(image[0].cpu().numpy(), truth, found))
    names = np.asarray(store.catalog.column("scan_id"))[rows]
    write_cases(run, names, rows, cases, list(classes))
    patients = store.catalog.patients[rows]
    metrics = segmentation_metrics(cases, list(classes), patients, empty=facts.get("empty", "left_out"))
    keep_examples(run, rows, cases, slices)
    return {"test": metrics}


def example_slice(image: np.ndarray, truth: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The slice (last axis) with most of the reference mask; a 2D image is its own slice."""
    if image.ndim == 2:
        return image, truth, found
    best = int((truth > 0).sum(axis=(0, 1)).argmax())
    return image[..., best], truth[..., best], found[..., best]


def write_cases(
    run: RunFolder, names: np.ndarray, rows: np.ndarray, cases: list[dict[str, np.ndarray]], classes: list[str]
) -> None:
    """cases.parquet in the run folder."""
    columns: dict[str, Any] = {"scan_id": names, "row": rows}
    for figure in PER_CASE:
        for i, name in enumerate(classes):
            columns[f"{figure}_{name}"] = np.array([case[figure][i] for case in cases])
    with replacing(run.path / "cases.parquet") as temporary:
        pq.write_table(pa.table(columns), temporary)


def keep_examples(run: RunFolder, rows: np.ndarray, cases: list[dict[str, np.ndarray]], slices: list[Any]) -> None:
    """examples.npz: image_i, truth_i, found_i and row_i of the worst and best cases, worst first."""
    dice = np.array([np.nanmean(case["dice"]) if np.isfinite(case["dice"]).any() else 1.0 for case in cases])
    order = np.argsort(dice)
    half = min(SHOWN // 2, len(order) // 2) or 1
    shown = np.unique(np.concatenate([order[:half], order[-half:]]))
    data: dict[str, np.ndarray] = {}
    for i, case in enumerate(shown[np.argsort(dice[shown])]):
        image, truth, found = slices[case]
        data |= {f"image_{i}": (image * 255).astype(np.uint8), f"truth_{i}": truth, f"found_{i}": found}
        data |= {f"row_{i}": np.array(rows[case]), f"dice_{i}": np.array(dice[case])}
    with replacing(run.path / "examples.npz") as temporary:
        np.savez_compressed(temporary, **data)  # type: ignore[arg-type]


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
