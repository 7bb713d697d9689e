"""Any data that can leak into any other (stores, runs, folders, tables) in one form, and what two of them share.

Patients are compared by pseudonym: those of one user's stores, and names, which become pseudonyms here. Files are
compared by their sha256, pictures by their looks. Nothing that is told names a patient or a file.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scanlearn.catalog.containment import datasets_of, shared_images
from scanlearn.catalog.duplicates import Pairs, alike, likeness
from scanlearn.catalog.mapped import encode, numbers
from scanlearn.catalog.pseudonyms import DIGITS, pseudonyms, salt
from scanlearn.catalog.table import SPLITS, Catalog
from scanlearn.console import say, track
from scanlearn.engine.record import DIGEST, digests, read_record
from scanlearn.engine.run_folder import RunFolder
from scanlearn.errors import ScanlearnError
from scanlearn.scans.fingerprints import LIKENESS, looks_of, looks_of_source
from scanlearn.scans.rows import digests as hash_files
from scanlearn.scans.sources import ArraySource, FileSource, source_of
from scanlearn.scans.store import Store, open_store

# What is compared with a side where no other side or part is.
SAME_PATIENT, OTHER_PATIENT, OTHER_SCAN = "the same patient", "another patient", "another scan"
_PSEUDONYM = re.compile(rf"[a-z]+-[0-9a-f]{{{DIGITS}}}")


@dataclass(frozen=True)
class Side:
    """N scans of one source. ``part`` holds names (N,), "" for scans in no part; ``prints`` are None where unknown."""

    name: str
    patients: pa.Array  # pseudonyms (N,)
    known: bool  # whether these are patients, or stand for scans whose patient nobody knows
    files: pa.Array  # 32 bytes (N,)
    part: np.ndarray
    datasets: frozenset[str]
    prints: np.ndarray | None  # uint8 (N, 32)
    pictures: np.ndarray | None  # uint8 (N, 32, 32)
    rows: np.ndarray  # int64 (N,): of the store or the source; of a run, of the store that it was made from
    scans: Store | FileSource | ArraySource | None = None  # to read them again; a run cannot

    def __len__(self) -> int:
        return len(self.files)

    @property
    def parts(self) -> list[str]:
        """The names of its parts, train, val and test first."""
        there = {*np.unique(self.part).tolist()} - {""}
        return [*(name for name in SPLITS if name in there), *sorted(there - {*SPLITS})]

    def take(self, rows: np.ndarray) -> Side:
        """Some of its scans, by their places int64 (n,)."""
        at = pa.array(rows)
        prints, pictures = (None if array is None else array[rows] for array in (self.prints, self.pictures))
        told = {"patients": self.patients.take(at), "files": self.files.take(at), "rows": self.rows[rows]}
        return replace(self, **told, part=self.part[rows], prints=prints, pictures=pictures)


@dataclass(frozen=True)
class Shared:
    """What two groups of scans share: counts, None for what could not be told."""

    a: str
    b: str
    patients: int | None
    files: int
    copies: int | None  # pairs that look alike though their files differ
    mirrored: int | None  # those of them that are mirrored
    told: tuple[str, ...] = ()  # known containments
    harmless: bool = False  # scans of one patient in one source, which nobody parts

    @property
    def clean(self) -> bool:
        """Whether no leak was found."""
        return self.harmless or not (self.patients or self.files or self.copies or self.told)


def side_of(place: str | Path, *, patient: str | None = None, layout: str | None = None) -> Side:
    """A store, a run, or anything that ``prepare`` takes; of the last, every file is read.

    patient, layout: of the last, as in ``Catalog.from_source``. Raises ScanlearnError for what is none of them, and for
    a run without a record.
    """
    path = Path(place)
    if (path / "store.json").is_file() or "://" in str(place):
        return _of_store(str(place))
    if (path / "record.json").is_file():
        return _of_run(path)
    if (path / "recipe.yaml").is_file():
        raise ScanlearnError(f"The run {path} has no record of its data, so it cannot be checked.")
    return _of_source(path, patient, layout)


def _of_store(place: str) -> Side:
    store = open_store(place)
    catalog = store.catalog
    looks = looks_of(store)
    part = np.full(len(store), "", dtype="<U8")
    for name, rows in store.splits.items():
        part[rows] = name
    return Side(
        store.path.name,
        as_pseudonyms(catalog.array("patient_id")),
        catalog.patients_known,
        digests(catalog, np.arange(len(store))),
        part,
        datasets_of(catalog, store.info["settings"].get("origin", {})),
        looks.prints,
        looks.pictures,
        np.arange(len(store)),
        store,
    )


def _of_run(path: Path) -> Side:
    record = read_record(RunFolder(path))
    assert record is not None  # side_of saw it
    part = np.full(len(record.table), "", dtype="<U16")
    for name, where in record.parts.items():
        part[where] = name
    prints = [record.prints(name) for name in record.parts]
    whole = None if any(one is None for one in prints) else np.concatenate([np.zeros((0, 32), np.uint8), *prints])
    patients, files = record.table["patient_id"].chunk(0).dictionary_decode(), record.table["sha256"].chunk(0)
    rows = np.concatenate([np.zeros(0, np.int64), *map(record.rows, record.parts)])
    return Side(
        path.name, as_pseudonyms(patients), record.patients_known, files, part, record.datasets, whole, None, rows
    )


def _of_source(path: Path, patient: str | None, layout: str | None) -> Side:
    reader = source_of(path, patient=patient, layout=layout)
    catalog: Catalog = reader.catalog
    count = len(catalog)
    say(f"{path.name} is no store: its {count:,} scans are read now; a store keeps what is needed.")
    found = [bytes.fromhex(own) if own else b"" for own, _ in track(hash_files(reader), count, "hash")]
    # What cannot be read is equal to nothing, in another source neither.
    files = pa.array([one if len(one) == 32 else _nothing(path, row) for row, one in enumerate(found)], DIGEST)
    looks = looks_of_source(reader)
    part = np.array([name if name in SPLITS else "" for name in catalog.column("split")], dtype="<U8")
    patients = as_pseudonyms(catalog.array("patient_id"))
    known = catalog.patients_known
    datasets, rows = datasets_of(catalog), np.arange(count)
    name = path.absolute().name
    return Side(name, patients, known, files, part, datasets, looks.prints, looks.pictures, rows, reader)


def _nothing(path: Path, row: int) -> bytes:
    return hashlib.sha256(f"{path.absolute()}\n{row}".encode()).digest()


def as_pseudonyms(names: pa.Array) -> pa.Array:
    """Names of patients as pseudonyms; what is one already stays."""
    words = encode(names)
    each = words.dictionary.to_pylist()
    plain = [name for name in each if name and not _PSEUDONYM.fullmatch(name)]
    hashed = dict(zip(plain, pseudonyms("patient", plain, salt()), strict=True)) if plain else {}
    return pa.array([hashed.get(name, name) for name in each], pa.string()).take(words.indices)


# ---------------------------------------------------------------- comparing


def compare(sides: Sequence[Side]) -> tuple[list[Shared], Pairs]:
    """(what any two sides share, and within each side what its parts share and what patients; pairs that look alike).

    The rows of the pairs count through all sides. Within a side, only pairs of different patients count.
    """
    start = starts(sides)
    patient, file = codes([side.patients for side in sides]), codes([side.files for side in sides])
    of_side = np.repeat(np.arange(len(sides)), np.diff(start))
    pairs = _copies(sides, of_side, patient)
    pairs = pairs.take(file[pairs.first] != file[pairs.second])
    found = []
    names = titles(sides)
    for i, side in enumerate(sides):
        rows = np.arange(start[i], start[i + 1])
        found += _within(names[i], side, rows, patient, file, pairs)
        for a, b in combinations(side.parts, 2):
            one, other = rows[side.part == a], rows[side.part == b]
            two = f"{names[i]} {a}", f"{names[i]} {b}"
            found.append(_between(two, one, other, patient, file, pairs, side.known, side.prints is not None, ()))
    for i, j in combinations(range(len(sides)), 2):
        one, other = (np.arange(start[k], start[k + 1]) for k in (i, j))
        told = tuple(shared_images(sides[i].datasets, sides[j].datasets))
        known = sides[i].known and sides[j].known
        looked = sides[i].prints is not None and sides[j].prints is not None
        found.append(_between((names[i], names[j]), one, other, patient, file, pairs, known, looked, told))
    return found, pairs


def titles(sides: Sequence[Side]) -> list[str]:
    """What the sides are called, each otherwise: of those of one name by number."""
    names = [side.name for side in sides]
    return [f"{name} ({names[:i].count(name) + 1})" if names.count(name) > 1 else name for i, name in enumerate(names)]


def starts(sides: Sequence[Side]) -> np.ndarray:
    """int64 (sides + 1,): where the rows of each side begin when they are counted through all sides, and their number."""
    return np.concatenate([[0], np.cumsum([len(side) for side in sides])])


def codes(columns: Sequence[pa.Array]) -> np.ndarray:
    """int32 (sum of N,): equal values of all columns have equal numbers."""
    return numbers(pc.dictionary_encode(pa.concat_arrays(list(columns))).indices)


def _copies(sides: Sequence[Side], of_side: np.ndarray, patient: np.ndarray) -> Pairs:
    """Pairs that look alike, verified by their pictures where both have one."""
    prints = [np.zeros((len(side), 32), np.uint8) if side.prints is None else side.prints for side in sides]
    owner = patient.astype(np.int64) * len(sides) + of_side
    pairs = alike(np.concatenate(prints), owner)
    sure = np.ones(len(pairs), bool)
    seen = np.array([side.pictures is not None for side in sides])
    both = np.flatnonzero(seen[of_side[pairs.first]] & seen[of_side[pairs.second]])
    start = starts(sides)
    for block in _chunks(both):
        chosen = pairs.take(block)
        looks = np.concatenate([_pictures(sides, start, of_side, rows) for rows in (chosen.first, chosen.second)])
        n = len(block)
        local = Pairs(np.arange(n), np.arange(n, 2 * n), chosen.bits, chosen.mirrored)
        sure[block] = likeness(looks, local) >= LIKENESS
    return pairs.take(sure)


def _chunks(rows: np.ndarray, size: int = 65_536) -> Iterator[np.ndarray]:
    for first in range(0, len(rows), size):
        yield rows[first : first + size]


def _pictures(sides: Sequence[Side], start: np.ndarray, of_side: np.ndarray, rows: np.ndarray) -> np.ndarray:
    out = np.empty((len(rows), 32, 32), np.uint8)
    for i, side in enumerate(sides):
        mine = of_side[rows] == i
        if mine.any() and side.pictures is not None:
            out[mine] = side.pictures[rows[mine] - start[i]]
    return out


def _within(
    name: str, side: Side, rows: np.ndarray, patient: np.ndarray, file: np.ndarray, pairs: Pairs
) -> list[Shared]:
    """Files that are there twice under one patient, and files and pictures that two patients share."""
    inside = (pairs.first >= rows[0]) & (pairs.second <= rows[-1]) if len(rows) else np.zeros(len(pairs), bool)
    whose, often = np.unique(file[rows].astype(np.int64) << 32 | patient[rows], return_counts=True)
    files = int((np.unique(whose >> 32, return_counts=True)[1] > 1).sum())
    copies, mirrored = (None, None) if side.prints is None else (int(inside.sum()), int(pairs.mirrored[inside].sum()))
    other = Shared(name, OTHER_PATIENT if side.known else OTHER_SCAN, None, files, copies, mirrored)
    if not side.known:
        return [other]
    return [Shared(name, SAME_PATIENT, None, int((often > 1).sum()), None, None, harmless=True), other]


def _between(
    named: tuple[str, str],
    one: np.ndarray,
    other: np.ndarray,
    patient: np.ndarray,
    file: np.ndarray,
    pairs: Pairs,
    known: bool,
    looked: bool,
    told: tuple[str, ...],
) -> Shared:
    """What two groups of rows share."""
    where = np.zeros(len(patient), np.int8)
    where[one], where[other] = 1, 2
    crossing = where[pairs.first] * where[pairs.second] == 2
    patients = len(np.intersect1d(patient[one], patient[other])) if known else None
    files = len(np.intersect1d(file[one], file[other]))
    copies, mirrored = int(crossing.sum()), int(pairs.mirrored[crossing].sum())
    return Shared(*named, patients, files, copies if looked else None, mirrored if looked else None, told)
