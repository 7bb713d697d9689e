"""A table of scans: its file names resolved and checked, its columns sorted into patients, masks, splits and labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from scanlearn.catalog.assemble import Found, assemble
from scanlearn.catalog.columns import assign_roles, names_files, read_table, split_words
from scanlearn.catalog.dicom import Header, Sorted, no_images, read_headers, sort_into_scans
from scanlearn.catalog.files import DICOM_SUFFIXES, ZARR, is_dicom, suffix_of
from scanlearn.catalog.listing import list_folder
from scanlearn.catalog.locate import Locator
from scanlearn.catalog.modality import modality_in
from scanlearn.catalog.patients import is_column, patients_by_pattern
from scanlearn.catalog.table import Catalog
from scanlearn.console import say, warn
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


@dataclass(frozen=True)
class Asked:
    """What the user said about the source: names of columns, or for ``patient`` a pattern or "folder"."""

    image: str | None = None
    patient: str | None = None
    mask: str | None = None


def catalog_of_table(path: Path, asked: Asked, own: bool = True) -> Catalog:
    """Read a table of one row per scan; see ``Catalog.from_source``. ``own``: see ``Locator``."""
    return catalog_of_rows(read_table(path), Locator(path, own), asked)


def catalog_of_rows(
    table: pa.Table, locator: Locator, asked: Asked, mask_names: Mapping[int, str] | None = None
) -> Catalog:
    """The catalogue of a table of text. ``a.nii.gz|b.nii.gz`` names the channels of one scan."""
    name = locator.table.name
    if asked.patient == "folder" and "folder" not in table.column_names:
        raise ScanlearnError(f'patient="folder" is for folders without a table; name a column of {name}.')
    patient = asked.patient if is_column(asked.patient) or asked.patient == "folder" else None
    roles = assign_roles(table.column_names, {"image": asked.image, "patient": patient, "mask": asked.mask})
    if "image" not in roles:
        columns = ", ".join(table.column_names[:12])
        raise ScanlearnError(f"{name} has no column that sounds like file names ({columns}); name it with image=...")
    if asked.mask is None and "mask" in roles and not names_files(table[roles["mask"]]):
        del roles["mask"]
    files = _files(table[roles["image"]].to_pylist(), f"column {roles['image']!r}", locator)
    paths, headers = _open(files, roles["image"], locator)
    short = iter(locator.short_names([file for of_scan in files for file in of_scan]))
    names = [[next(short) for _ in of_scan] for of_scan in files]
    said: dict[str, Sequence[str]] = {
        column: table[roles[role]].to_pylist() for column, role in _SAID.items() if role in roles
    }
    used = {*roles.values()}
    by_pattern = patients_by_pattern(asked.patient, names)
    if by_pattern:
        roles.pop("patient", None)
    if "modality" not in roles:
        said["modality"] = [
            "" if header else modality_in(short[0]) for header, short in zip(headers, names, strict=True)
        ]
    if "split" in roles:
        said["split"] = split_words(table[roles["split"]], roles["split"]).to_pylist()
    found = Found(
        names=[of_scan[0] for of_scan in names],
        paths=paths,
        masks=_masks(table, roles.get("mask"), [of_scan[0] for of_scan in files], locator),
        headers=headers,
        dataset=locator.table.parent.name,
        said={**said, **by_pattern},
        labels={column: table[column] for column in table.column_names if column not in used},
        mask_names=mask_names or {},
    )
    catalog = assemble(found)
    taken = ", ".join(f"{role} from {column!r}" for role, column in roles.items())
    say(f"{name}: {len(catalog)} scans; {taken}; labels: {', '.join(catalog.label_columns) or 'none'}.")
    return catalog


def _files(cells: list[str], column: str, locator: Locator) -> list[list[str]]:
    """The absolute paths of each row's scan, none twice."""
    blank = cells.count("")
    if blank:
        raise ScanlearnError(
            f"{blank} of {len(cells)} rows of {locator.table.name} name no file in {column}; take them out."
        )
    names = [[part.strip() for part in cell.split("|") if part.strip()] or [cell] for cell in cells]
    found = iter(locator.locate([name for of_row in names for name in of_row], column))
    files = [[next(found) for _ in of_row] for of_row in names]
    first_row = {file: row for row, of_row in reversed([*enumerate(files)]) for file in of_row}
    again = [row for row, of_row in enumerate(files) if any(first_row[file] != row for file in of_row)]
    if again:
        raise ScanlearnError(
            f"{len(again)} rows of {locator.table.name} name a file that an earlier row names, the first is row "
            f"{again[0] + 1:,} below the names of the columns; give every scan one row (several findings are written A|B)."
        )
    return files


def _open(files: list[list[str]], column: str, locator: Locator) -> tuple[list[list[str]], list[Header | None]]:
    """The files of each scan and its DICOM header (None for other formats): a folder stands for the series in it."""
    folders = {of_row[0] for of_row in files if len(of_row) == 1 and _is_series(of_row[0], locator)}
    members = [_members(of_row[0]) if of_row[0] in folders else of_row for of_row in files]
    dicom = [path for paths in members for path in paths if suffix_of(path) != ZARR and is_dicom(path)]
    header_of = dict(zip(dicom, read_headers(dicom), strict=True)) if dicom else {}
    mixed = []
    left_out = Sorted()
    for i, (of_row, paths) in enumerate(zip(files, members, strict=True)):
        if of_row[0] in folders:
            known = [path for path in paths if header_of.get(path) is not None]
            found = sort_into_scans(known, [header_of[path] for path in known])
            members[i] = [known[k] for k in found.scans[0]] if found.scans else []
            left_out.left_out += found.left_out
            left_out.left_out["unreadable"] += len(paths) - len(known)
            if len(found.scans) != 1:
                mixed.append((i + 1, len(found.scans)))
    if mixed:
        raise ScanlearnError(
            f"{len(mixed)} of {len(files)} entries in column {column!r} are folders that do not hold exactly one DICOM "
            f"series, the first is number {mixed[0][0]:,} with {mixed[0][1]}; name one series or file per row."
        )
    for sentence in left_out.sentences():
        say(sentence)
    return members, [header_of.get(paths[0]) for paths in members]


def _is_series(path: str, locator: Locator) -> bool:
    return locator.is_folder(path) and suffix_of(path) != ZARR


def _members(folder: str) -> list[str]:
    """The DICOM files in a folder: those listed without a suffix are, too."""
    images = list_folder(Path(folder)).images
    return [f"{folder}/{name}" for name in images if suffix_of(name) in ("", *DICOM_SUFFIXES)]


def _masks(table: pa.Table, column: str | None, files: list[str], locator: Locator) -> list[str]:
    """Absolute path of each scan's mask or "": from the column, else the file of the same name in a mask folder."""
    if column is not None:
        masks = locator.locate(table[column].to_pylist(), f"column {column!r}", masks=True)
        objects = no_images({mask for mask in masks if mask and not locator.is_folder(mask)})
        if objects:
            warn(
                f"{len(objects):,} masks are DICOM segmentations or the like, which scanlearn does not read, so their scans "
                "have none; save them as NIfTI."
            )
        return ["" if mask in objects else mask for mask in masks]
    pairs = locator.masks_beside(files)
    if pairs:
        say(f"{len(pairs):,} of {len(files):,} scans have a mask of the same name.")
    return [pairs.get(file, "") for file in files]
