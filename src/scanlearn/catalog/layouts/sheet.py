"""One sheet of an Excel file (.xlsx) as text, read within bounds.

The one table that asks for it has two columns of words, so this is the standard library's zip and expat and no
dependency. A workbook comes from somewhere else: sizes are bounded, and document types, and with them entities, are
refused.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from scanlearn.errors import ScanlearnError

_MOST_BYTES = 32 << 20  # of one part of the workbook, unpacked
_MOST_COLUMNS = 256
_MOST_CELLS = 1_000_000


def read_sheet(path: Path, name: str) -> list[list[str]]:
    """The rows of the sheet called ``name`` (of the only one, whatever it is called), cells as trimmed text.

    Raises ScanlearnError for whatever is no such workbook, without quoting a cell.
    """
    try:
        with zipfile.ZipFile(path) as book:
            sheets = _sheets(book)
            if name not in sheets and len(sheets) != 1:
                raise ScanlearnError(f"{path} has no sheet {name!r}; get it again.")
            words = _shared_words(book)
            return _rows(_part(book, sheets.get(name) or next(iter(sheets.values()))), words)
    except OSError as error:
        raise ScanlearnError(f"{path} cannot be read ({error.strerror or 'it is damaged'}).") from error
    except (zipfile.BadZipFile, zlib.error, expat.ExpatError, _Odd, KeyError, IndexError, ValueError) as error:
        raise ScanlearnError(f"{path} is no readable .xlsx workbook; get it again.") from error
    except (NotImplementedError, RuntimeError, EOFError) as error:  # a packing nobody uses, a password, a stump
        raise ScanlearnError(f"{path} is packed in a way that is not read here; save it again as .xlsx.") from error


class _Odd(Exception):
    """Something that no spreadsheet program writes."""


def _part(book: zipfile.ZipFile, name: str) -> Element:
    """The root of one XML file of the workbook; names are given without their namespaces."""
    with book.open(name) as file:
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise _Odd
    builder = TreeBuilder()
    parser = expat.ParserCreate(namespace_separator="}")
    parser.StartElementHandler = lambda tag, given: builder.start(_bare(tag), {_bare(k): v for k, v in given.items()})
    parser.EndElementHandler = lambda tag: builder.end(_bare(tag))
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = _refuse
    parser.Parse(data, True)
    return builder.close()


def _bare(name: str) -> str:
    return name.rpartition("}")[2]


def _refuse(*_: object) -> None:
    raise _Odd


def _sheets(book: zipfile.ZipFile) -> dict[str, str]:
    """{name of a sheet: its file in the workbook}."""
    targets = {rel.attrib["Id"]: rel.attrib["Target"] for rel in _part(book, "xl/_rels/workbook.xml.rels")}
    found = {}
    for sheet in _part(book, "xl/workbook.xml").iter("sheet"):
        target = targets[sheet.attrib["id"]]
        found[sheet.attrib["name"]] = target[1:] if target.startswith("/") else f"xl/{target}"
    return found


def _shared_words(book: zipfile.ZipFile) -> list[str]:
    """The words that cells point to by number; a workbook of numbers has none."""
    if "xl/sharedStrings.xml" not in book.namelist():
        return []
    return [_text(entry) for entry in _part(book, "xl/sharedStrings.xml").iter("si")]


def _text(entry: Element) -> str:
    return "".join(part.text or "" for part in entry.iter("t")).strip()


def _rows(sheet: Element, words: list[str]) -> list[list[str]]:
    rows: list[list[str]] = []
    cells = 0
    for row in sheet.iter("row"):
        found: list[str] = []
        for place, cell in enumerate(row.iter("c")):
            column = _column(cell.attrib["r"]) if "r" in cell.attrib else place
            cells += 1
            if column >= _MOST_COLUMNS or cells > _MOST_CELLS:
                raise _Odd
            found += [""] * (column + 1 - len(found))
            found[column] = _cell(cell, words)
        rows.append(found)
    width = max(map(len, rows), default=0)
    return [[*row, *[""] * (width - len(row))] for row in rows]


def _column(place: str) -> int:
    """The column of a place such as "B3", counted from 0."""
    letters = re.match(r"[A-Z]{1,3}", place)
    if letters is None:
        raise _Odd
    number = 0
    for letter in letters.group():
        number = number * 26 + ord(letter) - ord("A") + 1
    return number - 1


def _cell(cell: Element, words: list[str]) -> str:
    if cell.attrib.get("t") == "inlineStr":
        return _text(cell)
    value = cell.findtext("v", "").strip()
    if cell.attrib.get("t") == "s":
        number = int(value)
        if number < 0:
            raise _Odd
        return words[number]
    return value
