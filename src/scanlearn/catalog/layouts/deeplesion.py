"""DeepLesion (NIH): key slices of CT of the whole body with boxes around lesions, as 16-bit PNG of HU + 32768.

Only the key slices are scans; the slices around them in the same folders have no boxes and are not listed. Other
lesions on a key slice may have no box. https://doi.org/10.1117/1.JMI.5.3.036501
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from scanlearn.catalog.layouts.layout import Layout, Rows, Split, register
from scanlearn.catalog.layouts.tools import first_of, folders_below, lacking, must_have, read_columns
from scanlearn.errors import ScanlearnError

TITLE = "DeepLesion"
PAGE = "https://nihcc.app.box.com/v/DeepLesion"
TYPES = ("bone", "abdomen", "mediastinum", "liver", "lung", "kidney", "soft tissue", "pelvis")  # 1 to 8; -1: not said
PARTS = {"1": "train", "2": "val", "3": "test"}
_COLUMNS = (
    *("File_name", "Patient_index", "Study_index", "Bounding_boxes", "Coarse_lesion_type", "Possibly_noisy"),
    *("Spacing_mm_px_", "Patient_gender", "Patient_age", "Train_Val_Test"),
)


def _read(root: Path) -> Rows:
    path = must_have(root, "DL_info.csv", TITLE, PAGE)
    table = read_columns(path, _COLUMNS, TITLE, PAGE)
    of_slice: dict[str, list[int]] = {}
    noisy = 0
    for row, (name, doubtful) in enumerate(zip(table["File_name"], table["Possibly_noisy"], strict=True)):
        noisy += doubtful == "1"
        of_slice.setdefault(name, []).extend([row] if doubtful != "1" else [])
    only_noisy = [name for name, rows in of_slice.items() if not rows]
    names = [name for name, rows in of_slice.items() if rows]
    places = _places(root)
    files = [_file(root, places, name) for name in names]
    notes = lacking(files.count(""), len(files), "key slices", root, TITLE, PAGE)
    if noisy:
        notes.append(
            f"{noisy:,} lesions are marked as possibly noisy and are left out, {len(only_noisy):,} slices with them."
        )
    columns: dict[str, list[str]] = {name: [] for name in _CELLS}
    official: list[str] = []
    for name, file in zip(names, files, strict=True):
        if not file:
            continue
        rows = of_slice[name]
        cells = {column: [table[column][row] for row in rows] for column in _COLUMNS}
        for column, cell in _slice(file, cells, path).items():
            columns[column].append(cell)
        official.append(PARTS.get(cells["Train_Val_Test"][0], ""))
    counted = {
        "lesions": len(table["File_name"]),
        "key slices": len(of_slice),
        "studies": len({*zip(table["Patient_index"], table["Study_index"], strict=True)}),
        "patients": len({*table["Patient_index"]}),
    }
    return Rows(columns, {"official": official}, notes=notes, counted=counted)


_CELLS = ("paths", "patient_id", "study_id", "modality", "boxes", "lesion_type", "sex", "age", "pixel_mm", "slice_mm")


def _slice(file: str, cells: dict[str, list[str]], path: Path) -> dict[str, str]:
    """The cells of one key slice, from those of its lesions."""
    patient = cells["Patient_index"][0]
    x, _, z = _numbers(cells["Spacing_mm_px_"][0], 3, path)
    kinds = [int(kind) for kind in cells["Coarse_lesion_type"] if kind.isdecimal()]
    age = cells["Patient_age"][0]
    return {
        "paths": file,
        "patient_id": patient,
        "study_id": f"{patient}_{cells['Study_index'][0]}",
        "modality": "CT",
        "boxes": ";".join(_box(box, path) for box in cells["Bounding_boxes"]),
        "lesion_type": "|".join(dict.fromkeys(TYPES[kind - 1] for kind in kinds if 1 <= kind <= len(TYPES))),
        "sex": cells["Patient_gender"][0],
        "age": "" if age.lower() == "nan" else age,
        "pixel_mm": f"{x:g}",
        "slice_mm": f"{abs(z):g}" if math.isfinite(z) and z else "",  # some are negative, some no number
    }


def _box(cell: str, path: Path) -> str:
    """The box of one lesion as the catalogue has it. Its pixels are counted from 1."""
    left, top, right, bottom = _numbers(cell, 4, path)
    if not (right > left and bottom > top):
        raise ScanlearnError(f"A box in {path} has no area; get the table again from {PAGE}.")
    return " ".join(f"{value:.10g}" for value in (left - 1, top - 1, right - left, bottom - top))


def _numbers(cell: str, count: int, path: Path) -> list[float]:
    try:
        values = [float(word) for word in cell.split(",")]
    except ValueError:
        values = []
    if len(values) != count:
        raise ScanlearnError(f"A cell of {path} does not hold {count} numbers; get the table again from {PAGE}.")
    return values


def _places(root: Path) -> list[str]:
    """The folders that hold folders of series: one Images_png, or one below each part that was unpacked on its own."""
    inside = [folder for folder in folders_below(root) if folder.startswith("Images_png")]
    return [place for folder in inside for place in (f"{folder}/Images_png", folder) if first_of(root, place)]


def _file(root: Path, places: Sequence[str], name: str) -> str:
    """Where the slice "000001_01_01_109.png" lies: its last "_" is a folder's end. "" where it is not there."""
    series, _, slice_ = name.rpartition("_")
    within = f"{series}/{slice_}"
    if not series or "/" in name or name.startswith("."):
        raise ScanlearnError(f"DL_info.csv below {root} names files otherwise than {TITLE} does; get it from {PAGE}.")
    return next((f"{place}/{within}" for place in places if (root / place / within).is_file()), "")


register(
    Layout(
        name="deeplesion",
        title=TITLE,
        licence="free to use, as the NIH Clinical Center asks: with a link to the page and the citation",
        citation="Yan et al., DeepLesion: automated mining of large-scale lesion annotations, J. Med. Imaging 5(3) (2018)",
        page=PAGE,
        marks=("DL_info.csv|Images_png*",),
        read=_read,
        splits={"official": Split(True, "of the owners, by patient, 70/15/15 (column Train_Val_Test).")},
        counts={"lesions": 32735, "key slices": 32120, "studies": 10594, "patients": 4427},
        value_offset=-32768,
    )
)
