"""What the user points at (a table, a folder, a folder with a table, one scan) and who reads it."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from scanlearn.catalog.columns import TABLE_SUFFIXES, assign_roles, is_table, read_names
from scanlearn.catalog.files import is_dicom, list_images, suffix_of
from scanlearn.catalog.folder import catalog_of_files
from scanlearn.catalog.table import KEY, Catalog
from scanlearn.catalog.tabular import catalog_of_table
from scanlearn.console import say
from scanlearn.errors import ScanlearnError


def catalog_of(source: Path, *, patient: str | None, mask: str | None, image: str | None) -> Catalog:
    """``Catalog.from_source``: a table is read as one, a folder is listed unless it holds its own table."""
    source = source.expanduser().absolute()
    if not source.exists():
        raise ScanlearnError(f"There is no file or folder {source}; give a folder of scans or a table of file names.")
    table = source if source.is_file() and is_table(source) else _table_within(source, image)
    if table is not None and _is_saved(table):
        if patient or mask or image:
            raise ScanlearnError(f"{table} is a saved catalogue; leave out patient, mask and image.")
        return Catalog.load(table)
    if table is not None:
        return catalog_of_table(table, patient=patient, mask=mask, image=image)
    for option, name in (("image", image), ("mask", mask), ("patient", None if patient == "folder" else patient)):
        if name is not None:
            raise ScanlearnError(
                f"{option}={name!r} names a column, but {source} holds no table of file names; "
                "leave it out or give the table itself."
            )
    if source.is_dir():
        return catalog_of_files(source, list_images(source), patient_is_folder=patient == "folder")
    if not suffix_of(source.name) and not is_dicom(source):
        raise ScanlearnError(f"{source} is neither a scan nor a table (tables end in {', '.join(TABLE_SUFFIXES)}).")
    return catalog_of_files(source.parent, [source.name])


def _table_within(folder: Path, image: str | None) -> Path | None:
    """The one table of file names directly in a folder, if there is one; what is taken or left aside is said."""
    if not folder.is_dir():
        return None
    usable = []
    for path in sorted(p for p in folder.iterdir() if p.is_file() and is_table(p) and not p.name.startswith(".")):
        if _is_saved(path) or "image" in assign_roles(read_names(path), {}) or image in read_names(path):
            usable.append(path)
        else:
            say(f"{path.name} has no column of file names, so it is not used.")
    if len(usable) > 1:
        shown = ", ".join(path.name for path in usable)
        raise ScanlearnError(f"{folder} holds several tables of scans ({shown}); give the path of the one to use.")
    if usable:
        say(f"Using the table {usable[0].name} in {folder}.")
    return usable[0] if usable else None


def _is_saved(path: Path) -> bool:
    return path.suffix.lower() == ".parquet" and KEY in (pq.read_schema(path).metadata or {})
