"""What a cell of ``mask_path`` may say beside the path of a file, so that no derived mask has to be written anywhere.

- ``left.png|right.png``: the masks of several files, united (the lungs of Montgomery County).
- ``rle.csv#NAME@1024x1024``: the run lengths that a table gives for the image NAME, rows x columns (SIIM-ACR).

Both are read when the mask is needed; a file whose own name is written like that stays a file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scanlearn.errors import ScanlearnError

_ROW = re.compile(r"(?P<table>.+)#(?P<name>[^#|@]+)@(?P<rows>\d{1,5})x(?P<columns>\d{1,5})")


@dataclass(frozen=True)
class United:
    """Masks in files of one shape, together one mask."""

    files: tuple[str, ...]


@dataclass(frozen=True)
class RunLengths:
    """The mask (rows, columns) of the image ``name`` in a table of run lengths."""

    table: str
    name: str
    shape: tuple[int, int]


def united(files: Sequence[str]) -> str:
    """The cell for masks in several files; one file stays itself."""
    if len(files) > 1 and any("|" in file for file in files):
        raise ScanlearnError("A folder above the masks has '|' in its name, which divides files in a cell; rename it.")
    return "|".join(files)


def run_lengths(table: str | Path, name: str, shape: tuple[int, int]) -> str:
    """The cell for the row (or rows) of a table of run lengths that are of the image ``name``."""
    return f"{table}#{name}@{shape[0]}x{shape[1]}"


def below(root: str | Path, cell: str) -> str:
    """The cell with the root before each of its files; "" stays "".

    >>> below("r", "left.png|right.png"), below("r", "rle.csv#a@2x3"), below("r", "")
    ('r/left.png|r/right.png', 'r/rle.csv#a@2x3', '')
    """
    if "|" not in cell or Path(root, cell).exists():
        return f"{root}/{cell}" if cell else ""
    return united([f"{root}/{file}" for file in cell.split("|")])


def parsed(cell: str) -> United | RunLengths | None:
    """What the cell says, None for the path of a file.

    >>> parsed("m/left.png|m/right.png")
    United(files=('m/left.png', 'm/right.png'))
    >>> parsed("train-rle.csv#1.2.3@1024x1024")
    RunLengths(table='train-rle.csv', name='1.2.3', shape=(1024, 1024))
    """
    if not ("|" in cell or "#" in cell) or Path(cell).exists():
        return None
    match = _ROW.fullmatch(cell)
    if match:
        return RunLengths(match["table"], match["name"], (int(match["rows"]), int(match["columns"])))
    return United(tuple(cell.split("|"))) if "|" in cell else None
