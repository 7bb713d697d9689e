"""What a run keeps of its data: which rows of which store are in which part, whose they are, and what is in them.

RUN/record.json says it in numbers. RUN/record.arrow has a row for each scan of the run: its row in the store, the
patient as the store names them, the sha256 of its files, and the hash of its look where the store keeps looks. With it
a later run, or a reader, can tell whether somebody was seen before, though the store be gone; nothing in it leads to a
file or a label. What the guard against leaks looked for stands there too (``engine.leaks``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scanlearn.catalog.containment import datasets_of
from scanlearn.catalog.labels import labels_of
from scanlearn.catalog.mapped import WORDS, check_words, codes_of, damaged, numbers, open_mapped, present, write_mapped
from scanlearn.catalog.table import Catalog
from scanlearn.engine.run_folder import RunFolder
from scanlearn.errors import ScanlearnError
from scanlearn.files import read_json, replacing, write_json
from scanlearn.scans.fingerprints import kept_looks
from scanlearn.scans.store import Store

DIGEST = PRINT = pa.binary(32)
TYPES = {"row": pa.int32(), "patient_id": WORDS, "sha256": DIGEST}
MOST_CLASSES = 50
_BLOCK = 1 << 16
_NIBBLE = np.zeros(256, np.uint8)
_NIBBLE[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)


@dataclass(frozen=True)
class Record:
    """The data of one run. ``parts`` are the scans of each part, as a range of the rows of ``table``."""

    store: str  # content key
    name: str
    seed: int
    patients_known: bool
    classes: dict[str, list[str]]  # of each label column of the store that has few
    parts: dict[str, slice]
    table: pa.Table
    datasets: frozenset[str] = frozenset()  # public ones that the scans come from, as far as that is known
    done: tuple[str, ...] = ()  # what was looked for before the run began, in sentences
    open: tuple[str, ...] = ()  # and what could not be
    masks: int = 0  # scans of its pre-training whose masks it learnt from

    def rows(self, part: str) -> np.ndarray:
        """int64 (n,): the rows of the store."""
        return numbers(self.table["row"].chunk(0))[self.parts[part]].astype(np.int64)

    def patients(self, part: str) -> pa.Array:
        """The patients of a part, each once."""
        column = self.table["patient_id"].chunk(0)
        codes = codes_of(column)[self.parts[part]]
        return column.dictionary.take(pa.array(np.flatnonzero(present(codes, len(column.dictionary)))))

    def files(self, part: str) -> pa.Array:
        """The digests of a part's files, each once."""
        where = self.parts[part]
        return pc.unique(self.table["sha256"].chunk(0).slice(where.start, where.stop - where.start))

    def prints(self, part: str) -> np.ndarray | None:
        """uint8 (n, 32): the hashes of the looks of a part, None where the store kept no looks."""
        if "print" not in self.table.column_names:
            return None
        column = self.table["print"].chunk(0)
        return np.frombuffer(column.buffers()[1], np.uint8, len(column) * 32).reshape(-1, 32)[self.parts[part]]

    def shared(self) -> tuple[int, int]:
        """(patients, identical files) that any two of the parts share; both are 0 where nothing leaks."""
        found = [0, 0]
        for a, b in combinations(self.parts, 2):
            found[0] += common(self.patients(a), self.patients(b))
            found[1] += common(self.files(a), self.files(b))
        return found[0], found[1]


def common(a: pa.Array, b: pa.Array) -> int:
    """How many of the distinct values ``a`` are among ``b``."""
    return int(pc.sum(pc.is_in(a, value_set=b)).as_py() or 0)


def write_record(
    run: RunFolder,
    store: Store,
    parts: Mapping[str, np.ndarray],
    seed: int,
    checked: Mapping[str, Sequence[str]] | None = None,
    masks: int = 0,
) -> None:
    """Write which rows of the store are in which part of the run, what was ``checked`` ("done" and "open"), and of how
    many scans a pre-training saw the masks."""
    catalog = store.open_catalog()  # its own mapping: the digests of a million files leave memory with it
    rows = np.concatenate([np.zeros(0, np.int64), *parts.values()])
    columns = {"row": pa.array(rows, pa.int32()), "patient_id": _words(catalog, rows), "sha256": digests(catalog, rows)}
    looks = kept_looks(store)
    if looks is not None:
        prints = pa.py_buffer(np.ascontiguousarray(looks.prints[rows]))
        columns["print"] = pa.FixedSizeBinaryArray.from_buffers(PRINT, len(rows), [None, prints])
    classes = {}
    for name in catalog.label_columns:
        labels = labels_of(catalog.words(name), name)
        if labels.kind in ("class", "multilabel") and len(labels.classes) <= MOST_CLASSES:
            classes[name] = labels.classes
    with replacing(_table(run)) as temporary:
        write_mapped(temporary, columns)
    sizes = {name: {"scans": len(at), "patients": catalog.count_patients(at)} for name, at in parts.items()}
    facts = {"version": 1, "store": store.info["key"], "name": store.path.name, "seed": seed}
    facts |= {"patients_known": catalog.patients_known, "parts": sizes, "classes": classes, "masks": masks}
    facts["datasets"] = sorted(datasets_of(catalog, store.info["settings"].get("origin", {})))
    write_json(_facts(run), {**facts, "checked": {"done": [], "open": [], **(checked or {})}})
    pa.default_memory_pool().release_unused()  # a million digests are not needed again


def read_record(run: RunFolder) -> Record | None:
    """What ``write_record`` wrote, None for a run that has no record; a damaged one is refused."""
    if not _facts(run).is_file():
        return None
    facts = read_json(_facts(run), f"{run.path.name}/{_facts(run).name}")
    try:
        parts, start = {}, 0
        for name, size in facts["parts"].items():
            parts[name] = slice(start, start + _whole(size["scans"]))
            start += size["scans"]
        classes = {name: [str(word) for word in words] for name, words in facts["classes"].items()}
        told: dict[str, Any] = {"store": str(facts["store"]), "name": str(facts["name"]), "seed": _whole(facts["seed"])}
        told["patients_known"] = bool(facts["patients_known"])
        told["datasets"] = frozenset(map(str, facts.get("datasets", ())))  # records of before lack the rest
        told["masks"] = _whole(facts.get("masks", 0))
        checked = facts.get("checked", {})
        told |= {name: tuple(map(str, checked.get(name, ()))) for name in ("done", "open")}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ScanlearnError(
            f"The {_facts(run).name} of {run.path.name} is damaged: it was changed by hand."
        ) from error
    table = open_mapped(_table(run), TYPES, start)
    check_words(table["patient_id"].chunk(0))
    if "print" in table.column_names and table.schema.field("print").type != PRINT:
        raise damaged(_table(run), "holds hashes that are none")
    return Record(**told, classes=classes, parts=parts, table=table)


def digests(catalog: Catalog, rows: np.ndarray) -> pa.Array:
    """The sha256 of the files of some rows, 32 bytes each instead of 64 letters."""
    code = catalog.codes("sha256")[rows]
    words = catalog.words("sha256")
    offsets = np.frombuffer(words.buffers()[1], np.int32)[words.offset : words.offset + len(words) + 1]
    if (np.diff(offsets)[1:] != 64).any() or (code == 0).any():
        raise ScanlearnError("The catalogue does not hold the sha256 of every scan; prepare the store again.")
    letters = np.frombuffer(words.buffers()[2], np.uint8, (len(words) - 1) * 64, int(offsets[1])).reshape(-1, 64)
    found = np.empty((len(rows), 32), np.uint8)
    for start in range(0, len(rows), _BLOCK):
        nibbles = _NIBBLE[letters[code[start : start + _BLOCK] - 1]]
        found[start : start + _BLOCK] = nibbles[:, 0::2] << 4 | nibbles[:, 1::2]
    return pa.FixedSizeBinaryArray.from_buffers(DIGEST, len(rows), [None, pa.py_buffer(found)])


def _words(catalog: Catalog, rows: np.ndarray) -> pa.DictionaryArray:
    """The patients of some rows, with a dictionary of these patients alone."""
    code, words = catalog.codes("patient_id")[rows], catalog.words("patient_id")
    used = present(code, len(words))
    used[0] = True
    if used.all():
        return pa.DictionaryArray.from_arrays(pa.array(code), words)
    short = (np.cumsum(used) - 1).astype(np.int32)[code]
    return pa.DictionaryArray.from_arrays(pa.array(short), words.take(pa.array(np.flatnonzero(used))))


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**53:
        raise ValueError("no whole number")
    return value


def _facts(run: RunFolder) -> Path:
    return run.path / "record.json"


def _table(run: RunFolder) -> Path:
    return run.path / "record.arrow"
