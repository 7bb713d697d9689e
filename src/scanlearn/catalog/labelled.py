"""A few labelled scans out of many: the label budgets of a study, each contained in the next."""

from __future__ import annotations

import re

import numpy as np

from scanlearn.catalog.groups import random_keys, sorted_codes
from scanlearn.catalog.labels import Labels
from scanlearn.catalog.strata import group_strata
from scanlearn.catalog.table import Catalog
from scanlearn.errors import ScanlearnError

ORDER = "labelled_order"  # column of a published split that says which scans are labelled first: 1, 2, 3, ... or blank


def pick_labelled(catalog: Catalog, rows: np.ndarray, target: str | Labels, count: int | str, seed: int) -> np.ndarray:
    """Choose ``count`` of the ``rows`` that have a label in ``target``: int64 (count,) rows.

    Every class is there at least once, and the classes come in the proportion of all labelled ``rows``. Within a class
    no scan is a patient's second before every patient gave one. There is one order of all labelled scans for each seed,
    and the first ``count`` are returned: 50 scans are the first 50 of the 100. The files' contents (before ``prepare``
    knows them: the ids) and labels decide; neither the order of rows does nor what a store calls them.

    Where a catalogue has the column ``ORDER``, the scans with a number in it come first, in that order, for every seed
    and whatever classes they show; the others follow as above.

    Args:
        target: label column, "mask" for scans that have a mask, or labels of all scans of the catalogue.
        count: how many, a share of the labelled ones such as "1%" (nested as well), or "all" of them.

    Raises:
        ScanlearnError: fewer labelled scans than ``count``, or ``count`` too small to show every class.
    """
    rows = np.unique(np.asarray(rows, np.int64))
    labels = target if isinstance(target, Labels) else catalog.labels(target)
    name = labels.kind if isinstance(target, Labels) else target
    rows = rows[labels.labelled[rows]]
    if not len(rows):
        raise ScanlearnError(f"None of the scans has a label in {name!r}; choose another column or other scans.")
    if isinstance(count, str) and count != "all":
        count = max(round(share_of(count) * len(rows)), 1)
    if not isinstance(count, str) and not 1 <= count <= len(rows):
        raise ScanlearnError(f"{count} labelled scans were asked for, but {len(rows)} have a label in {name!r}.")
    order, needed = _order(catalog, rows, labels, seed)
    published = _published_order(catalog, rows)
    if len(published):
        order, needed = np.concatenate([published, order[~np.isin(order, published)]]), 1
    if not isinstance(count, str) and count < needed:
        raise ScanlearnError(
            f"{count} labelled scans cannot show every class of {name!r}; ask for {needed} at least, or for 'all'."
        )
    return rows[order if isinstance(count, str) else order[:count]]


def share_of(text: str) -> float:
    """ "1%" or "0.5 %" as a share between 0 and 1."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", text)
    if found is None or not 0 < float(found[1]) <= 100:
        raise ScanlearnError(f"Labelled scans are a number, a share such as 1%, or all, not {text!r}.")
    return float(found[1]) / 100


def _published_order(catalog: Catalog, rows: np.ndarray) -> np.ndarray:
    """Indices into ``rows`` of those that ``ORDER`` numbers, in its order; none without such a column."""
    if ORDER not in catalog.table.column_names:
        return np.zeros(0, np.int64)
    cells = catalog.array(ORDER, rows).to_pylist()
    if not all(cell == "" or (cell.isdecimal() and int(cell)) for cell in cells):
        raise ScanlearnError(f"The column {ORDER!r} holds what is no place: write 1, 2, 3, ... or leave cells blank.")
    places = np.array([int(cell or 0) for cell in cells], np.int64)
    return np.argsort(places, kind="stable")[np.count_nonzero(places == 0) :]


def _order(catalog: Catalog, rows: np.ndarray, labels: Labels, seed: int) -> tuple[np.ndarray, int]:
    """Indices into ``rows`` in the order in which they are picked, and how many it takes to show every class."""
    chosen = Labels(labels.kind, labels.classes, labels.codes[rows])
    keys = random_keys(seed, _lasting_names(catalog, rows))
    patient, _ = sorted_codes(catalog.array("patient_id", rows))
    first = _one_of_each(chosen, patient, keys)
    later = np.ones(len(rows), np.int64)
    later[first] = 0
    # Its place in its class: a scan that is its patient's first comes before all second ones.
    turn = _rank_within(patient, np.lexsort((keys, later)))
    stratum = group_strata(chosen, np.arange(len(rows)), len(rows))
    place = _rank_within(stratum, np.lexsort((keys, turn, later)))
    time = (place + 0.5) / np.bincount(stratum)[stratum]
    order = np.lexsort((keys, time, later))
    order[: len(first)] = first
    return order, len(first)


def _lasting_names(catalog: Catalog, rows: np.ndarray) -> list[str]:
    """A name for each of the rows that no other salt of its pseudonym changes: the sha256 of its files, or its id."""
    digests = catalog.array("sha256", rows).to_pylist()
    return digests if all(digests) else catalog.array("scan_id", rows).to_pylist()


def _one_of_each(labels: Labels, patient: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Few scans (n,) that together show every class; rare classes choose first, if they can from new patients."""
    rows, classes = labels.shown()
    by_class = np.argsort(classes, kind="stable")
    ends = np.cumsum(np.bincount(classes, minlength=len(labels.classes)))
    candidates_of = np.split(rows[by_class], ends[:-1]) if len(ends) else []
    starts = np.searchsorted(rows, np.arange(len(patient) + 1))
    seen = np.zeros(len(labels.classes), bool)
    asked = np.zeros(len(patient), bool)  # indexed by patient
    picked: list[int] = []
    for index in sorted(range(len(candidates_of)), key=lambda i: len(candidates_of[i])):
        candidates = candidates_of[index]
        if seen[index] or not len(candidates):
            continue
        scan = int(candidates[np.lexsort((keys[candidates], asked[patient[candidates]]))[0]])
        picked.append(scan)
        asked[patient[scan]] = True
        seen[classes[starts[scan] : starts[scan + 1]]] = True
    return np.array(picked, np.int64)


def _rank_within(group: np.ndarray, order: np.ndarray) -> np.ndarray:
    """int64 (n,): the place of each element among those of its group, when all are visited in ``order``."""
    order = order[np.argsort(group[order], kind="stable")]
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    place = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    rank = np.empty(len(order), np.int64)
    rank[order] = place
    return rank
