"""What a data set holds, as text and as a page: counts by part, label and view, and a sheet of its scans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scanlearn import __version__
from scanlearn.catalog.containment import datasets_of
from scanlearn.catalog.layouts.layout import LAYOUTS, layout_named
from scanlearn.catalog.table import SPLITS, Catalog
from scanlearn.console import warn
from scanlearn.files import write_atomic
from scanlearn.scans.sources import ArraySource, FileSource, source_of
from scanlearn.scans.store import Store, open_store
from scanlearn.study.page import MISSING, Picture, Strip, Table, count, render
from scanlearn.study.pictures import slices_of, tile

MOST_WORDS = 20  # of a column; one with more is counted only
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
    known = [layout_named(name) for name in sorted(data.datasets) if name in LAYOUTS.names()]
    facts = [f"{one.title}: licence {one.licence}; {one.citation}." for one in known]
    sheet = Strip(f"{SHEET} scans at most, of different patients, by chance", _sheet(data))
    content = {"title": data.name, "version": __version__, "lead": lead, "facts": facts}
    write_atomic(page, render("description.html.jinja", **content, tables=tables, sheet=sheet))
    return "\n\n".join([f"{data.name}: {lead}", *facts, *map(as_text, tables)]), page


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
        return Data(store.path.name, store.catalog, store.splits, store.masked, found, store)
    reader = source_of(path, patient=patient, layout=layout)
    catalog = reader.catalog
    split = np.array(catalog.column("split"))
    parts = {name: np.flatnonzero(split == name) for name in SPLITS if (split == name).any()}
    masked = np.array([bool(mask) for mask in catalog.column("mask_path")])
    return Data(path.absolute().name, catalog, parts, masked, datasets_of(catalog), reader)


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
        if labels.kind not in ("class", "multilabel") or len(labels.classes) > MOST_WORDS:
            filled = data.catalog.codes(name) != 0
            cells = [[f"a word ({labels.kind})", *(f"{int(filled[r].sum()):,}" for r in _columns_of(data).values())]]
            tables.append(Table(name, ["", *_columns_of(data)], cells))
            continue
        scans, classes = labels.shown()
        shown = np.zeros((len(data.catalog), len(labels.classes)), bool)
        shown[scans, classes] = True
        none = labels.labelled & ~shown.any(1)
        cells = [
            [word, *(f"{int(shown[rows, i].sum()):,}" for rows in _columns_of(data).values())]
            for i, word in enumerate(labels.classes)
        ]
        if none.any():
            cells.append(["none of these", *(f"{int(none[rows].sum()):,}" for rows in _columns_of(data).values())])
        blank = ~labels.labelled
        if blank.any():
            cells.append(["not labelled", *(f"{int(blank[rows].sum()):,}" for rows in _columns_of(data).values())])
        tables.append(Table(name, ["", *_columns_of(data)], cells))
    return tables


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
