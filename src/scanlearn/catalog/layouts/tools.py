"""What the readers of layouts share: files that must be there, tables with the columns that they must have."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path

from scanlearn.catalog.columns import normal, read_table
from scanlearn.errors import ScanlearnError

_MOST_FOLDERS = 100_000
_MOST_LOOKED_AT = 4096  # names in a folder, and ...
_MOST_MATCHES = 16  # ... folders on a level, in order to recognise a data set


def some_names(folder: Path, most: int = 64) -> list[str]:
    """Names in a folder, sorted, hidden ones left out: of a huge folder some of them, so that looking costs little."""
    try:
        return _some_names(str(folder), folder.stat().st_mtime_ns)[:most]
    except OSError:
        return []


@lru_cache(maxsize=256)
def _some_names(folder: str, changed: int) -> list[str]:
    """One listing for all layouts that look at a folder; ``changed`` is its time stamp, which belongs to the key."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in islice(entries, _MOST_LOOKED_AT) if not _is_hidden(entry.name))


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "__MACOSX"))


def first_of(root: Path, names: str) -> Path | None:
    """The first of the alternatives ``a|b`` that is below the root; ``*`` and ``[0-9]`` stand for parts of a name.

    Meant for telling data sets apart: of a huge folder only some names are compared with a pattern.
    """
    for name in names.split("|"):
        found = _matching(root, name.split("/")) if _is_pattern(name) else [root / name]
        there = next((path for path in found if path.exists()), None)
        if there is not None:
            return there
    return None


def _is_pattern(name: str) -> bool:
    return "*" in name or "[" in name


def _matching(root: Path, parts: list[str]) -> list[Path]:
    """Up to 16 paths that fit, looked for in the first names of a folder on the way and in more of them at its end."""
    places = [root]
    for part, most in zip(parts, [64] * (len(parts) - 1) + [_MOST_LOOKED_AT], strict=True):
        found = (path for place in places for path in _like(place, part, most))
        places = list(islice(found, _MOST_MATCHES))
    return places


def _like(place: Path, part: str, most: int) -> list[Path]:
    if not _is_pattern(part):
        return [place / part]
    return [place / name for name in fnmatch.filter(some_names(place, most), part)]


def must_have(root: Path, names: str, title: str, page: str) -> Path:
    """``first_of``; where none is there, a ScanlearnError that names what this copy of the data set lacks."""
    found = first_of(root, names)
    if found is None:
        wanted = " or ".join(names.split("|"))
        raise ScanlearnError(
            f"{root} looks like {title} but lacks {wanted}; get it from {page}, or take --layout none."
        )
    return found


def first_bytes(path: Path, count: int = 4096) -> bytes:
    """The beginning of a file, to know it by; b"" where there is none."""
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError:
        return b""


def read_columns(path: Path, wanted: Sequence[str], title: str, page: str) -> dict[str, list[str]]:
    """The wanted columns of a table as trimmed text; capitals, blanks and signs in their names do not matter.

    Raises ScanlearnError for a table that lacks one: it is another version, or was changed.
    """
    table = read_table(path)
    cells = [table[name].to_pylist() for name in table.column_names]
    return _wanted(dict(zip(table.column_names, cells, strict=True)), wanted, path, title, page)


def columns_of(
    names: Sequence[str], rows: Sequence[Sequence[str]], wanted: Sequence[str], path: Path, title: str, page: str
) -> dict[str, list[str]]:
    """``read_columns`` of a table that was read otherwise: the names of its columns, and its rows."""
    return _wanted({name: [row[i] for row in rows] for i, name in enumerate(names)}, wanted, path, title, page)


def _wanted(
    table: Mapping[str, list[str]], wanted: Sequence[str], path: Path, title: str, page: str
) -> dict[str, list[str]]:
    called = names_of([*table], wanted, path, title, page)
    return {name: table[called[name]] for name in wanted}


def names_of(there: Sequence[str], wanted: Sequence[str], path: Path, title: str, page: str) -> dict[str, str]:
    """{wanted column: what this table calls it}; capitals, blanks and signs do not matter, of two the first is taken.

    Raises ScanlearnError for a column that is not there.
    """
    called = {normal(name): name for name in reversed(there)}
    absent = [name for name in wanted if normal(name) not in called]
    if absent:
        raise ScanlearnError(
            f"{path} has no column {absent[0]!r}, so it is not the table of {title} that is known here; get it again "
            f"from {page}, or read the folder with --layout none."
        )
    return {name: called[normal(name)] for name in wanted}


def read_lines(path: Path) -> list[str]:
    """The lines of a list of names, trimmed, blank ones left out."""
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ScanlearnError(f"{path} cannot be read as a list of names; get it again.") from error


def files_in(root: Path, folders: Iterable[str], suffixes: Collection[str] = ()) -> dict[str, str]:
    """{name: path relative to the root} of the files directly in these folders (relative too, "" for the root).

    One listing for each folder; hidden files (``._x`` of a Mac) are left out, of two of one name the first folder wins.
    """
    found: dict[str, str] = {}
    for folder in folders:
        try:
            with os.scandir(root / folder) as entries:
                names = sorted(e.name for e in entries if not _is_hidden(e.name) and e.is_file())
        except OSError:
            continue
        for name in names:
            if not suffixes or name.lower().endswith(tuple(suffixes)):
                found.setdefault(name, f"{folder}/{name}" if folder else name)
    return found


def folders_below(root: Path, depth: int = 1) -> list[str]:
    """All folders up to so many levels below the root, relative and sorted; hidden ones are left out."""
    found: list[str] = []
    level = [""]
    for _ in range(depth):
        inside = []
        for folder in level:
            try:
                with os.scandir(root / folder) as entries:
                    names = sorted(e.name for e in entries if not _is_hidden(e.name) and e.is_dir())
            except OSError:
                continue
            inside += [f"{folder}/{name}" if folder else name for name in names]
            if len(found) + len(inside) > _MOST_FOLDERS:
                raise ScanlearnError(f"{root} has more than {_MOST_FOLDERS:,} folders; give the data set's own folder.")
        found += inside
        level = inside
    return found


def keep(columns: Mapping[str, Sequence[object]], kept: Sequence[bool]) -> dict[str, list[object]]:
    """The rows of all columns that are kept."""
    return {name: [cell for cell, k in zip(cells, kept, strict=True) if k] for name, cells in columns.items()}


def lacking(count: int, of: int, what: str, root: Path, title: str, page: str) -> list[str]:
    """The note that so many files of the tables are not there; a ScanlearnError if that is all of them."""
    if count == of:
        raise ScanlearnError(
            f"None of the {of:,} {what} that the tables of {title} name is below {root}; unpack the archives of "
            f"{page} there."
        )
    return [f"{count:,} of {of:,} {what} that its tables name are not there and are left out."] if count else []
