"""The tested scans of a fine-tuned run: curves over all of them, and the worst and best as pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from sklearn.metrics import roc_curve

from scanlearn.engine.run_folder import RunFolder
from scanlearn.scans.store import Store
from scanlearn.study.page import Picture, Strip, Table, percent
from scanlearn.study.pictures import contour_tile, pixel_ratio, scan_tiles, upright
from scanlearn.study.tables import confusion_table
from scanlearn.tasks.classify import truth_codes
from scanlearn.tasks.kept_cases import SLICES, TABLE, open_slices

SHOWN = 6  # most wrong and most right scans
EXAMPLES = 4  # worst and best segmented cases
MOST_CURVES, MOST_CONFUSED = 8, 12  # classes in the ROC diagram and in the table of confusions


@dataclass(frozen=True)
class Predictions:
    """The test rows of predictions.parquet: scores (n, K), targets (n, K) of 0, 1 and, of several
    labels, NaN where one is not known, store rows (n,)."""

    scores: np.ndarray
    targets: np.ndarray
    rows: np.ndarray
    classes: list[str]
    multilabel: bool

    @property
    def error(self) -> np.ndarray:
        """(n,) how wrong each scan is: 1 - probability of its class, or the largest error over its labels."""
        return self._errors().max(axis=1) if self.multilabel else 1 - self.of_truth

    @property
    def of_truth(self) -> np.ndarray:
        """(n,) the probability that the true class got."""
        return (self.targets * self.scores).sum(axis=1)

    def _errors(self) -> np.ndarray:
        """(n, K) how far each score is from its target, 0 where that is not known."""
        return np.nan_to_num(np.abs(self.targets - self.scores))

    def truth(self, i: int) -> str:
        """The true class or labels of a scan, in words."""
        return ", ".join(np.array(self.classes, dtype=object)[self.targets[i] == 1]) or "none of the labels"

    def said(self, i: int) -> tuple[str, float]:
        """(class, probability) that the network gave most to; for labels the one that it got most wrong."""
        at = int((self._errors() if self.multilabel else self.scores)[i].argmax())
        return self.classes[at], float(self.scores[i, at])


def read_predictions(run: RunFolder, results: dict[str, Any]) -> Predictions:
    """The test part of a run's predictions.parquet."""
    table = pq.read_table(run.path / "predictions.parquet").to_pydict()
    keep = np.array(table["part"]) == "test"
    classes, multilabel = results["classes"], bool(results.get("multilabel"))
    scores = np.stack([np.array(table[f"score_{name}"], np.float64)[keep] for name in classes], axis=1)
    truth = np.array(table["truth"], dtype=object)[keep]
    if multilabel:
        targets = truth_codes(truth.tolist(), classes).astype(np.float64)
    else:
        targets = (truth[:, None] == np.array(classes, dtype=object)).astype(np.float64)
    return Predictions(scores, targets, np.array(table["row"], np.int64)[keep], classes, multilabel)


def roc_curves(
    found: Predictions, results: dict[str, Any]
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], dict[str, tuple[float, float]]]:
    """(curves, working points) for ``roc_figure``: each class that has both kinds of cases, with its AUROC in its name.

    Two classes are one question, so they give one curve; working points exist where a threshold was chosen.
    """
    curves, points = {}, {}
    judged = results["test"]["classes"]
    for name in list(judged)[:MOST_CURVES]:
        at = found.classes.index(name)
        known = ~np.isnan(found.targets[:, at])
        target, score = found.targets[known, at], found.scores[known, at]
        if 0 < target.sum() < len(target):
            false_alarms, sensitivity, _ = roc_curve(target, score)
            title = f"{name} {judged[name]['auroc']['value']:.2f}"
            curves[title] = (false_alarms, sensitivity)
            threshold = (results["test"].get("threshold") or {}).get(name)
            if threshold is not None:
                positive = score >= threshold
                points[title] = (float(positive[target == 0].mean()), float(positive[target == 1].mean()))
    return curves, points


def confusions(found: Predictions, results: dict[str, Any]) -> Table | None:
    """Who was taken for whom, where every scan has one class and there are not too many.

    Two classes are told apart by the chosen threshold, more by the highest score.
    """
    if found.multilabel or len(found.classes) > MOST_CONFUSED:
        return None
    said = found.scores.argmax(1)
    threshold = (results["test"].get("threshold") or {}).get(found.classes[-1])
    if len(found.classes) == 2 and threshold is not None:
        said = (found.scores[:, 1] >= threshold).astype(int)
    names = np.array(found.classes, dtype=object)
    return confusion_table(names[found.targets.argmax(1)], names[said], found.classes)


def extreme_strips(found: Predictions, store: Store) -> list[Strip]:
    """The most wrong and the most right test scans, of different patients."""
    order = np.argsort(-found.error, kind="stable")
    strips = []
    for title, candidates in (("Most wrong", order), ("Most right", order[::-1])):
        chosen = different_patients(candidates, store.catalog.patients[found.rows], SHOWN)
        captions, alts = [], []
        for i in chosen:
            said, score = found.said(i)
            truth = found.truth(i)
            captions.append(f"Case {i + 1:,}: {truth}, said {said} ({percent(score)})")
            alts.append(f"Test case {i + 1:,}, which is {truth}; the network gave {said} {percent(score)}")
        if chosen:
            tiles = scan_tiles(store, found.rows[chosen], alts, captions, [""] * len(chosen))
            strips.append(Strip(title, tiles, columns=SHOWN))
    return strips


def different_patients(order: np.ndarray, patients: np.ndarray, count: int) -> list[int]:
    """The first ``count`` of ``order``, none of a patient who is already there; at most half of what there is."""
    chosen: list[int] = []
    seen: set[str] = set()
    for i in order:
        if len(chosen) == min(count, (len(order) + 1) // 2):
            break
        if patients[i] not in seen:
            seen.add(patients[i])
            chosen.append(int(i))
    return chosen


def dice_groups(run: RunFolder, classes: list[str]) -> dict[str, np.ndarray]:
    """The Dice of each case for each class, from cases.parquet; float64 with NaN where it is not defined."""
    table = pq.read_table(run.path / TABLE)
    return {name: np.array(table[f"dice_{name}"].to_pylist(), np.float64) for name in classes}


def example_strips(run: RunFolder, spatial_dims: int) -> list[Strip]:
    """The worst and the best segmented cases with both outlines, from examples.npz; slices of volumes upright."""
    if not (run.path / SLICES).is_file():
        return []
    with open_slices(run.path) as (table, kept):
        dice = np.array([float(kept[f"dice_{k}"]) for k in range(len(table))])
        order = np.argsort(dice, kind="stable").tolist()
        half = min(EXAMPLES, len(order) // 2) or 1
        worst, best = order[:half], order[half:][::-1][:half]
        titled = (("Worst cases", worst), ("Best cases", best))
        return [
            Strip(title, [_example(kept, k, spatial_dims) for k in part], columns=4) for title, part in titled if part
        ]


def _example(kept: Any, k: int, spatial_dims: int) -> Picture:
    image, truth, found = (kept[f"{kind}_{k}"] for kind in ("image", "truth", "found"))
    dice, ratio = float(kept[f"dice_{k}"]), 1.0
    if spatial_dims == 3:
        affine = kept[f"affine_{k}"]
        image, truth, found = (upright(part, affine) for part in (image, truth, found))
        ratio = pixel_ratio(affine)
    alt = f"Segmented test case with a mean Dice of {dice:.2f}: outline of the reference and outline of the prediction"
    return contour_tile(image / 255.0, truth, found, alt, caption=f"Dice {dice:.2f}", ratio=ratio)
