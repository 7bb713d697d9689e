"""What a fine-tuning learns: a label column, some classes of it, or which scans have a mask or boxes."""

from __future__ import annotations

import numpy as np

from scanlearn.catalog.labels import Labels
from scanlearn.errors import ScanlearnError
from scanlearn.scans.laid_boxes import store_boxes
from scanlearn.scans.store import Store
from scanlearn.tasks.class_sets import class_names


def class_labels(store: Store, target: str | None, classes: list[str] | None, *, unmentioned: float = 0.0) -> Labels:
    """The classes of a label column, all or some; a column of other things is refused.

    ``classes``: names, or the one word of a set of them. ``unmentioned`` as in ``catalog.labels.labels_of``.
    """
    if target is None:
        columns = ", ".join(store.catalog.label_columns) or "none"
        raise ScanlearnError(f"Say which label column to learn with --target; the store has: {columns}.")
    labels = store.catalog.labels(target, unmentioned=unmentioned)
    if labels.kind not in ("class", "multilabel"):
        raise ScanlearnError(f"The column {target!r} holds a {labels.kind}; classification needs classes.")
    return labels if classes is None else only_classes(labels, class_names(classes))


def only_classes(labels: Labels, classes: list[str]) -> Labels:
    """The same labels for some classes, renumbered in the given order.

    Where a scan may have several labels, one that has none of these is labelled all the same: it has none of them.
    """
    if labels.kind not in ("class", "multilabel") or len(classes) < 2:
        raise ScanlearnError("classes takes two or more classes of a label column.")
    return labels.only(classes)


def box_labels(store: Store, target: str | None, classes: list[str] | None) -> Labels:
    """Which scans were looked at for boxes, those without one included: yes or no, as for masks."""
    return Labels("mask", [], store_boxes(store)[2])


def labelled_rows(store: Store, labels: Labels, part: str) -> np.ndarray:
    """int64 (n,): the rows of a part of the store that have a label."""
    rows = np.asarray(store.splits[part])
    return rows[labels.labelled[rows]]


def labelled_parts(store: Store, labels: Labels) -> dict[str, np.ndarray]:
    """Those of the validation part and of the test part."""
    return {part: labelled_rows(store, labels, part) for part in ("val", "test")}
