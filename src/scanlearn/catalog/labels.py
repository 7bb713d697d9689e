"""What a label column says: one class, several findings, a number, or a mask for each scan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scanlearn.errors import ScanlearnError, unknown

KINDS = ("class", "multilabel", "number", "mask")
MISSING = ("", "nan", "na", "n/a", "null")  # in any case; "None" and "unknown" may be classes and are kept
NOTHING = "none"  # of a multilabel column: looked at, nothing found
SIGNED = r"^(?P<sign>[?-])\s*(?P<finding>.*\pL.*)$"  # a number below 0 is no absent finding
NUMBER_FROM = 21  # distinct numeric values from which a column is a quantity and no list of classes


@dataclass(frozen=True)
class Labels:
    """One target for N scans.

    - ``class``: ``codes`` int64 (N,), an index into ``classes``, -1 where the label is missing.
    - ``multilabel``: ``codes`` float32 (N, K) of 1 (present), 0 (absent or not mentioned) and -1 (uncertain, until a
      policy says what to make of it); a missing label is a row of NaN.
    - ``number``: ``codes`` float64 (N,), NaN where missing; no classes.
    - ``mask``: ``codes`` bool (N,), True where the scan has a mask; no classes.
    """

    kind: str
    classes: list[str]
    codes: np.ndarray

    @property
    def labelled(self) -> np.ndarray:
        """bool (N,): which scans carry a label."""
        if self.kind == "class":
            return self.codes >= 0
        if self.kind == "mask":
            return self.codes
        return ~np.isnan(self.codes) if self.codes.ndim == 1 else ~np.isnan(self.codes).all(axis=1)

    def only(self, classes: Sequence[str]) -> Labels:
        """The same labels for some classes, renumbered in this order; an unknown one is refused with the nearest.

        A scan of another class is then unlabelled; where scans have several labels, it has none of these.
        """
        for name in classes:
            if name not in self.classes:
                raise unknown("class", name, self.classes)
        places = [self.classes.index(name) for name in classes]
        if self.kind == "multilabel":
            return Labels("multilabel", list(classes), self.codes[:, places])
        table = np.full(len(self.classes) + 1, -1, np.int64)  # the last entry serves missing labels, -1
        table[places] = np.arange(len(places))
        return Labels("class", list(classes), table[self.codes])

    def shown(self) -> tuple[np.ndarray, np.ndarray]:
        """(row, class) of every class that a scan shows, two int64 arrays sorted by row; none for numbers and masks."""
        if self.kind == "class":
            rows = np.flatnonzero(self.codes >= 0)
            return rows, self.codes[rows]
        found = np.nonzero(self.codes > 0) if self.kind == "multilabel" else (np.zeros(0, np.int64),) * 2
        return found[0], found[1]


def labels_of(cells: pa.Array, name: str, kind: str | None = None, *, unmentioned: float = 0.0) -> Labels:
    """Read the cells (N,) of the column ``name`` as labels.

    Without ``kind``: a cell like "Effusion|Mass" or "?Mass" makes the column multilabel; more than 20 distinct numbers
    make it a number; everything else is a class. ``kind="class"`` keeps numbers as classes. Classes are sorted, numbers
    by value.

    A multilabel cell names findings with "|" between them: ``Mass`` is present, ``?Mass`` uncertain, ``-Mass``
    explicitly absent. The single word ``none`` says that nothing was found, a blank cell that nobody looked.

    Args:
        unmentioned: multilabel: the code of a finding that a labelled cell does not name: 0, as in the papers, or NaN.

    Raises:
        ScanlearnError: an unknown kind, words where numbers were asked for, a cell that says two things of one finding.
    """
    if kind not in (None, "class", "multilabel", "number"):
        raise unknown("kind of labels", str(kind), ("class", "multilabel", "number"))
    words, at = _distinct(cells)
    if kind is None:
        kind = _guess_kind(words)
    if kind == "multilabel":
        labels = _multilabel(words, name, unmentioned)
        return Labels("multilabel", labels.classes, labels.codes[at])
    if kind == "number":
        numbers = _numbers(words)
        if numbers is None:
            raise ScanlearnError(
                f"The column {name!r} holds words, so it cannot be read as numbers; ask for kind 'class' instead."
            )
        return Labels("number", [], numbers[at])
    codes, classes = _encode(words)
    return Labels("class", classes, codes[at])


def _distinct(cells: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Distinct trimmed words, null for what is missing and for the last of them; and int (N,): the word of each cell.

    Everything else is then done once for each word: a column of a million rows has few.
    """
    encoded = cells if pa.types.is_dictionary(cells.type) else pc.dictionary_encode(cells.cast(pa.string()))
    words = pc.utf8_trim_whitespace(encoded.dictionary)
    blank = pc.is_in(pc.utf8_lower(words), value_set=pa.array(MISSING))
    words = pc.if_else(pc.fill_null(blank, True), pa.scalar(None, pa.string()), words)
    at = pc.fill_null(encoded.indices, len(words)) if encoded.indices.null_count else encoded.indices
    return pa.concat_arrays([words, pa.array([None], pa.string())]), at.to_numpy()


def _guess_kind(cells: pa.Array) -> str:
    if pc.any(pc.match_substring_regex(cells, r"\||^\?\s*\pL")).as_py():
        return "multilabel"
    numbers = _numbers(cells)
    if numbers is None:
        return "class"
    return "number" if len(np.unique(numbers[~np.isnan(numbers)])) >= NUMBER_FROM else "class"


def _numbers(cells: pa.Array) -> np.ndarray | None:
    """float64 (N,) with NaN for null, or None if a cell is no number."""
    try:
        return pc.cast(cells, pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64)
    except pa.ArrowInvalid:
        return None


def _encode(cells: pa.Array) -> tuple[np.ndarray, list[str]]:
    """int64 (N,) indices into the sorted distinct values, -1 for null, and those values."""
    encoded = pc.dictionary_encode(cells)
    found = encoded.dictionary.to_pylist()
    numbers = _numbers(encoded.dictionary)
    order = sorted(range(len(found)), key=lambda i: found[i] if numbers is None else (numbers[i], found[i]))
    rank = np.empty(len(found) + 1, np.int64)
    rank[order] = np.arange(len(found))
    rank[-1] = -1  # the index that null gets below
    indices = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
    return rank[indices], [found[i] for i in order]


def _multilabel(cells: pa.Array, name: str, unmentioned: float) -> Labels:
    parts = pc.split_pattern(cells, "|")
    rows = pc.list_parent_indices(parts).to_numpy()
    words = pc.utf8_trim_whitespace(pc.list_flatten(parts))
    said = pc.extract_regex(words, SIGNED)  # null where no sign stands before a name: the finding is present
    sign = pc.fill_null(pc.struct_field(said, "sign"), "").to_numpy(zero_copy_only=False)
    words = pc.coalesce(pc.struct_field(said, "finding"), words)
    columns, classes = _encode(pc.if_else(pc.is_in(words, value_set=pa.array(["", NOTHING])), None, words))
    named = columns >= 0
    values = np.select([sign == "?", sign == "-"], [-1.0, 0.0], 1.0).astype(np.float32)
    codes = np.full((len(cells), len(classes)), unmentioned, np.float32)
    codes[rows[named], columns[named]] = values[named]
    contrary = np.unique(rows[named][codes[rows[named], columns[named]] != values[named]])
    if len(contrary):
        raise ScanlearnError(
            f"{len(contrary)} different cells of the column {name!r} say of one finding that it is present and that it is "
            "not, or is uncertain: leave one of the two words out."
        )
    codes[pc.is_null(cells).to_numpy(zero_copy_only=False)] = np.nan
    codes[pc.fill_null(pc.equal(cells, NOTHING), False).to_numpy(zero_copy_only=False)] = 0
    return Labels("multilabel", classes, codes)
