"""Known data sets recognised in a folder and made into a catalogue: ``recognise``, ``catalog_of_layout``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scanlearn.catalog.assemble import Cells, Found, assemble
from scanlearn.catalog.boxes import COLUMN as BOXES
from scanlearn.catalog.boxes import NO_BOX
from scanlearn.catalog.labelled import ORDER
from scanlearn.catalog.layouts.layout import Layout, Rows, all_layouts, layout_named
from scanlearn.catalog.layouts.tools import first_of, keep, some_names
from scanlearn.catalog.mask_cells import below
from scanlearn.catalog.origin import with_origin
from scanlearn.catalog.table import FIXED, PLACES, SPLITS, Catalog
from scanlearn.console import say, warn
from scanlearn.errors import ScanlearnError, unknown

NONE = "none"  # --layout none: a plain folder; --split none: no published split
_WRAPPERS = 4  # folders around the root, as archives make them


def recognise(folder: Path) -> Layout | None:
    """The known data set that the folder is, or that is the only thing in it.

    Raises ScanlearnError where the folder bears the marks of several.
    """
    found = [layout for layout in all_layouts() if any(_is_root(layout, root) for root in _wrapped(folder))]
    found = [layout for layout in found if not any(other.name in layout.gives_way_to for other in found)]
    if len(found) > 1:
        names = ", ".join(layout.name for layout in found)
        raise ScanlearnError(f"{folder} looks like several data sets ({names}); say which with --layout.")
    return found[0] if found else None


def catalog_of_layout(folder: Path, layout: Layout | str, split: str | None = None) -> Catalog:
    """The scans of a known data set, found at, in or just above the folder.

    Args:
        layout: a layout, or the name of one.
        split: a published split of this data set, by name; None takes its default, "none" none.

    Raises:
        ScanlearnError: unknown names; a copy that lacks something; no such data set here.
    """
    layout = layout_named(layout) if isinstance(layout, str) else layout
    if split not in (None, NONE, *layout.splits):
        raise unknown(f"split of {layout.name}", str(split), [*layout.splits, NONE])
    root = _root_of(layout, folder)
    say(f"{root} is read as {layout.title} (licence: {layout.licence}); --layout none reads it as a plain folder.")
    rows = layout.read(root)
    for note in rows.notes:
        warn(note)
    _tell_counts(layout, rows)
    name = split or layout.default_split or NONE
    if name != NONE:
        rows = _in_split(layout, rows, name)
    return _assembled(layout, root, rows, name)


# ---------------------------------------------------------------- where it is


def _is_root(layout: Layout, root: Path) -> bool:
    there = all(first_of(root, mark) is not None for mark in layout.marks)
    return there and (layout.knows is None or layout.knows(root))


def _wrapped(folder: Path) -> Iterator[Path]:
    """The folder, and those that an archive wrapped around the data set: each the only folder in the one before."""
    yield folder
    for _ in range(_WRAPPERS):
        inside = _folders_in(folder)
        if len(inside) != 1:
            return
        folder = inside[0]
        yield folder


def _root_of(layout: Layout, folder: Path) -> Path:
    """The root, looked for where somebody who names the data set may point: above, at, and two levels below."""
    beside = [inside for outer in [folder, *_folders_in(folder)] for inside in _folders_in(outer)]
    for root in dict.fromkeys((*_wrapped(folder), *beside, folder.parent, folder.parent.parent)):
        if _is_root(layout, root):
            return root
    wanted = ", ".join(mark.replace("|", " or ") for mark in layout.marks) or "cases called as those of this release"
    raise ScanlearnError(f"{folder} is no {layout.title}: it would hold {wanted}; get it from {layout.page}.")


def _folders_in(folder: Path) -> list[Path]:
    return [folder / name for name in some_names(folder) if (folder / name).is_dir()]


# ---------------------------------------------------------------- what it is


def _tell_counts(layout: Layout, rows: Rows) -> None:
    """Say whether the published counts are met, and each that is not."""
    found = _counts(layout, rows)
    wrong = [
        f"{what} {found[what]:,} (published {count:,})" for what, count in layout.counts.items() if found[what] != count
    ]
    if wrong:
        warn(f"{layout.name}: this copy differs from what was published: {', '.join(wrong)}.")
    elif layout.counts:
        say(f"{layout.name}: {', '.join(f'{what} {count:,}' for what, count in layout.counts.items())}, as published.")


def _counts(layout: Layout, rows: Rows) -> dict[str, int]:
    words: Counter[str] = Counter()
    for name, cells in rows.columns.items():
        if (name not in FIXED.names or name == "view") and name not in PLACES:
            for cell, times in Counter(cells).items():
                words.update(dict.fromkeys(str(cell).split("|"), times))
    patients = {*rows.columns["patient_id"]} if rows.patients_known and "patient_id" in rows.columns else {""}
    found = {
        "images": len(rows),
        "patients": len(patients - {""}),
        "masks": sum(map(bool, rows.columns.get("mask_path", ()))),
        "boxes": sum(cell.count(";") + 1 for cell in rows.columns.get(BOXES, ()) if cell not in ("", NO_BOX)),
    }
    for name, cells in rows.splits.items():
        found |= {f"split {name} {part}": cells.count(part) for part in SPLITS}
    found |= rows.counted
    return {what: found.get(what, words[what]) for what in layout.counts}


def _in_split(layout: Layout, rows: Rows, name: str) -> Rows:
    """The rows that are in a part of the split, which it fills."""
    split, cells = layout.splits[name], rows.splits[name]
    out = cells.count("")
    if out == len(cells):
        raise ScanlearnError(f"No scan of this copy is in the split {name!r} of {layout.name}; take --split none.")
    say(f"split {name!r}: {'' if split.official else 'not official: '}{split.told}")
    if out:
        warn(f"{out:,} of {len(cells):,} scans are in no part of the split {name!r} and are left out.")
    columns = {**rows.columns, "split": cells}
    if name in rows.orders:
        columns[ORDER] = rows.orders[name]
    if out:
        columns = keep(columns, [bool(cell) for cell in cells])
    return Rows(columns, {}, rows.patients_known, rows.notes, rows.mask_names)


def _below(root: Path, paths: Sequence[str | Sequence[str]]) -> pa.Array:
    """The files of each scan with the root before them, in Arrow: lists of a million lists take a GB."""
    sizes = np.fromiter((1 if isinstance(cell, str) else len(cell) for cell in paths), np.int64, len(paths))
    files = (file for cell in paths for file in ((cell,) if isinstance(cell, str) else cell))
    flat = pa.array(files, pa.string(), size=int(sizes.sum()))
    starts = pa.array(np.concatenate([[0], np.cumsum(sizes)]), pa.int32())
    return pa.ListArray.from_arrays(starts, pc.binary_join_element_wise(str(root), flat, "/"))


def _assembled(layout: Layout, root: Path, rows: Rows, split: str) -> Catalog:
    count = len(rows)
    if not count:
        raise ScanlearnError(
            f"{root} has the marks of {layout.title} but none of its scans; unpack its archives there."
        )
    paths = rows.columns["paths"]
    masks = rows.columns.get("mask_path", [""] * count)
    said: dict[str, Cells] = {
        name: pa.array(rows.columns[name], pa.string())
        for name in FIXED.names
        if name in rows.columns and name not in ("paths", "mask_path")
    }
    if "patient_id" in said:
        owner = layout.patients_of or layout.name
        named = pc.binary_join_element_wise(owner, said["patient_id"], ":")
        said["patient_id"] = pc.if_else(pc.equal(said["patient_id"], ""), "", named)
    if not rows.patients_known:
        said.pop("patient_id", None)
        say(f"{layout.name}: nobody can tell which scans are of one patient; a split by scan may share patients.")
    found = Found(
        names=pa.array((cell if isinstance(cell, str) else cell[0] for cell in paths), pa.string(), size=count),
        paths=_below(root, paths),
        masks=pa.array((below(root, mask) for mask in masks), pa.string(), size=count),
        headers=[],
        dataset=layout.name,
        said=said,
        labels={name: cells for name, cells in rows.columns.items() if name not in FIXED.names},
        mask_names=rows.mask_names,
    )
    catalog = assemble(found)
    split_told = {"split": split, "official": layout.splits[split].official} if split != NONE else {}
    origin = {
        "layout": layout.name,
        **split_told,
        "value_offset": layout.value_offset,
        "masks_on_image": layout.masks_on_image,
    }
    return Catalog(with_origin(catalog.table, origin), catalog.patients_known)
