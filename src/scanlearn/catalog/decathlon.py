"""Lists of scans as JSON: ``dataset.json`` of the Medical Segmentation Decathlon and nnU-Net v1, MONAI's data lists.

{"training": [{"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz", "fold": 0}], "test": ["imagesTs/b.nii.gz"]}
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from scanlearn.catalog.columns import SPLIT_WORDS, names_files
from scanlearn.catalog.dataset_json import channel_names, names_in_masks, view_of
from scanlearn.catalog.locate import Locator
from scanlearn.catalog.modality import modality_of
from scanlearn.catalog.table import Catalog
from scanlearn.catalog.tabular import Asked, catalog_of_rows
from scanlearn.console import say, warn
from scanlearn.errors import ScanlearnError

SECTIONS = ("training", "train", "validation", "val", "test", "testing")


def is_datalist(content: dict[str, Any]) -> bool:
    """Whether a JSON object lists scans under "training", "validation" or "test"."""
    return any(isinstance(content.get(section), list) and content[section] for section in SECTIONS)


def catalog_of_datalist(path: Path, content: dict[str, Any], asked: Asked) -> Catalog:
    """List the entries of a data list; file names are relative to its folder and may not lead out of it.

    Several files under "image" are the channels of one scan. "label" is the mask, or, where it names no file, a label
    column like every other word or number of an entry ("fold", "age"); nested values are left out. The sections are
    the split if "validation" is one of them or test entries have labels. The Decathlon's test images have none: then
    nothing is in a part, and ``prepare`` divides.

    Raises ScanlearnError for entries without image, files that are missing or lead out of the folder.
    """
    rows, sections = _rows(path, content)
    locator = Locator(path, own=False)
    image = asked.image or ("image" if any("image" in row for row in rows) else None)
    columns = _columns(rows, image, locator)
    mask = asked.mask
    if mask is None and "label" in columns and names_files(columns["label"]):
        mask = "label"
    # Test entries of the Decathlon are bare: their section is no part that anything could be tested on.
    labels = [columns[name].to_pylist() for name in {mask, "label"} if name in columns]
    tested = any(cells[i] for cells in labels for i, section in enumerate(sections) if section == "test")
    if len({*sections}) > 1 and (tested or "val" in sections):
        columns["split"] = pa.array(sections)
    elif "test" in sections:
        say(f'{sections.count("test"):,} scans under "test" have no label; a split treats them like the others.')
    channels = channel_names(content, path)
    for name, word in (("modality", modality_of(channels)), ("view", view_of(channels))):
        if word and name not in columns:
            columns[name] = pa.array([word] * len(rows))
    _say_if_counts_differ(content, sections)
    asked = Asked(image=image, patient=asked.patient, mask=mask)
    return catalog_of_rows(pa.table(columns), locator, asked, names_in_masks(content))


def _rows(path: Path, content: dict[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """All entries as dictionaries, and the part of each: train, val or test."""
    rows: list[dict[str, Any]] = []
    sections: list[str] = []
    for section in SECTIONS:
        entries = content.get(section) or []
        for entry in entries if isinstance(entries, list) else ():
            row = {"image": entry} if isinstance(entry, str | list) else entry
            if not isinstance(row, dict):
                raise ScanlearnError(
                    f'Entry {len(rows) + 1} of {path} under "{section}" is neither a file name nor {{"image": ...}}.'
                )
            rows.append(row)
            sections.append(SPLIT_WORDS[section])
    return rows, sections


def _columns(rows: list[dict[str, Any]], image: str | None, locator: Locator) -> dict[str, pa.Array]:
    """The entries as text columns, files of one scan joined by "|"; what is no word or number is left out and said."""
    names = dict.fromkeys(name for row in rows for name in row)
    columns: dict[str, pa.Array] = {}
    nested = []
    for name in names:
        cells = [row.get(name) for row in rows]
        if name == image:
            cells = [_image_cell(cell, locator) for cell in cells]
        if any(isinstance(cell, list | dict) for cell in cells):
            nested.append(name)
            continue
        columns[_text(name)] = pa.array(["" if cell is None else _text(cell) for cell in cells], pa.string())
    if nested:
        warn(f"{len(nested)} entries of {locator.table.name} hold lists or objects and are left out as labels.")
    return columns


def _image_cell(cell: object, locator: Locator) -> object:
    """File names joined by "|". nnU-Net v1 lists "a.nii.gz" and keeps a_0000.nii.gz, a_0001.nii.gz, ..."""
    if isinstance(cell, list) and cell and all(isinstance(file, str) for file in cell):
        return "|".join(cell)
    if isinstance(cell, str) and cell and "|" not in cell and not locator.holds(cell):
        return "|".join(locator.channels_of(cell)) or cell
    return "" if isinstance(cell, list | dict) else cell


def _text(value: object) -> str:
    return str(value).encode("utf-8", "replace").decode()


def _say_if_counts_differ(content: dict[str, Any], sections: list[str]) -> None:
    for key, part in (("numTraining", "train"), ("numTest", "test")):
        number = content.get(key)
        if isinstance(number, int) and number != sections.count(part):
            warn(f"dataset.json says {key} {number:,}, but lists {sections.count(part):,}.")
