"""What the user points at (a table, a list in JSON, a folder, one scan) and who reads it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from scanlearn.catalog.bids import catalog_of_bids, is_bids, is_bids_table
from scanlearn.catalog.columns import TABLE_SUFFIXES, assign_roles, is_saved_catalog, is_table, read_names
from scanlearn.catalog.dataset_json import read_dataset_json
from scanlearn.catalog.decathlon import catalog_of_datalist, is_datalist
from scanlearn.catalog.files import is_dicom, is_zarr, suffix_of
from scanlearn.catalog.folder import catalog_of_files
from scanlearn.catalog.layouts.known import NONE, catalog_of_layout, recognise
from scanlearn.catalog.listing import list_folder
from scanlearn.catalog.nnunet import catalog_of_nnunet, is_nnunet
from scanlearn.catalog.patients import FOLDER, is_column
from scanlearn.catalog.table import Catalog
from scanlearn.catalog.tabular import Asked, catalog_of_table
from scanlearn.console import say
from scanlearn.errors import ScanlearnError


def catalog_of(
    source: Path,
    *,
    patient: str | None = None,
    mask: str | None = None,
    image: str | None = None,
    layout: str | None = None,
    split: str | None = None,
) -> Catalog:
    """``Catalog.from_source``: a known data set, else what holds a list of scans, any other folder is listed."""
    source = source.expanduser().absolute()
    asked = Asked(image, patient, mask)
    if not source.exists():
        raise ScanlearnError(f"There is no file or folder {source}; give a folder of scans or a table of file names.")
    known = _known(source, asked, layout, split)
    if known is not None:
        return known
    if source.is_dir() and not is_zarr(source):
        return _of_folder(source, asked)
    if source.is_file() and is_table(source):
        return _of_table(source, asked, own=True)
    if source.is_file() and source.suffix.lower() == ".json":
        found = _of_json(source, asked)
        if found is None:
            raise ScanlearnError(
                f'{source} lists no scans: it has no "training", "validation" or "test" and no "file_ending" of nnU-Net.'
            )
        return found
    if (source / "store.json").is_file():
        raise ScanlearnError(f"{source} is a store already; pre-train or fine-tune on it.")
    _refuse_columns(source, asked)
    if not suffix_of(source.name) and not is_dicom(source):
        raise ScanlearnError(f"{source} is neither a scan nor a table (tables end in {', '.join(TABLE_SUFFIXES)}).")
    return catalog_of_files(source.parent, [source.name], None if patient == FOLDER else patient)


def _known(source: Path, asked: Asked, layout: str | None, split: str | None) -> Catalog | None:
    """The catalogue of a public data set that has a layout, asked for by name or recognised; None for all others."""
    if layout not in (None, NONE):
        if asked != Asked():
            raise ScanlearnError(
                f"The layout {layout!r} knows patients, masks and images; leave out --patient and --mask."
            )
        return catalog_of_layout(source, str(layout), split)
    looked_at = layout is None and asked == Asked() and source.is_dir() and not is_zarr(source)
    found = recognise(source) if looked_at else None
    if found is not None:
        return catalog_of_layout(source, found, split)
    if split not in (None, NONE):
        raise ScanlearnError(f"--split {split} names a split of a known data set, and {source} is read as none.")
    return None


def _of_folder(folder: Path, asked: Asked) -> Catalog:
    """A folder's own table wins over its dataset.json, and that over the names of its files."""
    table = _table_within(folder, asked.image)
    if table is not None:
        return _of_table(table, asked, own=False)
    if (folder / "dataset.json").is_file():
        found = _of_json(folder / "dataset.json", asked)
        if found is not None:
            return found
        say("dataset.json lists no scans, so the folder is taken as it is.")
    _refuse_columns(folder, asked)
    listing = list_folder(folder)
    bids = is_bids(listing.images)
    if bids and (folder / "participants.tsv").is_file():
        listing.others -= Counter({".tsv": 1})  # its columns become labels
    listing.tell()
    if bids:
        _refuse_folder(folder, "BIDS names the patients (sub-01/)", asked)
        return catalog_of_bids(folder, listing.images, asked.patient)
    return catalog_of_files(folder, listing.images, asked.patient)


def _of_table(table: Path, asked: Asked, own: bool) -> Catalog:
    if not is_saved_catalog(table):
        return catalog_of_table(table, asked, own)
    if asked != Asked():
        raise ScanlearnError(f"{table} is a saved catalogue; leave out patient, mask and image.")
    return Catalog.load(table)


def _of_json(path: Path, asked: Asked) -> Catalog | None:
    """The scans that a JSON file lists or describes, None if it is about something else."""
    content = read_dataset_json(path)
    if is_nnunet(content):  # one converted from the Decathlon may still hold its list
        _refuse_columns(path, asked)
        _refuse_folder(path, "an nnU-Net data set has no folders of patients", asked)
        return catalog_of_nnunet(path, content, asked.patient)
    return catalog_of_datalist(path, content, asked) if is_datalist(content) else None


def _refuse_columns(source: Path, asked: Asked) -> None:
    patient = asked.patient if is_column(asked.patient) else None
    for option, name in (("image", asked.image), ("mask", asked.mask), ("patient", patient)):
        if name is not None:
            raise ScanlearnError(
                f"{option}={name!r} names a column, but {source} holds no table of file names; "
                "leave it out or give the table itself."
            )


def _refuse_folder(source: Path, why: str, asked: Asked) -> None:
    if asked.patient == FOLDER:
        raise ScanlearnError(f'patient="folder" does not fit {source}: {why}; leave it out, or give a pattern.')


def _table_within(folder: Path, image: str | None) -> Path | None:
    """The one table of file names directly in a folder, if there is one; what is taken or left aside is said."""
    try:
        inside = sorted(path for path in folder.iterdir() if is_table(path) and not path.name.startswith("."))
    except OSError as error:
        raise ScanlearnError(f"The folder {folder} cannot be read ({error.strerror}).") from error
    usable = []
    for path in inside:
        if not path.is_file() or is_bids_table(path.name):
            continue
        names = read_names(path)
        if is_saved_catalog(path) or "image" in assign_roles(names, {}) or image in names:
            usable.append(path)
        else:
            say(f"{path.name} has no column of file names, so it is not used.")
    if len(usable) > 1:
        listed = ", ".join(path.name for path in usable)
        raise ScanlearnError(f"{folder} holds several tables of scans ({listed}); give the path of the one to use.")
    if usable:
        say(f"Using the table {usable[0].name} in {folder}.")
    return usable[0] if usable else None
