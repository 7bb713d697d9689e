"""Who may train on which scans: splits by patient, and the check that no patient is on two sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pyarrow.compute as pc

from scanlearn.catalog.groups import Groups, patient_groups, random_keys
from scanlearn.catalog.labelled import pick_labelled
from scanlearn.catalog.labels import Labels
from scanlearn.catalog.mapped import present
from scanlearn.catalog.strata import group_strata
from scanlearn.catalog.table import SPLITS, Catalog
from scanlearn.console import say, warn
from scanlearn.errors import ScanlearnError

__all__ = ["assert_disjoint", "make_splits", "pick_labelled"]


def make_splits(
    catalog: Catalog,
    *,
    fractions: Sequence[float] = (0.7, 0.1, 0.2),
    seed: int = 0,
    target: str | None = None,
) -> dict[str, np.ndarray]:
    """Divide the scans into ``train``, ``val`` and ``test``: sorted int64 row indices that share no patient.

    A filled ``split`` column is taken as it is; a part it does not name is cut out of its training patients. Otherwise
    patients are divided at random, with equal shares of each class of ``target`` (see ``group_strata``). Patients who
    share an identical file (sha256) count as one. The seed, the ids and the labels decide, the order of rows does not.

    Args:
        fractions: shares of the patients in train, val and test; they sum to 1, and a 0 leaves that part empty.
        target: label column (or "mask") to balance.

    Raises:
        ScanlearnError: too few patients for the parts; a given split that is partly blank or parts one patient's scans.
    """
    shares = _checked(fractions)
    if not catalog.patients_known:
        warn("The patient of some scans is not known; each of them counts as a patient of its own.")
    given = catalog.array("split")
    if pc.any(pc.not_equal(given, "")).as_py():
        parts = _given_parts(catalog, shares, seed, target)
    else:
        parts = _random_parts(catalog, shares, seed, target)
    if target is not None:
        _say_what_is_absent(catalog.labels(target), target, parts)
    return parts


def assert_disjoint(catalog: Catalog, parts: Mapping[str, np.ndarray]) -> None:
    """Refuse parts (row indices, any number, any names) that share a patient, or one file under two patients.

    Raises:
        ScanlearnError: names the first two such parts and the number of shared patients or files, never who they are.
    """
    patient, file = catalog.codes("patient_id"), catalog.codes("sha256")
    count = len(catalog) + 1
    patients_in = {name: present(patient[rows], count) for name, rows in parts.items()}
    files_in = {name: present(file[rows], count) for name, rows in parts.items()}
    for found in files_in.values():
        found[0] = False  # what was not hashed is equal to nothing
    for a, b in combinations(parts, 2):
        shared = int((patients_in[a] & patients_in[b]).sum())
        if shared:
            raise ScanlearnError(
                f"The parts {a!r} and {b!r} share {_count(shared, 'patient')}; give each patient's scans to one part, "
                "or leave the split out and let scanlearn divide by patient."
            )
        equal = int((files_in[a] & files_in[b]).sum())
        if equal:
            raise ScanlearnError(
                f"The parts {a!r} and {b!r} share {_count(equal, 'identical file')} under different patients; take the "
                "copies out, or leave the split out and let scanlearn keep such patients together."
            )


def _checked(fractions: Sequence[float]) -> np.ndarray:
    shares = np.asarray(fractions, np.float64)
    if shares.shape != (len(SPLITS),) or not np.isfinite(shares).all() or (shares < 0).any():
        raise ScanlearnError(f"The fractions {tuple(fractions)} are not three shares of train, val and test.")
    if abs(shares.sum() - 1) > 1e-6:
        raise ScanlearnError(f"The fractions {tuple(fractions)} sum to {shares.sum():g}; make them sum to 1.")
    return shares


def _given_parts(catalog: Catalog, shares: np.ndarray, seed: int, target: str | None) -> dict[str, np.ndarray]:
    """The parts that the ``split`` column names, and what it leaves out cut from its training patients."""
    given = np.array(catalog.column("split"), dtype=np.str_)
    blank = int((given == "").sum())
    if blank:
        raise ScanlearnError(
            f"The split column is blank in {blank} of {len(given)} rows; write train, val or test in every row, "
            "or leave the column out."
        )
    parts = {name: np.flatnonzero(given == name) for name in SPLITS}
    assert_disjoint(catalog, parts)
    lacking = [i for i, name in enumerate(SPLITS) if shares[i] > 0 and not len(parts[name])]
    if 0 in lacking:
        raise ScanlearnError("The split column names no scan for train; write train in some rows, or leave it out.")
    if lacking:
        rows = parts["train"]
        wanted = np.array([share if i in (0, *lacking) else 0.0 for i, share in enumerate(shares)])
        if not wanted[0]:
            raise ScanlearnError("The fraction of train is 0, so nothing can be cut out of the training patients.")
        cut = _random_parts(catalog.take(rows), wanted / wanted.sum(), seed, target)
        parts.update({SPLITS[i]: rows[cut[SPLITS[i]]] for i in (0, *lacking)})
        named = " and ".join(SPLITS[i] for i in lacking)
        say(f"The given split has no {named}: cut out of its training patients.")
    return parts


def _random_parts(catalog: Catalog, shares: np.ndarray, seed: int, target: str | None) -> dict[str, np.ndarray]:
    groups = patient_groups(catalog)
    if groups.joined:
        say(
            f"{groups.joined} patients share {_count(groups.files, 'identical file')} with another patient; "
            "those who do are kept together in one part."
        )
    strata = np.zeros(len(groups.names), np.int64)
    if target is not None:
        strata = group_strata(catalog.labels(target), groups.of_row, len(groups.names))
    part = _dealt(groups, strata, _counts(len(groups.names), shares), seed)
    return {name: np.flatnonzero(part[groups.of_row] == i) for i, name in enumerate(SPLITS)}


def _counts(patients: int, shares: np.ndarray) -> np.ndarray:
    """How many patients each part gets: the nearest whole numbers, and one at least where the share is not 0."""
    wanted = int((shares > 0).sum())
    if patients < wanted:
        names = ", ".join(name for name, share in zip(SPLITS, shares, strict=True) if share > 0)
        raise ScanlearnError(
            f"{_count(patients, 'patient')} cannot fill the {wanted} parts {names}; add patients, or give the fraction "
            "0 to parts that are not needed."
        )
    counts = np.floor(shares * patients + 1e-9).astype(np.int64)
    left = np.argsort(-(shares * patients - counts), kind="stable")
    counts[left[: patients - counts.sum()]] += 1
    for empty in np.flatnonzero((shares > 0) & (counts == 0)):
        counts[np.argmax(counts)] -= 1
        counts[empty] += 1
    return counts


def _dealt(groups: Groups, strata: np.ndarray, counts: np.ndarray, seed: int) -> np.ndarray:
    """int64 (G,): the part of each group, dealt like cards to the shuffled groups of one stratum after the other.

    The j-th card of a part with n cards is dealt at time (j + 1/2) / n, so every run of cards, and with it every
    stratum, holds all parts in nearly their shares, and the whole deck holds them exactly.
    """
    times = np.concatenate([(np.arange(n) + 0.5) / n for n in counts if n] or [np.zeros(0)])
    cards = np.repeat(np.arange(len(counts)), counts)[np.argsort(times, kind="stable")]
    part = np.empty(len(strata), np.int64)
    part[np.lexsort((random_keys(seed, groups.names), strata))] = cards
    return part


def _say_what_is_absent(labels: Labels, target: str, parts: Mapping[str, np.ndarray]) -> None:
    scans, classes = labels.shown()
    for name, rows in parts.items():
        absent = len(labels.classes) - len(np.unique(classes[np.isin(scans, rows)]))
        if absent and len(rows):
            say(f"{absent} of {len(labels.classes)} classes of {target!r} have no scan in {name}.")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
