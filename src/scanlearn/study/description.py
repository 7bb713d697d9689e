"""What a data set holds, as text and as a page: counts by part, label and view, and a sheet of its scans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scanlearn import __version__
from scanlearn.catalog.containment import datasets_of
from scanlearn.catalog.labels import Labels
from scanlearn.catalog.layouts.layout import LAYOUTS, layout_named
from scanlearn.catalog.origin import origin_of
from scanlearn.catalog.table import SPLITS, Catalog
from scanlearn.console import warn
from scanlearn.files import write_atomic
from scanlearn.scans.sources import ArraySource, FileSource, source_of
from scanlearn.scans.store import Store, open_store
from scanlearn.study.page import MISSING, Picture, Strip, Table, count, render
from scanlearn.study.pictures import slices_of, tile

MOST_WORDS = 20  # of a column; one with more is counted only
MOST_CODES = 5  # numbers up to which a column holds codes of classes and no quantity
AT_LEAST = 3  # patients of a word that names nobody, and ...
AT_LEAST_SCANS = 10  # ... scans where patients are not known: folders may be called like them
SHEET = 24  # scans with a picture


@dataclass(frozen=True)
class Data:
    """A data set that is looked at: its catalogue, the rows (sorted) of its parts, and what it is called."""

    name: str
    catalog: Catalog
    parts: Mapping[str, np.ndarray]
    masked: np.ndarray  # bool (N,)
    datasets: frozenset[str]
    scans: Store | FileSource | ArraySource
    origin: Mapping[str, Any]  # see catalog.origin


def describe(
    source: str | Path, out: str | Path | None = None, *, patient: str | None = None, layout: str | None = None
) -> tuple[str, Path]:
    """(text, page): counts of a store, or of anything that ``prepare`` takes, and a page with pictures.

    Neither names a scan, a patient or a file; a column of which every word could be a name is counted only.

    Args:
        out: the page to write; NAME-description.html in the current folder by default.
        patient, layout: of a folder or a table, as ``prepare`` takes them.
    """
    data = _open(source, patient, layout)
    tables = [_parts(data), *_columns(data)]
    page = Path(out) if out is not None else Path(f"{data.name}-description.html")
    patients = data.catalog.count_patients(np.arange(len(data.catalog)))
    whose = count(patients, "patient") if data.catalog.patients_known else "patients not known"
    lead = f"{count(len(data.catalog), 'scan')}, {whose}"
    facts = _facts(data)
    sheet = Strip(f"{SHEET} scans at most, of different patients, by chance", _sheet(data))
    content = {"title": data.name, "version": __version__, "lead": lead, "facts": facts}
    write_atomic(page, render("description.html.jinja", **content, tables=tables, sheet=sheet))
    return "\n\n".join([f"{data.name}: {lead}", *facts, *map(as_text, tables)]), page


def _facts(data: Data) -> list[str]:
    """What is known of the public data sets that the scans are from, and of the published split that is taken."""
    known = [layout_named(name) for name in sorted(data.datasets) if name in LAYOUTS.names()]
    facts = [f"{one.title}: licence {one.licence}; {one.citation}; from {one.page}." for one in known]
    for origin in (data.origin, *data.origin.get("datasets", {}).values()):
        if "split" in origin and origin.get("layout") in LAYOUTS.names():
            split = layout_named(origin["layout"]).splits.get(origin["split"])
            official = "official" if origin.get("official") else "not official"
            facts += [f"Split {origin['split']!r} of {origin['layout']}, {official}: {split.told}"] if split else []
    return facts


def as_text(table: Table, words: int = 1) -> str:
    """A table as plain text; its first columns, so many, are words and set to the left."""
    rows = [[table.caption, *table.head[1:]], *([str(cell) for cell in row] for row in table.rows)]
    width = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(w) if i < words else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, width, strict=True))
        )
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def _open(source: str | Path, patient: str | None, layout: str | None) -> Data:
    path = Path(source)
    if (path / "store.json").is_file() or "://" in str(source):
        store = open_store(str(source))
        origin = store.info["settings"].get("origin", {})
        found = datasets_of(store.catalog, origin)
        return Data(store.path.name, store.catalog, store.splits, store.masked, found, store, origin)
    reader = source_of(path, patient=patient, layout=layout)
    catalog = reader.catalog
    split = np.array(catalog.column("split"))
    parts = {name: np.flatnonzero(split == name) for name in SPLITS if (split == name).any()}
    masked = np.array([bool(mask) for mask in catalog.column("mask_path")])
    origin = origin_of(catalog.table)
    return Data(path.absolute().name, catalog, parts, masked, datasets_of(catalog), reader, origin)


def _columns_of(data: Data) -> dict[str, np.ndarray]:
    """{heading: rows}: everything, and each part."""
    return {"all": np.arange(len(data.catalog)), **data.parts}


def _parts(data: Data) -> Table:
    groups = _columns_of(data)
    known = data.catalog.patients_known
    rows = [
        ["scans", *(f"{len(rows):,}" for rows in groups.values())],
        ["patients", *(f"{data.catalog.count_patients(rows):,}" if known else MISSING for rows in groups.values())],
    ]
    if data.masked.any():
        rows.append(["with a mask", *(f"{int(data.masked[rows].sum()):,}" for rows in groups.values())])
    return Table("Parts", ["", *groups], rows, note="" if known else "Whose scans these are is not known.")


def _columns(data: Data) -> list[Table]:
    """Scans by label, view, modality and data set, in each part."""
    tables = []
    for name in ("dataset", "modality", "view", *data.catalog.label_columns):
        words = data.catalog.words(name)
        if len(words) < 2 or (len(words) == 2 and name in ("dataset",)):
            continue
        labels = data.catalog.labels(name)
        numbers = labels.codes if labels.kind == "number" else _numbers(labels)
        if numbers is not None:
            cells = _quartiles(data, numbers)
        elif labels.kind not in ("class", "multilabel") or _many(data, labels):
            filled = data.catalog.codes(name) != 0
            cells = [[f"{len(words) - 1:,} different words", *_counted(data, filled)]]
        else:
            cells = _classes(data, labels)
        tables.append(Table(name, ["", *_columns_of(data)], cells))
    return tables


def _classes(data: Data, labels: Labels) -> list[list[str]]:
    """Scans that show each class, that show none, and that are not labelled."""
    shown = _shown(data, labels)
    cells = [[word, *_counted(data, shown[:, i])] for i, word in enumerate(labels.classes)]
    none, blank = labels.labelled & ~shown.any(1), ~labels.labelled
    cells += [["none of these", *_counted(data, none)]] if none.any() else []
    return cells + ([["not labelled", *_counted(data, blank)]] if blank.any() else [])


def _shown(data: Data, labels: Labels) -> np.ndarray:
    """bool (N, K): which scans show which class."""
    scans, classes = labels.shown()
    shown = np.zeros((len(data.catalog), len(labels.classes)), bool)
    shown[scans, classes] = True
    return shown


def _counted(data: Data, which: np.ndarray) -> list[str]:
    return [f"{int(which[rows].sum()):,}" for rows in _columns_of(data).values()]


def _numbers(labels: Labels) -> np.ndarray | None:
    """float64 (N,): classes that are numbers, and too many to be codes, as a quantity; None for other columns."""
    if labels.kind != "class" or len(labels.classes) <= MOST_CODES:
        return None
    try:
        values = np.array([*map(float, labels.classes), np.nan])  # the last is that of missing labels, -1
    except ValueError:
        return None
    return values[labels.codes]


def _many(data: Data, labels: Labels) -> bool:
    """Whether a column has too many words, or mostly such as are of one or two patients: it could name them."""
    if len(labels.classes) > MOST_WORDS:
        return True
    shown = _shown(data, labels)
    least = AT_LEAST if data.catalog.patients_known else AT_LEAST_SCANS
    few = [data.catalog.count_patients(np.flatnonzero(column)) < least for column in shown.T]
    return len(few) > MOST_CODES and 2 * sum(few) > len(few)


def _quartiles(data: Data, numbers: np.ndarray) -> list[list[str]]:
    """How many scans have the number, and its quartiles; no smallest and largest, which are of one patient."""
    cells = [["scans with it", *_counted(data, ~np.isnan(numbers))]]
    for share, name in ((0.25, "first quarter below"), (0.5, "half below"), (0.75, "three quarters below")):
        parts = [numbers[rows][~np.isnan(numbers[rows])] for rows in _columns_of(data).values()]
        cells.append([name, *(f"{np.quantile(part, share):.4g}" if len(part) else MISSING for part in parts)])
    return cells


def _sheet(data: Data) -> list[Picture]:
    """Pictures of some scans, one of a patient each, chosen by chance but always the same."""
    patient = data.catalog.codes("patient_id")
    order = np.random.default_rng(0).permutation(len(patient))
    _, first = np.unique(patient[order], return_index=True)
    rows = np.sort(order[np.sort(first)[:SHEET]])
    slices = slices_of(data.scans, rows)
    if lost := slices.count(None):
        warn(f"{lost} of {len(rows)} scans of the sheet cannot be read.")
    return [tile(image, "a scan", ratio=ratio) for image, ratio in filter(None, slices)]
