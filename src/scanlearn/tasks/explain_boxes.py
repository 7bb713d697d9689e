"""Heat maps against boxes that people drew: the overlap of their hot spot, and whether their maximum lies inside.

Source: spec_dira, section 5.5 (the metric is proposed there; none was published); the pointing game is that of Zhang et
al., ECCV 2016, arXiv 1608.00507, without its margin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from scanlearn.catalog.boxes import BOX_FINDINGS, COLUMN
from scanlearn.errors import ScanlearnError
from scanlearn.scans.laid_boxes import store_boxes, to_grid
from scanlearn.scans.store import Store
from scanlearn.tasks.bootstrap import PatientBootstrap, estimate, ratio

OVERLAPS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)  # IoU above which a class counts as found
RESAMPLES = 2000


@dataclass(frozen=True)
class Case:
    """One class on one scan: ``boxes`` (k, 4) that people drew, on the store's grid."""

    row: int
    name: str
    boxes: np.ndarray


def box_cases(store: Store, rows: np.ndarray, classes: Sequence[str]) -> list[Case]:
    """The classes that have boxes on these rows, in order of the rows.

    Where the store does not say what each box shows, all are of the one class that was asked for.

    Raises:
        ScanlearnError: the store does not say it and several classes are asked for; no box of them on any of the rows.
    """
    of_row, corners, _ = store_boxes(store)
    named = BOX_FINDINGS in store.catalog.extra_columns
    if not named and len(classes) > 1:
        raise ScanlearnError(
            f"{store.path.name} does not say what its boxes show (no column {BOX_FINDINGS}): name the one class that they "
            "are of, e.g. --classes pneumonia."
        )
    cells = store.catalog.column(BOX_FINDINGS) if named else []
    shown = (
        [name for cell in cells for name in (cell.split(";") if cell else ())] if named else [classes[0]] * len(of_row)
    )
    if len(shown) != len(of_row):
        raise ScanlearnError(
            f"The columns {COLUMN} and {BOX_FINDINGS} of {store.path.name} name unequal numbers of boxes."
        )
    boxes: dict[tuple[int, str], list[np.ndarray]] = {}
    wanted = set(np.asarray(rows).tolist())
    for row, name, box in zip(of_row.tolist(), shown, to_grid(store, of_row, corners), strict=True):
        if row in wanted and name in classes:
            boxes.setdefault((row, name), []).append(box)
    cases = [Case(row, name, np.array(of_case)) for (row, name), of_case in boxes.items()]
    if not cases:
        raise ScanlearnError(f"No box of {', '.join(classes)} was drawn on the scans asked for in {store.path.name}.")
    return cases


def hot_box(heat: np.ndarray, threshold: float) -> np.ndarray | None:
    """Edges (4,) top, left, bottom, right, around the largest connected part of a map (H, W) in [0, 1] that is at least
    ``threshold``; neighbours by a corner count. None where nothing is."""
    parts, count = ndimage.label(heat >= max(threshold, np.finfo(np.float32).tiny), np.ones((3, 3)))
    if count == 0:
        return None
    largest = int(np.bincount(parts.ravel())[1:].argmax())
    down, right = ndimage.find_objects(parts)[largest]
    return np.array([down.start, right.start, down.stop, right.stop], float)


def iou(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Intersection over union (k,) of a box (4,) with boxes (k, 4)."""
    inner = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    both = inner.clip(0).prod(axis=1)
    areas = (box[2:] - box[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return both / (areas - both)


def case_figures(heat: np.ndarray, boxes: np.ndarray, threshold: float) -> dict[str, float]:
    """Figures of one map (H, W) in [0, 1] and boxes (k, 4) in its pixels.

    ``iou``: of the hot spot's box with the box that it fits best, 0 without a hot spot. ``hit``: whether the centre of
    the hottest pixel, the first of equals, lies in a box; 0 for a map of zeros. ``share``: of the pixels that lie in a
    box, which is how often a blind finger would hit.
    """
    spot = hot_box(heat, threshold)
    y, x = (np.arange(n) + 0.5 for n in heat.shape)
    covered = np.zeros(heat.shape, bool)
    for top, left, bottom, right in boxes:
        covered |= ((y >= top) & (y < bottom))[:, None] & ((x >= left) & (x < right))
    hit = heat.max() > 0 and covered.ravel()[int(heat.argmax())]
    return {
        "iou": 0.0 if spot is None else float(iou(spot, boxes).max()),
        "hit": float(hit),
        "share": float(covered.mean()),
    }


def localisation(cases: Sequence[Case], found: Sequence[Mapping[str, float]], patients: Any) -> dict[str, Any]:
    """Figures of each class and their mean over classes, with 95 % intervals from resampled patients.

    Args:
        found: ``case_figures`` of each case.
        patients: of each case.

    Returns:
        ``{"classes": {name: {"iou", "pointing", "above_0.1", ..., "share", "cases"}}, "macro": ..., "patients"}``.
    """
    figures = {"iou": [f["iou"] for f in found], "pointing": [f["hit"] for f in found]}
    figures |= {f"above_{least:g}": [float(f["iou"] > least) for f in found] for least in OVERLAPS}
    values = np.array(list(figures.values()), float).T
    bootstrap = PatientBootstrap(patients, RESAMPLES, seed=0)
    names = list(dict.fromkeys(case.name for case in cases))
    of_class = np.array([[case.name == name for name in names] for case in cases], float)
    counts = bootstrap.totals(of_class)
    draws = ratio(bootstrap.totals(of_class[:, :, None] * values[:, None]), counts[:, :, None])
    told = {
        name: {figure: estimate(draws[:, k, i]) for i, figure in enumerate(figures)}
        | {
            "share": float(np.mean([f["share"] for f, case in zip(found, cases, strict=True) if case.name == name])),
            "cases": int(of_class[:, k].sum()),
        }
        for k, name in enumerate(names)
    }
    macro: dict[str, Any] = {figure: estimate(draws[:, :, i].mean(axis=1)) for i, figure in enumerate(figures)}
    macro["share"] = float(np.mean([of["share"] for of in told.values()]))
    return {"classes": told, "macro": macro, "cases": len(cases), "patients": bootstrap.patients}
