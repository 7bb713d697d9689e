"""How well a predicted mask agrees with the reference: overlap and surface distance of each class in each case, and
their means with a 95 % interval from resampled patients.

What happens where a mask is empty is part of the definition, and every case of it is counted:

| prediction | reference | Dice, IoU | HD95 | counted as | with ``empty="brats"`` |
|---|---|---|---|---|---|
| empty | empty | NaN, not in the mean | NaN, not in the mean | ``both_empty`` | Dice 1, HD95 0 |
| empty | there | 0 | infinite, not in the mean | ``missed`` | HD95 is the diagonal of the scan |
| there | empty | 0 | infinite, not in the mean | ``invented`` | HD95 is the diagonal of the scan |

The diagonal of a BraTS scan of 240 x 240 x 155 mm is 373.13 mm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.spatial import KDTree

from scanlearn.errors import unknown
from scanlearn.tasks.bootstrap import PatientBootstrap, estimate, mean_of_defined, ratio

PER_CASE = ("dice", "iou", "hd95", "sensitivity", "specificity")
EMPTY = ("left_out", "brats")


def segmentation_case(
    prediction: np.ndarray,
    reference: np.ndarray,
    classes: Mapping[str, int | Sequence[int]],
    spacing: Sequence[float],
) -> dict[str, np.ndarray]:
    """Agreement of one case, prediction and reference (*spatial) integer, for each of the K classes.

    Args:
        classes: name -> mask value, or the values whose union is the class (a tumour and its core).
        spacing: mm between voxel centres along each axis of the arrays; HD95 comes out in its unit.

    Returns:
        float64 arrays (K,): ``dice``, ``iou``, ``hd95`` (see ``hausdorff_95``), ``sensitivity`` and ``specificity`` of
        voxels, the counts ``both``, ``predicted`` and ``reference`` that pooled figures are made of, and the scan's
        ``diagonal``.
    """
    if prediction.shape != reference.shape or len(spacing) != reference.ndim:
        raise ValueError(
            f"prediction {prediction.shape}, reference {reference.shape} and spacing {tuple(spacing)} do not fit"
        )
    both, predicted, there, distance = (np.empty(len(classes)) for _ in range(4))
    for i, values in enumerate(classes.values()):
        found, truth = _member(prediction, values), _member(reference, values)
        both[i], predicted[i], there[i] = (np.count_nonzero(m) for m in (found & truth, found, truth))
        distance[i] = hausdorff_95(found, truth, spacing)
    return {
        "dice": ratio(2 * both, predicted + there),
        "iou": ratio(both, predicted + there - both),
        "hd95": distance,
        "sensitivity": ratio(both, there),
        "specificity": ratio(reference.size - predicted - there + both, reference.size - there),
        "diagonal": np.full(len(classes), float(np.linalg.norm(np.multiply(reference.shape, spacing)))),
        "both": both,
        "predicted": predicted,
        "reference": there,
    }


def hausdorff_95(first: np.ndarray, second: np.ndarray, spacing: Sequence[float]) -> float:
    """95 % Hausdorff distance of two bool masks: the larger of the two directed 95th percentiles.

    A directed distance goes from each boundary voxel (one with a face neighbour outside the mask; beyond the array is
    outside) to the nearest boundary voxel of the other mask. Infinite where one mask is empty, NaN where both are.
    This is the definition of MONAI and of DeepMind's surface-distance; medpy takes one percentile over both directions.
    """
    if not first.any() or not second.any():
        return float("nan") if not first.any() and not second.any() else float("inf")
    box = _bounding_box(first | second)
    edges = _boundary(first[box]), _boundary(second[box])
    # Search trees over the boundary voxels cost what the surface has, a distance transform what the box has.
    points = [np.argwhere(edge) * np.asarray(spacing, np.float64) for edge in edges]
    directed = []
    for here, there, edge, other in ((0, 1, edges[0], edges[1]), (1, 0, edges[1], edges[0])):
        distance = np.zeros(len(points[here]))
        away = ~other[edge]  # boundary voxels that both masks share are 0 apart
        distance[away] = KDTree(points[there]).query(points[here][away])[0]
        directed.append(np.percentile(distance, 95))
    return float(max(directed))


def segmentation_metrics(
    cases: Sequence[dict[str, np.ndarray]],
    classes: Sequence[str],
    patients: Any,
    *,
    empty: str = "left_out",
    bootstrap: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Means over cases of what ``segmentation_case`` gave, for each class and as the mean over classes ("macro").

    Args:
        cases: one result for each of the N cases.
        classes: the K names, in the order of the cases' arrays.
        patients: (N,) whose cases they are. Patients are resampled, all cases of one together.
        empty: what an empty mask counts, see the table above; figures of either kind are not those of the other.

    Returns:
        ``{"cases", "patients", "classes": {name: {...}}, "macro": {...}, "bootstrap": {...}}``. A class has ``dice``,
        ``iou`` and ``hd95`` (means over the cases that have them), ``pooled_dice`` and ``pooled_iou`` (over the voxels
        of all cases as if they were one), each ``{"value", "low", "high", "skipped"}``, and the counts ``both_empty``,
        ``missed`` and ``invented``: the mean of ``hd95`` says nothing about missed and invented ones, so report them
        beside it. A class that no case has is left out of ``macro``.
    """
    if not cases or len(cases) != len(patients):
        raise ValueError(f"{len(cases)} cases of {len(patients)} patients: each case needs its patient")
    resamples = PatientBootstrap(patients, bootstrap, seed)
    table = by_convention({key: np.stack([case[key] for case in cases]) for key in cases[0]}, empty)
    draws = {key: _mean_of_finite(table[key], resamples) for key in PER_CASE}
    both, predicted, there = (resamples.totals(table[key]) for key in ("both", "predicted", "reference"))
    draws["pooled_dice"] = ratio(2 * both, predicted + there)
    draws["pooled_iou"] = ratio(both, predicted + there - both)
    no_prediction, no_reference = table["predicted"] == 0, table["reference"] == 0
    counts = {
        "both_empty": no_prediction & no_reference,
        "missed": no_prediction & ~no_reference,
        "invented": ~no_prediction & no_reference,
    }
    return {
        "cases": len(cases),
        "patients": resamples.patients,
        "classes": {
            name: {
                **{figure: estimate(values[:, i]) for figure, values in draws.items()},
                **{kind: int(which[:, i].sum()) for kind, which in counts.items()},
            }
            for i, name in enumerate(classes)
        },
        "macro": {figure: estimate(mean_of_defined(values)) for figure, values in draws.items()},
        "empty": empty,
        "bootstrap": {"resamples": bootstrap, "unit": "patient", "level": 0.95, "seed": seed},
    }


def by_convention(table: dict[str, np.ndarray], empty: str) -> dict[str, np.ndarray]:
    """Figures of cases, as ``segmentation_case`` gives them for one, with those of empty masks as ``empty`` counts them.

    "brats": the convention of the BraTS challenges, where no case is left out. Doing it twice changes nothing.
    """
    if empty not in EMPTY:
        raise unknown("treatment of empty masks", empty, EMPTY)
    if empty == "left_out":
        return table
    nothing = (table["predicted"] == 0) & (table["reference"] == 0)
    overlap = {key: np.where(nothing, 1.0, table[key]) for key in ("dice", "iou")}
    distance = np.where(np.isinf(table["hd95"]), table["diagonal"], table["hd95"])
    return {**table, **overlap, "hd95": np.where(nothing, 0.0, distance)}


def _mean_of_finite(values: np.ndarray, resamples: PatientBootstrap) -> np.ndarray:
    finite = np.isfinite(values)
    return ratio(resamples.totals(np.where(finite, values, 0.0)), resamples.totals(finite))


def _member(mask: np.ndarray, values: int | Sequence[int]) -> np.ndarray:
    return mask == values if isinstance(values, (int, np.integer)) else np.isin(mask, list(values))


def _bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    box = []
    for axis in range(mask.ndim):
        line = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        box.append(slice(int(line[0]), int(line[-1]) + 1))
    return tuple(box)


def _boundary(mask: np.ndarray) -> np.ndarray:
    """Voxels of a bool mask with a face neighbour outside it; what lies beyond the array is outside."""
    padded = np.pad(mask, 1)
    inner = mask.copy()
    middle = (slice(1, -1),) * mask.ndim
    for axis in range(mask.ndim):
        for side in (slice(0, -2), slice(2, None)):
            inner &= padded[(*middle[:axis], side, *middle[axis + 1 :])]
    return mask & ~inner
