"""Masks as run lengths in a table, as the SIIM-ACR pneumothorax challenge writes them.

``"5 2 3 1"`` says: leave out 5 pixels, 2 are marked, leave out 3, 1 is marked. Each start counts from the END of the run
before it, pixels are counted down the columns, and ``-1`` stands for an empty mask. Read as absolute starts the same
numbers stay within the image and give a mask that is wrong, so nothing here guesses between the two.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from functools import lru_cache
from pathlib import Path

import numpy as np

from scanlearn.catalog.columns import normal, read_table
from scanlearn.errors import FileError, ScanlearnError

EMPTY = "-1"
COLUMNS = ("ImageId", "EncodedPixels")


def decode(text: str, shape: tuple[int, int]) -> np.ndarray:
    """uint8 (rows, columns) of 0 and 1 from relative, column-major run lengths.

    Raises ValueError for an odd count of numbers, a word, a negative number, or runs that reach past the image.
    """
    if text.strip() in ("", EMPTY):
        return np.zeros(shape, np.uint8)
    pairs = np.array(text.split(), np.int64)
    if len(pairs) % 2 or pairs.min() < 0:
        raise ValueError("run lengths come in pairs of numbers from 0 on")
    ends = np.cumsum(pairs)[1::2]
    if ends[-1] > shape[0] * shape[1]:
        raise ValueError(f"the runs reach past {shape[0]} x {shape[1]} pixels")
    change = np.zeros(shape[0] * shape[1] + 1, np.int8)
    np.add.at(change, ends - pairs[1::2], 1)
    np.add.at(change, ends, -1)
    return np.cumsum(change[:-1], dtype=np.int8).astype(np.uint8).reshape(shape[::-1]).T


def encode(mask: np.ndarray) -> str:
    """The run lengths of a mask (rows, columns), anything above 0 being marked: what ``decode`` reads."""
    flat = np.concatenate([[0], (np.asarray(mask).T.reshape(-1) > 0).astype(np.int8), [0]])
    edges = np.flatnonzero(np.diff(flat))  # start, end, start, end, ...
    if not len(edges):
        return EMPTY
    return " ".join(map(str, np.diff(edges, prepend=0).tolist()))


def rows_of(table: str | Path, name: str) -> list[str]:
    """The run lengths in all rows of one image. Raises FileError where the table has none."""
    table = Path(table)
    try:
        state = table.stat()
    except OSError as error:
        raise FileError(table, "is not there.") from error
    rows = _table(os.fspath(table), state.st_mtime_ns, state.st_size).get(name)
    if rows is None:
        raise FileError(table, "has no row for one of its images any more.")
    return rows


def read(table: str | Path, name: str, shape: tuple[int, int]) -> np.ndarray:
    """uint8 (rows, columns): the union of all rows of one image, as a quarter of those with several overlap."""
    mask = np.zeros(shape, np.uint8)
    for text in rows_of(table, name):
        try:
            mask |= decode(text, shape)
        except ValueError as error:
            raise FileError(table, f"holds run lengths that are none: {error}.") from error
    return mask


def digest(table: str | Path, name: str) -> str:
    """sha256 of the run lengths of one image, "" where there are none, as for a file that is gone."""
    try:
        return hashlib.sha256("\n".join(rows_of(table, name)).encode()).hexdigest()
    except ScanlearnError:
        return ""


@lru_cache(maxsize=2)
def _table(path: str, changed: int, size: int) -> dict[str, list[str]]:
    """{image: its run lengths}, read once by each process; ``changed`` and ``size`` make it anew for a new file."""
    found = read_table(Path(path))
    columns = {normal(name): name for name in found.column_names}
    names, texts = (columns.get(normal(name)) for name in COLUMNS)
    if names is None or texts is None:
        raise FileError(path, "has no columns ImageId and EncodedPixels.")
    rows: dict[str, list[str]] = defaultdict(list)
    for name, text in zip(found[names].to_pylist(), found[texts].to_pylist(), strict=True):
        rows[name].append(text)
    return dict(rows)
