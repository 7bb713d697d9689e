"""Finding boxes with a detector, and validating and testing one: all in pixels of the published files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from scanlearn.errors import ScanlearnError
from scanlearn.files import replacing
from scanlearn.networks.network import Network
from scanlearn.networks.retina import decode
from scanlearn.objectives.detect import Detect
from scanlearn.scans.laid_boxes import padded, store_boxes, to_file, to_grid
from scanlearn.scans.resample import resample
from scanlearn.scans.store import Store
from scanlearn.tasks.detection_metrics import Boxes, challenge_threshold, detection_metrics
from scanlearn.tasks.mean_boxes import mean_box, mean_boxes
from scanlearn.tasks.submission import write_submission
from scanlearn.tasks.targets import box_labels, labelled_parts, labelled_rows
from scanlearn.tasks.trained import Trained, save_head

LEAST_SCORE = 0.01  # boxes of lower confidence are dropped
NMS = 0.5  # of two boxes that overlap by more the less confident one is dropped (RetinaNet)
PER_LEVEL, PER_IMAGE = 1000, 100  # boxes kept, before and after that
THRESHOLDS = [n / 100 for n in (1, 2, 3, 4, *range(5, 100, 5))]  # from which boxes may be handed in
TOGETHER = 16  # images
FIGURES = ("ap50", "challenge", "ap")


def grid_labels(store: Store) -> np.ndarray:
    """float32 (rows of the store, M, 4): the boxes of every scan on the store's grid."""
    rows, corners, _ = store_boxes(store)
    return padded(rows, to_grid(store, rows, corners), len(store))


def find_boxes(
    network: Network, objective: Detect, images: Tensor, size: Sequence[int]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """(corners float64 (k, 4) in voxels of the image, confidence (k,), falling) of each image (N, C, H, W) in [0, 1].

    ``size`` is what the detector was trained on; images of another one are stretched to it.
    """
    from monai.apps.detection.utils.box_selector import BoxSelector

    selector = BoxSelector(
        score_thresh=LEAST_SCORE, topk_candidates_per_level=PER_LEVEL, nms_thresh=NMS, detections_per_img=PER_IMAGE
    )
    features = network.features(_resized(images, size))
    logits, offsets = (x.float() for x in objective.head(features))
    boxes = decode(offsets, objective.head.anchors(features))
    counts = [places * len(objective.head.shapes) for places in objective.head.places(features)]
    scale = np.tile(np.array(images.shape[2:]) / np.array(size), 2)
    found = []
    for of_image, scores in zip(boxes, logits, strict=True):
        levels = list(of_image.split(counts)), list(scores[:, None].split(counts))
        corners, confidence, _ = selector.select_boxes_per_image(*levels, list(size))
        found.append((corners.double().cpu().numpy() * scale, confidence.double().cpu().numpy()))
    return found


def _resized(images: Tensor, size: Sequence[int]) -> Tensor:
    return images if tuple(images.shape[2:]) == tuple(size) else resample(images, tuple(size))


def _units(store: Store, rows: np.ndarray, device: torch.device) -> Iterator[tuple[np.ndarray, Tensor]]:
    """(rows, whole scans (n, C, H, W) in [0, 1]), a few at a time."""
    for begin in range(0, len(rows), TOGETHER):
        some = rows[begin : begin + TOGETHER]
        yield some, unit_scans(store, some, None, device)


def detect_rows(
    network: Network, objective: Detect, store: Store, rows: np.ndarray, size: Sequence[int], device: torch.device
) -> Boxes:
    """What is found on scans of a store, in pixels of their files; ``image`` counts the entries of ``rows``."""
    image, corners, scores = [], [np.zeros((0, 4))], [np.zeros(0)]
    for some, images in track(_units(store, rows, device), -(-len(rows) // TOGETHER), "testing"):
        for row, (boxes, confidence) in zip(some, find_boxes(network, objective, images, size), strict=True):
            corners.append(to_file(store, np.full(len(boxes), row), boxes))
            scores.append(confidence)
            image.append(len(boxes))
    found = Boxes(np.repeat(np.arange(len(rows)), image), np.concatenate(corners), np.concatenate(scores))
    # Without those that lie in the padding altogether.
    return found.rows(np.flatnonzero((found.corners[:, 2:] > found.corners[:, :2]).all(axis=1)))


def labelled_test_rows(store: Store) -> np.ndarray:
    """Rows of the test part that were looked at for boxes."""
    return labelled_rows(store, box_labels(store, None, None), "test")


def reference(store: Store, rows: np.ndarray) -> Boxes:
    """The boxes of the data set on these scans, as ``detect_rows`` counts them."""
    where = np.full(len(store), -1)
    where[rows] = np.arange(len(rows))
    row, corners, _ = store_boxes(store)
    kept = where[row] >= 0
    return Boxes(where[row[kept]], corners[kept])


def test_detector(
    network: Network,
    objective: Detect,
    store: Store,
    column: Labels,
    facts: dict[str, Any],
    run: RunFolder,
    device: torch.device,
) -> dict[str, Any]:
    """Find boxes on validation and test scans, choose on the former from which confidence they are handed in, judge on
    the latter.

    Writes predictions.parquet (every box of both parts), predictions.csv (what would be handed in of the test part) and
    the detector's settings and threshold into the facts beside the weights.
    """
    parts = labelled_parts(store, column)
    if not len(parts["test"]):
        raise ScanlearnError(f"No scan of the test part of {store.path.name} was looked at for boxes.")
    size = facts["input_size"]
    found = {part: detect_rows(network, objective, store, rows, size, device) for part, rows in parts.items()}
    threshold, chosen = choose_threshold(found["val"], reference(store, parts["val"]), len(parts["val"]))
    facts |= {"detector": objective.head.settings, "score_threshold": threshold}
    save_head(objective, run.encoder, facts)
    write_found(run, parts, found)
    names = store.catalog.array("scan_id", parts["test"]).to_pylist()
    write_submission(run.path / "predictions.csv", names, found["test"], threshold)
    truth, patients = reference(store, parts["test"]), store.catalog.patients[parts["test"]]
    test = judged(found["test"], truth, patients, threshold)
    floors = {}
    for name, guess in (("mean_box", mean_box), ("mean_boxes", mean_boxes)):
        guessed = guess(store, np.asarray(store.splits["train"]), parts["test"])
        floors[name] = {"boxes": len(guessed), **judged(guessed, truth, patients, 0.0)["macro"]}
    return {"test": test, "threshold": chosen, **floors}


def choose_threshold(found: Boxes, truth: Boxes, images: int) -> tuple[float, str]:
    """(confidence from which boxes are handed in, how that was chosen)."""
    threshold, score = challenge_threshold(found, truth, images, THRESHOLDS) if images else (float("nan"), 0.0)
    if np.isnan(threshold):
        return 0.5, "0.5 (the validation part has nothing to choose by)"
    return threshold, f"best challenge score on the validation part ({score:.3f})"


def judged(found: Boxes, truth: Boxes, patients: Any, threshold: float) -> dict[str, Any]:
    """``detection_metrics`` with the figures under ``macro`` and the images called cases, as other tasks have them."""
    metrics = detection_metrics(found, truth, patients, threshold=threshold)
    figures = {name: metrics.pop(name) for name in FIGURES}
    of_class = {**figures, "boxes": metrics["boxes"], "handed_in": metrics["handed_in"]}
    return {"macro": figures, "classes": {"box": of_class}, "cases": metrics.pop("images"), **metrics}


def write_found(run: RunFolder, parts: dict[str, np.ndarray], found: dict[str, Boxes]) -> None:
    """predictions.parquet in the run folder: part, row of the store, confidence and the four edges of each box."""
    tables = []
    for part, boxes in found.items():
        edges = dict(zip(("top", "left", "bottom", "right"), boxes.corners.T, strict=True))
        rows = parts[part][boxes.image]
        tables.append(pa.table({"part": [part] * len(boxes), "row": rows, "score": boxes.score, **edges}))
    with replacing(run.path / "predictions.parquet") as temporary:
        pq.write_table(pa.concat_tables(tables), temporary)


def detection_loss(
    learner: Learner, objective: Detect, store: Store, rows: np.ndarray, column: Labels, size: list[int]
) -> float:
    """The objective's loss on whole scans, mean over them."""
    device, boxes = next(learner.parameters()).device, torch.from_numpy(grid_labels(store))
    scale = torch.tensor([new / old for new, old in zip(size, store.shape(0), strict=True)] * 2)
    total = 0.0
    for some, images in _units(store, rows, device):
        here = (boxes[torch.from_numpy(some)] * scale).to(device)
        focal, distance, _ = objective.losses(learner.network.features(_resized(images, size)), here)
        total += float(focal + objective.box_weight * distance) * len(some)
    return total / len(rows)


def detector_of(trained: Trained) -> Detect:
    """The detector of a fine-tuned run, in evaluation mode; one that does not fit its network is refused."""
    try:
        objective = Detect(trained.network, **trained.facts["detector"])
        objective.load_state_dict(trained.head)
    except (KeyError, TypeError, ValueError, RuntimeError, ScanlearnError) as error:
        raise ScanlearnError("The head of the run does not fit its network: fine-tune again.") from error
    return objective.to(next(trained.network.parameters()).device).eval()
