"""The guard against leaks, before every training and test: who and what is in two parts, or was trained on before.

Patients and identical files are always looked for. Copies that were re-encoded, resized or mirrored are where the store
keeps looks (``scans.fingerprints``); known containments of public data sets are where layouts told what the scans are.
What was checked, and what could not be, is kept in the record of the run; nothing of it names a patient or a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scanlearn.catalog.containment import datasets_of, shared_images
from scanlearn.catalog.duplicates import alike
from scanlearn.catalog.mapped import present
from scanlearn.catalog.splits import assert_disjoint
from scanlearn.console import warn
from scanlearn.engine.record import DIGEST, Record, common, digests, read_record
from scanlearn.engine.run_folder import RunFolder, run_of
from scanlearn.engine.sides import as_pseudonyms
from scanlearn.errors import ScanlearnError
from scanlearn.scans.fingerprints import kept_alike, kept_looks
from scanlearn.scans.rows import digests as hash_files
from scanlearn.scans.sources import FileSource
from scanlearn.scans.store import Store

TRAINED = ("pre-training", "fine-tuning")  # parts that a run learnt from
MOST_COMPARED = 1_000_000  # hashes compared before a training; `scanlearn catalog check` compares any number


@dataclass
class Checked:
    """Sentences for the record: what was looked for and what was found, and what could not be looked for."""

    done: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)

    def add(self, other: Checked) -> None:
        """Take in what another look told."""
        self.done += other.done
        self.open += other.open

    def found(self, text: str) -> None:
        """Something that was found: kept, and said."""
        self.done.append(text)
        warn(text)


def keep_apart(store: Store, parts: Mapping[str, np.ndarray]) -> Checked:
    """Refuse parts (rows of the store) that share a patient or an identical file; say how many scans look alike.

    Of one part alone it is said how many of its own scans look alike though their patients differ.

    Raises:
        ScanlearnError: see ``assert_disjoint``.
    """
    assert_disjoint(store.catalog, parts)
    told = Checked(["No identical file is in two parts."] if len(parts) > 1 else [])
    if store.catalog.patients_known:
        told.done += ["No patient is in two parts."] if len(parts) > 1 else []
    else:
        told.open.append("Patients are not known: one of them may be in two parts.")
    pairs = kept_alike(store)
    if pairs is None:
        told.open.append(
            f"Re-encoded, resized or mirrored copies were not looked for: `scanlearn catalog check {store.path.name}`."
        )
        return told
    inside = {name: present(rows, len(store)) for name, rows in parts.items()}
    for a, b in combinations(parts, 2):
        crossing = inside[a][pairs] & inside[b][pairs[:, ::-1]]
        if count := int(crossing.any(1).sum()):
            told.found(f"{count} pairs of scans of different patients look alike, one in {a!r} and one in {b!r}.")
    for name, rows in inside.items() if len(parts) == 1 else ():
        if count := int(rows[pairs].all(1).sum()):
            told.done.append(f"{count} pairs of scans of different patients look alike, both in {name!r}.")
    told.done.append("Copies that were re-encoded, resized or mirrored were looked for among all patients.")
    return told


def not_seen(init: str | Path | None, store: Store, part: str = "test", *, rows: np.ndarray | None = None) -> Checked:
    """Refuse to test on patients, or on files, that the weights were trained on, now or in a run before.

    A run keeps a record of its data, and the name of the run whose weights it began from, which is looked for beside
    it. Patients have the same pseudonym in all stores of one user; but in another store an equal name, "1" say, may be
    another person: then it is only said, as are copies that look alike and data sets known to hold each other's images.

    Args:
        part: val and test are refused. Whoever looks at train, or at all, asks for scans that were trained on: how many
            is told.
        rows: those of the part that are looked at; all of them by default.

    Raises:
        ScanlearnError: patients or files of the part were trained on.
    """
    told = Checked()
    if init in (None, "none"):
        return told
    if rows is None:
        rows = np.arange(len(store)) if part == "all" else np.asarray(store.splits[part])
    asked = _Asked(store, rows, "store" if part == "all" else f"{part} part", refused=part in ("val", "test"))
    for run, record in _trained_before(Path(str(init)), told):
        if record.masks:
            told.done.append(f"{run} was pre-trained with the masks of {record.masks} scans, not without labels.")
        for trained in (name for name in TRAINED if name in record.parts):
            _compare(asked, run, record, trained, told)
    return told


def seen_files(init: str | Path, source: FileSource) -> Checked:
    """Say which scans of a source that is no store the weights were trained on, by identical files and names of patients.

    Nothing is refused: whoever predicts scans may have masks of those that were trained on.
    """
    told = Checked()
    found = [bytes.fromhex(own) for own, _ in hash_files(source) if own]
    files = pc.unique(pa.array(found, DIGEST))
    catalog = source.catalog
    patients = pc.unique(as_pseudonyms(catalog.array("patient_id")))
    for run, record in _trained_before(Path(init), told):
        known = catalog.patients_known and record.patients_known
        for trained in (name for name in TRAINED if name in record.parts):
            if same := common(files, record.files(trained)):
                told.found(
                    f"{same} of the files were in the {trained} of {run}: what it knows of them says nothing of others."
                )
            elif known and (who := common(patients, record.patients(trained))):
                told.found(f"{who} of the patients have a name that occurs in the {trained} of {run}.")
            what = "identical files and patients" if known else "identical files"
            told.done.append(f"The scans were compared with the {trained} of {run} by {what}.")
    told.open.append("Re-encoded, resized or mirrored copies were not looked for: `scanlearn catalog check RUN SCANS`.")
    return told


@dataclass(frozen=True)
class _Asked:
    """The scans that figures will be of."""

    store: Store
    rows: np.ndarray
    name: str  # "test part"
    refused: bool  # where they were trained on


def _trained_before(init: Path, told: Checked) -> Iterator[tuple[str, Record]]:
    """(name, record) of the run that the weights lie in and of those that its own weights came from."""
    folder, seen = run_of(init), set[Path]()
    while folder.resolve() not in seen:
        seen.add(folder.resolve())
        run = RunFolder(folder)
        record = read_record(run)
        if record is None and len(seen) > 1:
            told.open.append(f"Weights came from {folder.name}, which is no run beside it, so its data are not known.")
            return
        if record is None:
            text = f"{folder.name} has no record of what it was trained on, so nobody can say whether it saw the scans."
            told.open.append(text)
            warn(text)
            return
        yield folder.name, record
        before = run.read_environment().get("init", "none") if run.environment.is_file() else "none"
        if before == "none":
            return
        folder = folder.resolve().parent / before


def _compare(asked: _Asked, run: str, record: Record, trained: str, told: Checked) -> None:
    """Compare the scans that are asked about with what a run was trained on."""
    store, rows, name = asked.store, asked.rows, asked.name
    catalog, known = store.catalog, record.patients_known and store.catalog.patients_known
    tested = np.unique(catalog.codes("patient_id")[rows])
    patients = common(catalog.words("patient_id").take(pa.array(tested)), record.patients(trained))
    files = common(pc.unique(digests(catalog, rows)), record.files(trained))
    same = record.store == store.info["key"]
    if patients and known and not same:
        told.found(f"{patients} patients of the {name} have a name that occurs in the {trained} of {run}.")
    if files or (patients and same):
        seen = f"{patients if same else 0} patients and {files} files of the {name} were in the {trained} of {run}"
        if asked.refused:
            raise ScanlearnError(f"{seen}, so its test would be worthless: pre-train with --part train.")
        told.done.append(f"{seen}: what it knows of them says nothing of others.")
    what = "identical files and patients" if known else "identical files"
    told.done.append(f"The {name} was compared with the {trained} of {run} by {what}.")
    if not known:
        told.open.append(f"Whether patients of the {name} were in the {trained} of {run}: they are not known.")
    if same:
        return  # its parts were kept apart, and looked over for copies, when it was begun
    for text in shared_images(record.datasets, datasets_of(catalog, store.info["settings"].get("origin", {}))):
        told.found(f"{run} was trained on a data set that shares images with this one: {text}")
    _look_for_copies(asked, run, record, trained, told)


def _look_for_copies(asked: _Asked, run: str, record: Record, trained: str, told: Checked) -> None:
    ours, theirs = kept_looks(asked.store), record.prints(trained)
    rows, name = asked.rows, asked.name
    if ours is None or theirs is None or len(rows) + len(theirs) > MOST_COMPARED:
        why = "they are many" if ours is not None and theirs is not None else "one of them has no looks"
        told.open.append(f"Copies of the {name} in the {trained} of {run} were not looked for: {why}.")
        return
    prints = np.concatenate([ours.prints[rows], theirs])
    pairs = alike(prints, np.arange(len(prints)) >= len(rows))
    if count := len(np.unique(pairs.first)):
        told.found(
            f"{count} scans of the {name} look like one in the {trained} of {run}: re-encoded, resized or mirrored "
            "copies, by their hashes."
        )
    told.done.append(f"Copies of the {name} in the {trained} of {run} were looked for.")
