"""A table of scans: its file names resolved and checked, its columns sorted into patients, masks, splits and labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scanlearn.catalog.assemble import Cells, Found, assemble
from scanlearn.catalog.cells import per_block
from scanlearn.catalog.columns import assign_roles, names_files, read_table, split_words
from scanlearn.catalog.dicom import Header, Sorted, no_images, read_headers, sort_into_scans
from scanlearn.catalog.files import DICOM_SUFFIXES, ZARR, is_dicom, may_be_dicom, suffix_of
from scanlearn.catalog.listing import list_folder
from scanlearn.catalog.locate import Locator
from scanlearn.catalog.mapped import numbers, one_piece
from scanlearn.catalog.modality import modalities_in
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
    files = _files(one_piece(table[roles["image"]]), f"column {roles['image']!r}", locator)
    paths, headers = _open(files, roles["image"], locator)
    names = pa.ListArray.from_arrays(files.offsets, locator.short_names(files.values))
    said: dict[str, Cells] = {column: one_piece(table[roles[role]]) for column, role in _SAID.items() if role in roles}
    used = {*roles.values()}
    by_pattern = patients_by_pattern(asked.patient, names)
    if by_pattern:
        roles.pop("patient", None)
    if "modality" not in roles:
        said["modality"] = modalities_in(_firsts(names))
        if headers:
            said["modality"] = pc.if_else(pa.array(map(bool, headers)), "", said["modality"])
    if "split" in roles:
        said["split"] = split_words(table[roles["split"]], roles["split"])
    found = Found(
        names=_firsts(names),
        paths=paths,
        masks=_masks(table, roles.get("mask"), _firsts(files), locator),
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


def _files(cells: pa.Array, column: str, locator: Locator) -> pa.ListArray:
    """The absolute paths of each row's scan, none twice."""
    blank = pc.sum(pc.match_substring_regex(cells, r"^[|\s]*$")).as_py()
    if blank:
        raise ScanlearnError(
            f"{blank} of {len(cells)} rows of {locator.table.name} name no file in {column}; take them out."
        )
    parts = pc.split_pattern(cells, "|")
    row, names = numbers(pc.list_parent_indices(parts)), pc.utf8_trim_whitespace(pc.list_flatten(parts))
    named = pc.not_equal(names, "")
    row, names = row[named.to_numpy(zero_copy_only=False)], names.filter(named)
    paths = locator.locate(names, column)
    _, first, same = np.unique(numbers(pc.dictionary_encode(paths).indices), return_index=True, return_inverse=True)
    again = np.unique(row[row != row[first[same]]])
    if len(again):
        raise ScanlearnError(
            f"{len(again)} rows of {locator.table.name} name a file that an earlier row names, the first is row "
            f"{again[0] + 1:,} below the names of the columns; give every scan one row (several findings are written A|B)."
        )
    return pa.ListArray.from_arrays(pa.array(np.searchsorted(row, np.arange(len(cells) + 1)), pa.int32()), paths)


def _firsts(lists: pa.ListArray) -> pa.Array:
    """The first word of each list; none is blank."""
    return lists.values.take(lists.offsets[:-1])


def _open(files: pa.ListArray, column: str, locator: Locator) -> tuple[pa.Array, list[Header | None]]:
    """The files of each scan and its DICOM header (None for other formats): a folder stands for the series in it.

    No headers at all where none of the files is DICOM.
    """
    folder = pc.and_(pc.equal(pc.list_value_length(files), 1), _are_series(_firsts(files), locator))
    if pc.any(folder).as_py():
        return _open_folders(files.to_pylist(), folder.to_pylist(), column)
    perhaps = files.values.filter(may_be_dicom(files.values))
    dicom = [path for path in perhaps.to_pylist() if is_dicom(path)]
    if not dicom:
        return files, []
    header_of = dict(zip(dicom, read_headers(dicom), strict=True))
    return files, [header_of.get(path) for path in _firsts(files).to_pylist()]


def _open_folders(files: list[list[str]], folder: list[bool], column: str) -> tuple[pa.Array, list[Header | None]]:
    """``_open`` where ``folder`` tells of some rows that they are the folder of a series."""
    members = [_members(of_row[0]) if of_folder else of_row for of_row, of_folder in zip(files, folder, strict=True)]
    dicom = [path for paths in members for path in paths if suffix_of(path) != ZARR and is_dicom(path)]
    header_of = dict(zip(dicom, read_headers(dicom), strict=True)) if dicom else {}
    mixed = []
    left_out = Sorted()
    for i, (of_folder, paths) in enumerate(zip(folder, members, strict=True)):
        if of_folder:
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
    return pa.array(members, pa.list_(pa.string())), [header_of.get(paths[0]) for paths in members]


def _are_series(paths: pa.Array, locator: Locator) -> pa.Array:
    """Booleans: which of the paths are folders, and no Zarr."""
    return pc.and_(locator.are_folders(paths), pc.invert(pc.ends_with(pc.ascii_lower(paths), ZARR)))


def _members(folder: str) -> list[str]:
    """The DICOM files in a folder: those listed without a suffix are, too."""
    images = list_folder(Path(folder)).images
    return [f"{folder}/{name}" for name in images if suffix_of(name) in ("", *DICOM_SUFFIXES)]


def _masks(table: pa.Table, column: str | None, files: pa.Array, locator: Locator) -> Cells:
    """Absolute path of each scan's mask or "": from the column, else the file of the same name in a mask folder."""
    if column is not None:
        masks = locator.locate(one_piece(table[column]), f"column {column!r}", masks=True)
        perhaps = pc.unique(masks.filter(pc.and_(pc.not_equal(masks, ""), may_be_dicom(masks))))
        objects = no_images(perhaps.filter(pc.invert(locator.are_folders(perhaps))).to_pylist())
        if objects:
            warn(
                f"{len(objects):,} masks are DICOM segmentations or the like, which scanlearn does not read, so their scans "
                "have none; save them as NIfTI."
            )
        return pc.if_else(pc.is_in(masks, value_set=pa.array(objects, pa.string())), "", masks)
    pairs = locator.masks_beside(files)
    if pairs:
        say(f"{len(pairs):,} of {len(files):,} scans have a mask of the same name.")
    return per_block(files, lambda block: [pairs.get(file, "") for file in block])
