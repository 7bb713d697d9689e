"""Leaving out of a store what somebody else has: what was trained on, or what will be tested on.

Pre-training on all of ChestX-ray14 has seen the test scans of every set that was taken from it; episodes over a whole
store ask a network about scans that it was trained on. Both go away when the scans that two places share are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from scanlearn.catalog.split_file import read_split
from scanlearn.console import say
from scanlearn.engine.leaks import TRAINED
from scanlearn.engine.record import DIGEST
from scanlearn.engine.sides import Side, codes, compare, side_of
from scanlearn.errors import ScanlearnError
from scanlearn.scans.store import Store

TESTED = ("val", "test")


def shared_rows(store: Store, places: Sequence[str | Path]) -> tuple[np.ndarray, list[str]]:
    """Which scans of a store these places have as well: by patient, by identical file, by pictures that look alike.

    Args:
        places: runs (what they were trained on), stores (their val and test parts), files that `catalog split` wrote
            (the same), or anything that ``prepare`` takes (all of it).

    Returns:
        (bool (N,), a sentence for each place; it names neither patients nor files).
    """
    ours = side_of(store.location)
    out, told = np.zeros(len(store), bool), []
    for place in places:
        theirs = _wanted(Path(place))
        patient, file = (codes([getattr(ours, name), getattr(theirs, name)]) for name in ("patients", "files"))
        shared = {"the same file": np.isin(file[: len(ours)], file[len(ours) :])}
        if ours.known and theirs.known:
            shared["the same patient"] = np.isin(patient[: len(ours)], patient[len(ours) :])
        if theirs.prints is not None:
            _, pairs = compare([ours, theirs])
            shared["a picture that looks alike"] = np.zeros(len(ours), bool)
            across = (pairs.first < len(ours)) & (pairs.second >= len(ours))
            shared["a picture that looks alike"][pairs.first[across]] = True
        found = np.logical_or.reduce([*shared.values()])
        what = ", ".join(f"{name} {int(rows.sum()):,}" for name, rows in shared.items())
        told.append(f"{int(found.sum()):,} scans are left out that {theirs.name} has too ({what}).")
        say(told[-1])
        out |= found
    if out.all():
        raise ScanlearnError(f"All {len(store):,} scans of {store.path.name} are left out: nothing is left to use.")
    return out, told


def _wanted(place: Path) -> Side:
    if place.suffix == ".json" and place.is_file():
        return _of_split(place)
    side = side_of(place)
    wanted = np.isin(side.part, [*TRAINED] if (place / "record.json").is_file() else [*TESTED])
    if side.parts and not wanted.any():
        raise ScanlearnError(f"{place} has no scans to leave out: it neither trained nor tests on any.")
    return side.take(np.flatnonzero(wanted)) if side.parts else side


def _of_split(path: Path) -> Side:
    """The files that a split tests on; of their patients and looks it says nothing."""
    parts, _ = read_split(path)
    files = [bytes.fromhex(digest) for name in TESTED for digest in parts.get(name, ())]
    nobody = pa.array([f"file {i}" for i in range(len(files))], pa.string())
    part, rows = np.full(len(files), "test"), np.arange(len(files))
    return Side(path.name, nobody, False, pa.array(files, DIGEST), part, frozenset(), None, None, rows)
