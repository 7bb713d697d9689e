"""What the layouts of radiographs share: whole tables in Arrow, files by the end of their path, findings as cells."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from scanlearn.catalog.cells import per_word
from scanlearn.catalog.columns import normal, read_table
from scanlearn.catalog.files import stem_of, suffix_of
from scanlearn.catalog.labels import NOTHING
from scanlearn.catalog.layouts.layout import Rows
from scanlearn.catalog.layouts.tools import keep, lacking, names_of
from scanlearn.catalog.listing import list_folder
from scanlearn.catalog.mapped import one_piece
from scanlearn.errors import ScanlearnError

PICTURES = (".png", ".jpg", ".jpeg")
_OLDEST = 120  # years; tables of radiographs hold ages up to 414
_AGE = re.compile(r"0*(\d+)(?:\.\d+)?\s*([YMWD]?)")
_PARTS_OF_YEAR = {"": 1, "Y": 1, "M": 12, "W": 52, "D": 365}
_SEXES = {"m": "M", "male": "M", "f": "F", "female": "F"}
_SIGNS = {"": "", "1": "+", "1.0": "+", "0": "-", "0.0": "-", "-1": "?", "-1.0": "?"}


def table_of(path: Path, wanted: Sequence[str], title: str, page: str, others: Sequence[str] = ()) -> pa.Table:
    """The wanted columns of a table as trimmed text, under the names asked for; capitals and signs do not matter.

    others: columns that are taken where they are there. Raises ScanlearnError for a table that lacks a wanted one: it
    is another version, or was changed.
    """
    table = read_table(path, [*wanted, *others])
    there = {normal(name) for name in table.column_names}
    taken = [*wanted, *(name for name in others if normal(name) in there)]
    called = names_of(table.column_names, taken, path, title, page)
    return pa.table({name: one_piece(table[called[name]]) for name in taken})


def files_by_tail(root: Path, parts: int = 1, suffixes: Sequence[str] = PICTURES) -> dict[str, str]:
    """{the last ``parts`` parts of its path without the suffix: path relative to the root} of all files below the root.

    Of two that end alike (a small copy beside the large one) the first by name is taken.
    """
    found: dict[str, str] = {}
    for path in list_folder(root).images:
        suffix = suffix_of(path)
        if suffix in suffixes:
            found.setdefault("/".join(path[: -len(suffix)].split("/")[-parts:]), path)
    return found


def tails(names: pa.Array | pa.ChunkedArray, parts: int = 1) -> list[str]:
    """The last ``parts`` parts of file names without their suffixes, as ``files_by_tail`` has them."""
    return ["/".join(stem_of(name).split("/")[-parts:]) for name in names.to_pylist()]


def with_files(rows: Rows, keys: Sequence[str], files: Mapping[str, str], root: Path, title: str, page: str) -> Rows:
    """The rows whose file is there, with their ``paths``; what lacks a file or a row is counted in the notes.

    keys: of the N rows, in ``files`` (see ``files_by_tail``). Raises ScanlearnError where no file is there, or where
    rows name one file twice.
    """
    again = len(keys) - len({*keys})
    if again:
        raise ScanlearnError(
            f"{again:,} rows of the tables of {title} in {root} name a file that an earlier row names; get them again "
            f"from {page}."
        )
    paths = [files.get(key, "") for key in keys]
    missing = paths.count("")
    notes = lacking(missing, len(paths), "images", root, title, page)
    strangers = len(files) - (len(paths) - missing)
    if strangers:
        notes.append(f"{strangers:,} images are in no table of {title} and are left out.")
    columns, splits = {"paths": paths, **rows.columns}, rows.splits
    if missing:
        kept = [bool(path) for path in paths]
        columns, splits = keep(columns, kept), keep(splits, kept)  # type: ignore[assignment]
    return Rows(columns, splits, rows.patients_known, [*rows.notes, *notes], rows.mask_names)


def findings_of(table: pa.Table, names: Sequence[str], no_finding: str = "No Finding") -> pa.Array:
    """Cells of findings from columns of 1 (present), 0 (absent), -1 (uncertain) and blanks (not mentioned).

    ``none`` stands where ``no_finding`` is 1 and nothing is present or uncertain; where only devices are, these are
    named. A row of blanks alone is blank: nobody said anything.
    """
    said = {name: per_word(one_piece(table[name]), _sign_of) for name in (*names, no_finding)}
    words = [
        pc.if_else(pc.equal(said[name], ""), "", pc.binary_join_element_wise(said[name], name, "|", ""))
        for name in names
    ]
    cells = pc.utf8_rtrim(pc.binary_join_element_wise(*words, ""), "|")
    nothing = pc.and_(pc.equal(said[no_finding], "+"), pc.invert(pc.match_substring_regex(cells, r"[+?]")))
    return pc.replace_substring(pc.if_else(nothing, NOTHING, cells), "+", "")


def sexes(cells: pa.Array | pa.ChunkedArray) -> pa.Array:
    """M, F or blank, however it is written."""
    return per_word(cells, lambda word: _SEXES.get(word.lower(), ""))


def ages(cells: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Whole years from "57", "060Y", "018M" or "003D"; blank for what is no age, such as "414Y"."""
    return per_word(cells, age_in_years)


def age_in_years(word: str) -> str:
    """One age.

    >>> [age_in_years(word) for word in ("57", "060Y", "018M", "003D", "414Y", "x", "63.0")]
    ['57', '60', '1', '0', '', '', '63']
    """
    match = _AGE.fullmatch(word.strip().upper())
    years = int(match[1]) // _PARTS_OF_YEAR[match[2]] if match else _OLDEST + 1
    return str(years) if years <= _OLDEST else ""


def _sign_of(word: str) -> str:
    """+ (present), - (absent), ? (uncertain) or a blank (not mentioned); another number is none of these labels."""
    if word not in _SIGNS:
        raise ScanlearnError(
            "A column of findings holds something other than 1, 0, -1 and blanks, so it is not the table that is known "
            "here; get it again."
        )
    return _SIGNS[word]
