"""One class for each patient or scan, so that parts and samples can be given equal shares of each class."""

from __future__ import annotations

import numpy as np

from scanlearn.catalog.labels import Labels

BINS = 5  # a number is stratified by this many ranges of equally many scans


def group_strata(labels: Labels, group: np.ndarray, count: int) -> np.ndarray:
    """int64 (count,): the stratum of each group of scans, -1 for groups without any label.

    - class: the class of most of its scans, of equals the rarer one;
    - multilabel: the rarest finding that any of its scans shows; one more stratum for those who show none;
    - number: the range in which the mean of its scans lies; mask: whether most of its scans have one.

    Args:
        labels: of N scans.
        group: int64 (N,), values in [0, count).
        count: number of groups.
    """
    known = labels.labelled
    if labels.kind == "number":
        total = np.bincount(group[known], weights=labels.codes[known], minlength=count)
        scans = np.bincount(group[known], minlength=count)
        mean = np.divide(total, scans, out=np.full(count, np.nan), where=scans > 0)
        return _ranges(mean)
    if labels.kind == "multilabel":
        rows, classes = labels.shown()
        strata = np.full(count, -1, np.int64)
        strata[group[known]] = len(labels.classes)
        return _best(group[rows], classes, strata, by_count=False)
    codes = labels.codes.astype(np.int64)
    rows = np.flatnonzero(codes >= 0)
    return _best(group[rows], codes[rows], np.full(count, -1, np.int64), by_count=True)


def _best(group: np.ndarray, classes: np.ndarray, strata: np.ndarray, by_count: bool) -> np.ndarray:
    """``strata`` with the commonest (or else the rarest) class of each group that has one."""
    if not len(group):
        return strata
    width = int(classes.max()) + 1
    pairs, scans = np.unique(group * width + classes, return_counts=True)
    group, classes = np.divmod(pairs, width)
    groups_with = np.bincount(classes)  # how rare a class is, counted in groups
    order = np.lexsort((classes, groups_with[classes], -scans if by_count else 0 * scans, group))
    first = order[np.unique(group[order], return_index=True)[1]]
    strata[group[first]] = classes[first]
    return strata


def _ranges(values: np.ndarray) -> np.ndarray:
    """int64 (n,): the fifth of the values in which each lies, -1 for NaN."""
    known = ~np.isnan(values)
    strata = np.full(len(values), -1, np.int64)
    if known.any():
        edges = np.quantile(values[known], np.arange(1, BINS) / BINS)
        strata[known] = np.searchsorted(edges, values[known], side="right")
    return strata
