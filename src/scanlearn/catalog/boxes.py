"""Boxes around findings: from a table with a row for each box, as the RSNA pneumonia challenge gives them, into one
column of the catalogue.

A cell says ``x y width height`` in pixels of the file as it was published, x from its left edge and y from its top, with
";" between boxes: ``264 152 213 379;562 152 256 453``. ``none`` stands where an image was looked at and has no box, a
blank where nobody looked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scanlearn.catalog.columns import normal, read_table
from scanlearn.catalog.files import suffix_of
from scanlearn.catalog.table import Catalog
from scanlearn.console import say
from scanlearn.errors import ScanlearnError

COLUMN, NO_BOX = "boxes", "none"
BOX_FINDINGS = "box_findings"  # column of what each of an image's boxes shows, in their order, with ";" between
# Words for the columns of the table, as in columns.WORDS. RSNA's patientId is the name of an image, not of a patient.
_WORDS = {
    "image": ("image", "image_id", "image_index", "filename", "file_name", "file", "patientid"),
    "x": ("x", "x_min", "xmin", "left"),
    "y": ("y", "y_min", "ymin", "top"),
    "width": ("width", "w", "box_width"),
    "height": ("height", "h", "box_height"),
}


def with_boxes(catalog: Catalog, path: str | Path) -> Catalog:
    """The catalogue with the column ``boxes`` from a table of boxes.

    Args:
        catalog: its scans are found by the names of their files, with or without the suffix.
        path: table with a row for each box and, for images without one, a row without numbers (RSNA's
            ``stage_2_train_labels.csv``). Other columns, such as Target, are not read.

    Raises:
        ScanlearnError: a column is missing; a row with some of the four numbers, or with a box that is none; no image of
            the table in the catalogue; two scans of one name. Rows are told by number, as names may be of people.
    """
    path = Path(path)
    names, numbers = _read(path)
    boxes: dict[str, list[str]] = {}
    for name, box in zip(names, numbers, strict=True):
        of_image = boxes.setdefault(name, [])
        if not np.isnan(box[0]):
            of_image.append(" ".join(f"{number:.10g}" for number in box))
    scans = [_names_of(paths) for paths in catalog.column("paths")]
    keys = [next((name for name in of_scan if name in boxes), "") for of_scan in scans]
    twice = sum(count - 1 for key, count in Counter(keys).items() if key)
    if twice:
        raise ScanlearnError(
            f"{twice} scans have the name of another, so {path.name} does not say which of them its boxes are of; make the "
            "catalogue of one folder."
        )
    found = sum(key != "" for key in keys)
    if not found:
        raise ScanlearnError(f"No image of {path.name} is in the catalogue; give the folder that its images lie in.")
    cells = ["" if not key else ";".join(boxes[key]) or NO_BOX for key in keys]
    say(
        f"{path.name}: {sum(len(boxes[key]) for key in keys if key)} boxes on "
        f"{sum(cell not in ('', NO_BOX) for cell in cells)} of {found} scans; {len(boxes) - found} images of the table are "
        f"not in the catalogue, {len(catalog) - found} scans are not in the table."
    )
    return catalog.with_column(COLUMN, cells)


def are_boxes(cells: pa.Array) -> bool:
    """Whether every cell that is not blank is one of boxes, as this module writes them."""
    number = r"-?[0-9]+(?:\.[0-9]+)?(?:e[-+]?[0-9]+)?"
    box = " ".join([number] * 4)
    return bool(pc.all(pc.match_substring_regex(cells, f"^(?:|{NO_BOX}|{box}(?:;{box})*)$")).as_py())


def boxes_of(catalog: Catalog) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The catalogue's boxes along the axes of 2D images, rows and columns.

    Returns:
        (row of the catalogue int64 (n,), corners float64 (n, 4): top, left, bottom, right edge in pixels of the file;
        bool (N,), which scans were looked at).
    """
    cells = catalog.column(COLUMN)
    rows, corners = [], []
    for row, cell in enumerate(cells):
        for box in cell.split(";") if cell not in ("", NO_BOX) else ():
            x, y, width, height = map(float, box.split())
            rows.append(row)
            corners.append((y, x, y + height, x + width))
    looked_at = np.array([cell != "" for cell in cells], bool)
    return np.array(rows, np.int64), np.array(corners, np.float64).reshape(-1, 4), looked_at


def _read(path: Path) -> tuple[list[str], np.ndarray]:
    """Names of images and boxes (n, 4): x, y, width, height; NaN in rows that say that there is none."""
    table = read_table(path)
    columns = {normal(name): name for name in reversed(table.column_names)}
    roles = {role: next((columns[word] for word in words if word in columns), None) for role, words in _WORDS.items()}
    for role, name in roles.items():
        if name is None:
            raise ScanlearnError(
                f"{path.name} has no column for {role!r} of the boxes; it needs patientId, x, y, width and height."
            )
    numbers = np.stack([_numbers(table[roles[role]].to_pylist(), path) for role in list(_WORDS)[1:]], axis=1)
    blank = np.isnan(numbers)
    wrong = blank.any(axis=1) & ~blank.all(axis=1) | (numbers[:, 2:] <= 0).any(axis=1) | np.isinf(numbers).any(axis=1)
    if wrong.any():
        raise ScanlearnError(
            f"{int(wrong.sum())} rows of {path.name} are no box, the first is row {int(wrong.argmax()) + 1:,} below the "
            "names of the columns; give x, y and a width and height above 0, or none of the four."
        )
    names = table[roles["image"]].to_pylist()
    if "" in names:
        raise ScanlearnError(f"{names.count('')} rows of {path.name} name no image; take them out.")
    return names, numbers


def _numbers(cells: Sequence[str], path: Path) -> np.ndarray:
    """float64 (n,), NaN where a cell is blank."""
    values = np.full(len(cells), np.nan)
    for row, cell in enumerate(cells):
        try:
            values[row] = float(cell or "nan")
        except ValueError:
            raise ScanlearnError(f"Row {row + 1:,} of {path.name} holds a word where a box has a number.") from None
    return values


def _names_of(paths: Sequence[str]) -> tuple[str, ...]:
    """What a table may call the scan: the name of its file, with and without the suffix."""
    if len(paths) != 1:
        return ()
    name = PurePath(paths[0]).name
    return name, name.removesuffix(suffix_of(name))
