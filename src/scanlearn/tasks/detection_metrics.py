"""How well predicted boxes agree with the reference: the score of the RSNA pneumonia challenge and COCO's average
precision, each with a 95 % interval from resampled patients.

The two ask different things. The challenge judges each image by itself, and confidence only orders the matching: which
boxes are handed in decides. COCO ranks the boxes of all images by confidence and needs no threshold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from scanlearn.tasks.bootstrap import PatientBootstrap, estimate, ratio

CHALLENGE = np.arange(40, 80, 5) / 100  # IoU from which a box is found: 0.40, 0.45, ..., 0.75
COCO = np.arange(50, 100, 5) / 100  # 0.50, 0.55, ..., 0.95
RECALLS = np.linspace(0, 1, 101)  # at which COCO reads the precision
MOST = 100  # boxes of an image, the most confident ones, that COCO looks at
_TOGETHER = 1 << 22  # numbers in one array of overlaps


@dataclass(frozen=True)
class Boxes:
    """Boxes of all images in one table.

    Attributes:
        image: int (n,), which image, from 0.
        corners: float (n, 2 * dims): the low corner along each axis, then the high one. A box covers low <= x < high.
        score: float (n,), the confidence; None for a reference.
    """

    image: np.ndarray
    corners: np.ndarray
    score: np.ndarray | None = None

    def __post_init__(self) -> None:
        n, scores = len(self.image), len(self.image) if self.score is None else len(self.score)
        if self.corners.ndim != 2 or len(self.corners) != n or self.corners.shape[1] % 2 or scores != n:
            raise ValueError(f"{n} images, boxes {self.corners.shape} and {scores} scores do not fit")

    def __len__(self) -> int:
        return len(self.image)

    def rows(self, which: np.ndarray) -> Boxes:
        """The boxes ``which`` (indices, or bool)."""
        return Boxes(self.image[which], self.corners[which], None if self.score is None else self.score[which])


def overlap(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (..., 2 * dims), broadcast; 0 where both are empty."""
    dims = first.shape[-1] // 2
    low = np.maximum(first[..., :dims], second[..., :dims])
    high = np.minimum(first[..., dims:], second[..., dims:])
    both = (high - low).clip(min=0).prod(axis=-1)
    volumes = [(b[..., dims:] - b[..., :dims]).clip(min=0).prod(axis=-1) for b in (first, second)]
    union = volumes[0] + volumes[1] - both
    return np.divide(both, union, out=np.zeros(union.shape), where=union > 0)


def challenge_scores(predicted: Boxes, truth: Boxes, images: int) -> np.ndarray:
    """The RSNA pneumonia challenge's score (``images``,) of each image: the mean over IoU 0.40..0.75 of
    TP / (TP + FP + FN).

    Each reference box, in the order of the table, takes the most confident prediction that is left and reaches the IoU.
    NaN, for those that do not count, are images with neither boxes nor predictions; predictions alone score 0.
    """
    _check(predicted, truth, images)
    found = np.zeros((images, len(CHALLENGE)))
    predicted = predicted.rows(_ranked(predicted))
    for block, iou, _ in _blocks(predicted, truth, images):
        left = np.ones((len(block), len(CHALLENGE), iou.shape[2]), bool)
        for g in range(iou.shape[1]):
            fits = left & (iou[:, None, g] >= CHALLENGE[:, None])
            hit = fits.any(axis=2)
            image, level = np.nonzero(hit)
            left[image, level, fits.argmax(axis=2)[hit]] = False
            found[block] += hit
    boxes = np.bincount(truth.image, minlength=images) + np.bincount(predicted.image, minlength=images)
    return ratio(found, boxes[:, None] - found).mean(axis=1)


def challenge_threshold(
    predicted: Boxes, truth: Boxes, images: int, candidates: Sequence[float] | None = None
) -> tuple[float, float]:
    """(confidence from which to hand in boxes for the best mean challenge score, that score).

    Choose it on the validation part, never on the images that are judged. Of equals the lowest is taken; default
    candidates are 0.05, 0.10, ..., 0.95.
    """
    assert predicted.score is not None
    best = (float("nan"), float("-inf"))
    for candidate in np.arange(5, 100, 5) / 100 if candidates is None else candidates:
        scores = challenge_scores(predicted.rows(predicted.score >= candidate), truth, images)
        counted = scores[~np.isnan(scores)]
        if len(counted) and counted.mean() > best[1]:
            best = float(candidate), float(counted.mean())
    return best


def coco_matches(predicted: Boxes, truth: Boxes, images: int) -> tuple[np.ndarray, np.ndarray]:
    """(rows of the predictions that count, in falling order of confidence; whether they are right, bool (n, 10)).

    In each image the ``MOST`` most confident predictions, one after the other, take the reference box that is left with
    the largest IoU, if that reaches 0.50, 0.55, ..., 0.95 (of equal ones the last). One class, nothing ignored.
    """
    _check(predicted, truth, images)
    order = _ranked(predicted)
    ranked = predicted.rows(order)
    order = order[_place(ranked.image, images) < MOST]
    ranked = predicted.rows(order)
    right = np.zeros((len(order), len(COCO)), bool)
    for _, iou, at in _blocks(ranked, truth, images):
        iou = iou[:, ::-1]  # so that argmax finds the last of equal ones
        left = np.ones((len(iou), len(COCO), iou.shape[1]), bool)
        for p in range(iou.shape[2] if iou.shape[1] else 0):
            reached = np.where(left, iou[:, None, :, p], -1.0)
            best = reached.argmax(axis=2)
            hit = (np.take_along_axis(reached, best[..., None], 2)[..., 0] >= COCO) & (at[:, p] >= 0)[:, None]
            image, level = np.nonzero(hit)
            left[image, level, best[hit]] = False
            right[at[image, p], level] = True
    return order, right


def detection_metrics(
    predicted: Boxes, truth: Boxes, patients: Any, *, threshold: float = 0.0, bootstrap: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """Figures of a detector of one class on N images.

    Args:
        predicted: boxes with scores.
        truth: the reference boxes.
        patients: (N,) whose images they are. Patients are resampled, all images of one together.
        threshold: predictions below this confidence are not handed in to the challenge score; see
            ``challenge_threshold``. Average precision sees all of them.

    Returns:
        ``{"images", "patients", "boxes", "predicted", "handed_in", "not_counted", "threshold", "challenge", "ap",
        "ap50", "bootstrap"}``: ``not_counted`` images have neither boxes nor predictions handed in; ``challenge``,
        ``ap`` (COCO, mean over IoU 0.50..0.95) and ``ap50`` are ``{"value", "low", "high", "skipped"}``. Without any
        reference box average precision is NaN, as it is in resamples without one.
    """
    images = len(patients)
    draws = detection_draws(predicted, truth, patients, threshold=threshold, bootstrap=bootstrap, seed=seed)
    assert predicted.score is not None
    handed_in = predicted.rows(predicted.score >= threshold)
    return {
        "images": images,
        "patients": PatientBootstrap(patients, 0, seed).patients,
        "boxes": len(truth),
        "predicted": len(predicted),
        "handed_in": len(handed_in),
        "not_counted": int(np.isnan(challenge_scores(handed_in, truth, images)).sum()),
        "threshold": threshold,
        **{name: estimate(values) for name, values in draws.items()},
        "bootstrap": {"resamples": bootstrap, "unit": "patient", "level": 0.95, "seed": seed},
    }


def detection_draws(
    predicted: Boxes, truth: Boxes, patients: Any, *, threshold: float = 0.0, bootstrap: int = 2000, seed: int = 0
) -> dict[str, np.ndarray]:
    """``challenge``, ``ap`` and ``ap50`` of ``detection_metrics``, (1 + bootstrap,) each: on all images, then in
    resamples of the patients."""
    if predicted.score is None:
        raise ValueError("predictions need scores")
    images, resamples = len(patients), PatientBootstrap(patients, bootstrap, seed)
    scores = challenge_scores(predicted.rows(predicted.score >= threshold), truth, images)
    counted = ~np.isnan(scores)
    challenge = ratio(resamples.totals(np.where(counted, scores, 0.0)), resamples.totals(counted))
    order, right = coco_matches(predicted, truth, images)
    whose = resamples.index[predicted.image[order]]
    boxes = resamples.totals(np.bincount(truth.image, minlength=images))
    precision = _average_precision(resamples.counts, whose, np.ascontiguousarray(right.T), boxes, RECALLS)
    return {"challenge": challenge, "ap": precision.mean(axis=1), "ap50": precision[:, 0]}


@numba.njit(cache=True, nogil=True)
def _average_precision(counts, whose, right, boxes, recalls):  # type: ignore[no-untyped-def]
    # (resamples, levels): mean over the recalls of the largest precision at this or a larger recall. Predictions come in
    # falling order of confidence, and count as often as their patient was drawn: copies stand side by side, and within
    # such a run the largest precision to the right is the same, so weights give what copies would.
    result = np.full((len(counts), len(right)), np.nan)
    for b in range(len(counts)):
        if boxes[b] == 0:
            continue
        for level in range(len(right)):
            hits, all_of_them = 0.0, 0.0
            for i in range(len(whose)):
                weight = counts[b, whose[i]]
                all_of_them += weight
                if right[level, i]:
                    hits += weight
            best, total, r = 0.0, 0.0, len(recalls) - 1
            while r >= 0 and recalls[r] > hits / boxes[b]:
                r -= 1  # never reached: precision 0
            for i in range(len(whose) - 1, -1, -1):
                if all_of_them > 0:
                    best = max(best, hits / all_of_them)
                weight = counts[b, whose[i]]
                all_of_them -= weight
                if right[level, i]:
                    hits -= weight
                before = hits / boxes[b]
                while r >= 0 and (recalls[r] > before or i == 0):
                    total += best
                    r -= 1
            result[b, level] = total / len(recalls)
    return result


def _check(predicted: Boxes, truth: Boxes, images: int) -> None:
    for boxes in (predicted, truth):
        if len(boxes) and not (boxes.image.min() >= 0 and boxes.image.max() < images):
            raise ValueError(f"boxes of images {boxes.image.min()}..{boxes.image.max()}, but there are {images} images")
    if predicted.corners.shape[1] != truth.corners.shape[1]:
        raise ValueError(f"predictions {predicted.corners.shape} and reference {truth.corners.shape} do not fit")
    if predicted.score is None or np.isnan(predicted.score).any():
        raise ValueError("predictions need scores, and none may be NaN")


def _ranked(boxes: Boxes) -> np.ndarray:
    """Rows in falling order of confidence, equal ones as they stand."""
    assert boxes.score is not None
    return np.argsort(-boxes.score, kind="stable")


def _place(image: np.ndarray, images: int) -> np.ndarray:
    """Which box of its image each one is, from 0, in the order of the table."""
    order = np.argsort(image, kind="stable")
    first = np.concatenate([[0], np.cumsum(np.bincount(image, minlength=images))])
    place = np.empty(len(image), np.int64)
    place[order] = np.arange(len(image)) - first[image[order]]
    return place


def _blocks(predicted: Boxes, truth: Boxes, images: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Images that fit into memory together, fewest boxes first: (images (n,), their IoU (n, G, P), rows of the
    predictions (n, P), -1 where an image has fewer). IoU is -1 where an image has no such pair."""
    sides = [np.bincount(b.image, minlength=images).reshape(images) for b in (truth, predicted)]
    places = [_place(b.image, images) for b in (truth, predicted)]
    order = np.argsort(sides[0].clip(min=1) * sides[1], kind="stable")
    order = order[sides[1][order] > 0]
    start = 0
    while start < len(order):
        # Boxes of an image are padded to the most of any in its block.
        most = [np.maximum.accumulate(side[order[start:]]) for side in sides]
        cost = np.arange(1, len(order) - start + 1) * most[1] * np.maximum(most[0], len(COCO)) * 2
        block = order[start : start + max(1, int(np.searchsorted(cost, _TOGETHER, "right")))]
        start += len(block)
        where = np.full(images, -1)
        where[block] = np.arange(len(block))
        rows = []
        for boxes, side, place in zip((truth, predicted), sides, places, strict=True):
            at = np.full((len(block), side[block].max()), -1)
            inside = np.flatnonzero(where[boxes.image] >= 0)
            at[where[boxes.image[inside]], place[inside]] = inside
            rows.append(at)
        there = (rows[0][:, :, None] >= 0) & (rows[1][:, None] >= 0)
        if not len(truth):
            yield block, np.full(there.shape, -1.0), rows[1]
            continue
        iou = overlap(truth.corners[rows[0]][:, :, None], predicted.corners[rows[1]][:, None])
        yield block, np.where(there, iou, -1.0), rows[1]
