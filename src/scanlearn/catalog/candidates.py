"""Candidates: points in 3D scans that somebody or something marked, and what they turned out to be.

False-positive reduction learns from such lists: nodules of LUNA16, emboli of PE-CAD. They are one column of the
catalogue with a cell for each scan: ``x y z word`` with ";" between points, in mm of the scan's own world, x to the
right, y to the front, z up (RAS+, as affines here); the word is a class or a diameter. ``none`` stands where a scan was
searched and has no point, a blank where nobody searched.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scanlearn.catalog.columns import normal, read_table
from scanlearn.catalog.files import stem_of
from scanlearn.catalog.mapped import one_piece
from scanlearn.catalog.table import Catalog
from scanlearn.console import say
from scanlearn.errors import ScanlearnError, unknown

COLUMN, NO_POINT = "candidates", "none"
COLUMNS = (COLUMN, "nodules")
# What the axes of a world are multiplied by to be RAS+; ITK, DICOM and LUNA16 count to the left and to the back.
WORLDS = {"LPS": (-1.0, -1.0, 1.0), "RAS": (1.0, 1.0, 1.0)}
# Words for the columns of a list, as in columns.WORDS.
_WORDS = {
    "scan": ("seriesuid", "series_uid", "scan", "image", "filename", "file_name", "volume", "case", "patient"),
    "x": ("coordx", "x", "x_mm"),
    "y": ("coordy", "y", "y_mm"),
    "z": ("coordz", "z", "z_mm"),
    "word": ("class", "label", "diameter_mm", "target"),
}


def read_candidates(path: Path, world: str = "LPS") -> dict[str, list[str]]:
    """{scan: its points as the catalogue writes them} of a table with a row for each point.

    Args:
        path: columns seriesuid (or scan, image, ...), coordX, coordY, coordZ (or x, y, z) in mm, and class (or label,
            diameter_mm); capitals and signs do not matter. ``annotations.csv`` and ``candidates*.csv`` of LUNA16.
        world: in which the mm are counted, one of ``WORLDS``.

    Raises ScanlearnError for a table that lacks one of them, and for a row without three numbers, told by number.
    """
    if world not in WORLDS:
        raise unknown("world of coordinates", world, WORLDS)
    table = read_table(path)
    columns = {normal(name): name for name in reversed(table.column_names)}
    roles = {role: next((columns[word] for word in words if word in columns), None) for role, words in _WORDS.items()}
    for role, name in roles.items():
        if name is None:
            wanted = "seriesuid, coordX, coordY, coordZ and class"
            raise ScanlearnError(f"{path} has no column for {role!r} of the candidates; it needs {wanted}.")
    columns_of = {role: one_piece(table[name]) for role, name in roles.items()}
    places = [_numbers(columns_of[axis]) * sign + 0.0 for axis, sign in zip("xyz", WORLDS[world], strict=True)]
    wrong = ~np.isfinite(places).all(axis=0) | _unfit(columns_of["word"])
    if wrong.any():
        row = int(wrong.argmax()) + 1
        raise ScanlearnError(f"Row {row:,} of {path} is no candidate; it needs three numbers of mm and one word.")
    mm = [pc.cast(pa.array(np.round(place, 6)), pa.string()) for place in places]
    points = pc.binary_join_element_wise(*mm, columns_of["word"], " ")
    scan = pc.dictionary_encode(columns_of["scan"])
    at = scan.indices.to_numpy()
    order = np.argsort(at, kind="stable")
    ends = np.cumsum(np.bincount(at, minlength=len(scan.dictionary))).tolist()
    cells = points.take(pa.array(order)).to_pylist()
    return {
        name: cells[start:end] for name, start, end in zip(scan.dictionary.to_pylist(), [0, *ends], ends, strict=False)
    }


def cells_of(points: Mapping[str, Sequence[str]], scans: Iterable[str]) -> list[str]:
    """The cell of each scan of a list that searched all of them."""
    return [";".join(points.get(scan, ())) or NO_POINT for scan in scans]


def with_candidates(catalog: Catalog, path: str | Path, *, world: str = "LPS", column: str = COLUMN) -> Catalog:
    """The catalogue with a column of the points in a table; scans go by the names of their files without the ending.

    A scan that the table does not name gets a blank. Raises ScanlearnError as ``read_candidates``, and if the table names
    none of the scans or several scans have one name.
    """
    points = read_candidates(Path(path), world)
    stems = [stem_of(Path(paths[0]).name) for paths in catalog.column("paths")]
    names = [stem if stem in points else "" for stem in stems]
    named = [name for name in names if name]
    if not named:
        raise ScanlearnError(
            f"No scan of {path} is in the catalogue; it goes by the names of files without their ending."
        )
    if len({*named}) != len(named):
        raise ScanlearnError(f"Several scans have a name that {path} uses; make the catalogue of one folder.")
    count = sum(len(points[name]) for name in named)
    say(f"{Path(path).name}: {count:,} candidates on {len(named):,} of {len(catalog):,} scans.")
    return catalog.with_column(column, [";".join(points[name]) if name else "" for name in names])


def candidates_of(catalog: Catalog, column: str = COLUMN) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """The points of all scans.

    Returns:
        (row of the catalogue int64 (n,), mm in RAS+ float64 (n, 3), n words).
    """
    rows, places, words = [], [], []
    for row, cell in enumerate(catalog.column(column)):
        for point in cell.split(";") if cell not in ("", NO_POINT) else ():
            x, y, z, word = point.split(" ")
            rows.append(row)
            places.append((float(x), float(y), float(z)))
            words.append(word)
    return np.array(rows, np.int64), np.array(places, np.float64).reshape(-1, 3), words


def are_points(cells: pa.Array) -> bool:
    """Whether every cell that is not blank is one of points, whose words are classes or millimetres and no names."""
    number = r"-?[0-9]+(?:\.[0-9]+)?(?:e[-+]?[0-9]+)?"
    point = " ".join([*[number] * 3, r"(?:[0-9]{1,3}(?:\.[0-9]+)?|benign|malignant|positive|negative)"])
    return bool(pc.all(pc.match_substring_regex(cells, f"^(?:|{NO_POINT}|{point}(?:;{point})*)$")).as_py())


def _numbers(cells: pa.Array) -> np.ndarray:
    """float64 (n,), NaN where a cell is no number."""
    try:
        return pc.cast(cells, pa.float64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        return np.array([_number(cell) for cell in cells.to_pylist()])


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan


def _unfit(words: pa.Array) -> np.ndarray:
    """bool (n,): words that are none, or that would be taken for the sign between points."""
    return pc.invert(pc.match_substring_regex(words, "^[^; ]+$")).to_numpy(zero_copy_only=False)
