"""A table of scans: its file names resolved and checked, its columns sorted into patients, masks, splits and labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from scanlearn.catalog.assemble import Found, assemble
from scanlearn.catalog.columns import assign_roles, names_files, read_table, split_words
from scanlearn.catalog.dicom import Header, group_series, read_headers
from scanlearn.catalog.files import is_dicom, list_files
from scanlearn.catalog.locate import Locator
from scanlearn.catalog.table import FIXED, Catalog
from scanlearn.console import say
from scanlearn.errors import ScanlearnError

# Columns of the catalogue that are filled from the table as they stand, by the role of the table's column.
_SAID = {
    "patient_id": "patient",
    "study_id": "study",
    "modality": "modality",
    "view": "view",
    "dataset": "dataset",
    "sha256": "sha256",
}


def catalog_of_table(path: Path, *, patient: str | None, mask: str | None, image: str | None) -> Catalog:
    """Read a table of one row per scan; see ``Catalog.from_source``."""
    table = read_table(path)
    roles = assign_roles(table.column_names, {"image": image, "patient": patient, "mask": mask})
    if "image" not in roles:
        shown = ", ".join(table.column_names[:12])
        raise ScanlearnError(f"{path.name} has no column that sounds like file names ({shown}); name it with image=...")
    if mask is None and "mask" in roles and not names_files(table[roles["mask"]]):
        del roles["mask"]
    locator = Locator(path)
    files = _files(table[roles["image"]].to_pylist(), roles["image"], locator)
    paths, headers = _open(files, roles["image"], locator)
    said: dict[str, Sequence[str]] = {
        name: table[roles[role]].to_pylist() for name, role in _SAID.items() if role in roles
    }
    if "split" in roles:
        said["split"] = split_words(table[roles["split"]], roles["split"]).to_pylist()
    used = {*roles.values()}
    found = Found(
        names=locator.short_names(files),
        paths=paths,
        masks=_masks(table, roles.get("mask"), files, locator),
        headers=headers,
        dataset=path.parent.name,
        said=said,
        labels={
            f"{name}_in_table" if name in FIXED.names else name: table[name]
            for name in table.column_names
            if name not in used
        },
    )
    catalog = assemble(found)
    taken = ", ".join(f"{role} from {name!r}" for role, name in roles.items())
    say(f"{path.name}: {len(catalog)} scans; {taken}; labels: {', '.join(catalog.label_columns) or 'none'}.")
    return catalog


def _files(names: list[str], column: str, locator: Locator) -> list[str]:
    """Absolute paths of the scans, one for each row, none twice."""
    blank = names.count("")
    if blank:
        raise ScanlearnError(
            f"{blank} of {len(names)} rows of {locator.table.name} name no file in column {column!r}; take them out."
        )
    files = locator.locate(names, column)
    first_row = {file: row for row, file in reversed([*enumerate(files)])}
    again = [names[row] for row, file in enumerate(files) if first_row[file] != row]
    if again:
        raise ScanlearnError(
            f"{len(again)} rows of {locator.table.name} name a file that an earlier row names, the first is "
            f"{again[0]!r}; give every scan one row (several findings are written A|B)."
        )
    return files


def _open(files: list[str], column: str, locator: Locator) -> tuple[list[list[str]], list[Header | None]]:
    """The files of each scan and its DICOM header (None for other formats): a folder stands for the series in it."""
    members = [_members(file) if locator.is_folder(file) else [file] for file in files]
    dicom = [path for paths in members for path in paths if is_dicom(path)]
    header_of = dict(zip(dicom, read_headers(dicom), strict=True)) if dicom else {}
    mixed = []
    for i, (file, paths) in enumerate(zip(files, members, strict=True)):
        if locator.is_folder(file):
            images = [path for path in paths if (header := header_of.get(path)) is not None and header.is_image]
            series = group_series(images, [header_of[path] for path in images])
            members[i] = images
            if len(series) != 1:
                mixed.append((file, len(series)))
    if mixed:
        raise ScanlearnError(
            f"{len(mixed)} of {len(files)} entries in column {column!r} are folders that do not hold exactly one DICOM "
            f"series, the first is {locator.relative(mixed[0][0])} with {mixed[0][1]}; name one series or file per row."
        )
    return members, [header_of.get(paths[0]) for paths in members]


def _members(folder: str) -> list[str]:
    return [f"{folder}/{name}" for name in list_files(Path(folder)) if is_dicom(f"{folder}/{name}")]


def _masks(table: pa.Table, column: str | None, files: list[str], locator: Locator) -> list[str]:
    """Absolute path of each scan's mask or "": from the column, else the file of the same name in a mask folder."""
    if column is not None:
        return locator.locate(table[column].to_pylist(), column, masks=True)
    pairs = locator.masks_beside(files)
    if pairs:
        folders = sorted({locator.relative(mask).rpartition("/")[0] for mask in pairs.values()})
        say(f"{len(pairs)} of {len(files)} scans have a mask of the same name in {folders[0] or '.'}/.")
    return [pairs.get(file, "") for file in files]
