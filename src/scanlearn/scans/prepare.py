"""From files to a store: ``prepare(source, out)``."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np

from scanlearn import __version__
from scanlearn.catalog.boxes import with_boxes
from scanlearn.catalog.origin import origin_of
from scanlearn.catalog.pseudonyms import IDENTIFIERS, list_path, pseudonymise, stored_names, write_list
from scanlearn.catalog.table import Catalog
from scanlearn.console import say, track, warn
from scanlearn.errors import FileError, Interrupted, ScanlearnError, unknown
from scanlearn.files import size as in_units
from scanlearn.scans.conform import Conformed, Grid
from scanlearn.scans.fingerprints import keep_looks
from scanlearn.scans.finish import finish
from scanlearn.scans.formats.limits import byte_limit
from scanlearn.scans.geometry import FITS
from scanlearn.scans.given_split import in_split
from scanlearn.scans.intensity import check_window
from scanlearn.scans.journal import Journal
from scanlearn.scans.part import Part, hold, look_after
from scanlearn.scans.rows import (
    SCAN_SECONDS,
    Header,
    choose_grid,
    conformed_rows,
    digests,
    left_out,
    processes,
    read_headers,
)
from scanlearn.scans.slices import Slicing, catalog_of_slices
from scanlearn.scans.sources import ArraySource, FileSource, source_of, union_of
from scanlearn.scans.store import VERSION, Store, open_store
from scanlearn.scans.survey import Survey, bytes_below, survey
from scanlearn.scans.writers import CannotWrite, SliceWriter, VolumeWriter, writing

Source = FileSource | ArraySource


@overload
def prepare(source: str | Path | Catalog, out: str | Path, *, dry_run: Literal[True], **options: Any) -> Survey: ...


@overload
def prepare(source: str | Path | Catalog, out: str | Path, **options: Any) -> Store: ...


def prepare(  # type: ignore[misc]  # the options of both overloads are these
    source: str | Path | Catalog,
    out: str | Path,
    *,
    size: int | Sequence[int] | None = None,
    spacing: float | Sequence[float] | None = None,
    window: str | Sequence[float] | None = None,
    fit: str = "pad",
    target: str | None = None,
    patient: str | None = None,
    mask: str | None = None,
    image: str | None = None,
    layout: str | None = None,
    split: str | None = None,
    boxes: str | Path | None = None,
    also: Sequence[str | Path | Catalog] = (),
    slices: str | Slicing | None = None,
    seed: int = 0,
    workers: int | None = None,
    overwrite: bool = False,
    strict: bool = False,
    dry_run: bool = False,
    identifiers: str = "hashed",
    max_scan_bytes: int | None = None,
    max_scan_seconds: float = SCAN_SECONDS,
) -> Store | Survey:
    """Read every scan of ``source`` once and write the store ``out``.

    Args:
        source: a folder, a CSV or Parquet table of files, an .npz file of arrays, or a Catalog.
        size: voxels per axis of the store, (rows, columns) in 2D. Default: 2D keeps the size that all images share,
            else 256 x 256; 3D keeps each scan's own grid.
        spacing: mm per axis to resample 3D scans to.
        window: a name of ``intensity.WINDOWS``, "percentiles", "extremes", or (low, high); default see
            ``intensity.window_for``.
        fit: "pad" keeps the aspect ratio, "stretch" does not.
        target: label column whose classes are spread evenly over the splits.
        patient, mask, image: names of columns (or arrays of an .npz), where they are not the usual ones.
        layout: the public data set that the folder holds, by name, where it is not to be recognised; "none" for a plain
            folder.
        split: a published split of that data set, by name; "none" for a random one; or a file (.json) that
            ``scanlearn catalog split`` wrote here or elsewhere: scans that it does not name are left out.
        boxes: table of boxes around findings in pixels of the image files, a row for each; see ``catalog.boxes``.
        also: other sources for the same store, each a data set of its own in the column ``dataset`` (``catalog.union``);
            patient, mask, image, layout, split and boxes are about the first.
        slices: take volumes apart into a 2D store: "axial", "coronal", "sagittal", or a ``Slicing`` that says more.
        seed: of the splits and of the foreground voxels.
        workers: processes that read; default one for each processor. 0 reads in this process, which then dies with a
            file that crashes its decoder.
        overwrite: replace a store of another content.
        strict: stop at the first scan that cannot be used instead of leaving it out.
        dry_run: write nothing; return a ``Survey`` of what would be written.
        identifiers: "hashed" puts pseudonyms of scans and patients into the store, "kept" their names.
        max_scan_bytes: scans that are larger once decoded are left out; default 4 GiB or SCANLEARN_MAX_SCAN_BYTES.
        max_scan_seconds: scans that take longer to read are left out (needs workers).

    Files that cannot be used are left out, counted by reason, and listed in ``store.json``. An existing store of the
    same files and settings is opened as it is. What was interrupted, by a kill too, goes on where it was when the same
    call is made again. Raises ScanlearnError if no scan is usable, if ``out`` holds something else or is being written
    by another process, if the disk is full, or for settings that do not fit.
    """
    out = Path(out).absolute()
    for name, value, known in (("fit", fit, FITS), ("treatment of identifiers", identifiers, IDENTIFIERS)):
        if value not in known:
            raise unknown(name, value, known)
    settings: dict[str, Any] = {"window": check_window(window), "fit": fit, "target": target, "seed": int(seed)}
    settings |= {"identifiers": identifiers, "max_scan_bytes": byte_limit(max_scan_bytes)}
    if not dry_run:
        look_after(out, keep=True)
    slicing = Slicing(slices) if isinstance(slices, str) else slices
    if slicing is not None:
        settings["slices"] = slicing.settings()
    limit = settings["max_scan_bytes"]
    file = split if split is not None and split.endswith(".json") else None
    named = {"layout": layout, "split": split if file is None else "none"}
    reader = source_of(source, patient=patient, mask=mask, image=image, **named, limit_bytes=limit)
    if boxes is not None:
        if not isinstance(reader, FileSource):
            raise ScanlearnError(
                "A table of boxes names image files, and the source is one file of arrays: give a folder."
            )
        reader = FileSource(with_boxes(reader.catalog, boxes), limit)
    if also:
        reader = union_of(reader, also, settings["seed"])
    if file is not None:
        reader, settings["split_file"] = in_split(reader, file)
    if origin := origin_of(reader.catalog.table):
        settings["origin"] = origin
    if target is not None and (slicing is None or target != slicing.label):
        reader.catalog.labels(target)  # an unknown column is refused before the work, not after it
    workers = processes(reader, workers)
    count = len(reader.catalog)
    headers: Counter[Header] = Counter()
    dims = np.zeros(count, np.uint8)
    for row, header in track(read_headers(reader, workers, max_scan_seconds), count, "look"):
        headers[header] += 1
        dims[row] = len(header.shape)
    grid = choose_grid(headers, size, spacing, fit, settings["window"], slicing)
    settings |= {"size": grid.size, "spacing": grid.spacing, "spatial_dims": grid.dims}
    if dry_run:
        usable = dims == grid.dims if slicing is None else dims >= 2
        return survey(reader, np.flatnonzero(usable), headers, grid, out, workers, slicing)
    if out.exists() and _reusable(reader, out, settings, overwrite):
        say(f"{out} already holds these {count} scans with these settings; nothing to do.")
        look_after(out, keep=False)
        return open_store(out)
    most = count if slicing is None else sum(n * max(h.shape if len(h.shape) > 2 else (1,)) for h, n in headers.items())
    with hold(out) as part:
        _write(part, _Plan(reader, grid, settings, workers, max_scan_seconds, strict, slicing, most))
    return open_store(out)


def content_key(catalog: Catalog, settings: dict[str, Any], digests: Sequence[tuple[str, str]]) -> str:
    """sha256 over everything the store depends on: the settings, the files' contents and the catalogue's cells.

    Where the files lie does not matter.
    """
    whole = hashlib.sha256(json.dumps({"version": VERSION, **settings}, sort_keys=True).encode())
    names = [n for n in catalog.table.column_names if n not in ("paths", "mask_path", "sha256")]
    whole.update(json.dumps([names, *(catalog.column(n) for n in names), *digests]).encode())
    return whole.hexdigest()


def _reusable(reader: Source, out: Path, settings: dict[str, Any], overwrite: bool) -> bool:
    """True if ``out`` already is the store wanted; False if it may be written; an error where it must not be."""
    if not (out / "store.json").is_file():
        if out.is_dir() and not any(out.iterdir()):
            return False
        raise ScanlearnError(f"{out} exists and is no store; choose another place.")
    found = list(track(digests(reader), len(reader.catalog), "compare"))
    key = json.loads((out / "store.json").read_text()).get("key")
    if key == content_key(reader.catalog, settings, found):
        return True
    if not overwrite:
        raise ScanlearnError(
            f"{out} holds a store of other scans or settings; choose another place or say overwrite to replace it."
        )
    return False


@dataclass(frozen=True)
class _Plan:
    """What is to be written, and how."""

    reader: Source
    grid: Grid
    settings: dict[str, Any]
    workers: int
    seconds: float
    strict: bool
    slicing: Slicing | None
    most: int  # scans, or slices, that there can be


def _write(part: Part, plan: _Plan) -> None:
    """Write the store into the hidden folder, from where a former try left off, and put it in its place."""
    reader, settings, count = plan.reader, plan.settings, len(plan.reader.catalog)
    stored = stored_names(reader.catalog, settings["identifiers"])
    states = [reader.state(row) for row in range(count)]
    with _explained(part, count), _journal(part, _journal_key(reader.catalog, settings, stored, states)) as journal:
        if journal.items:
            say(f"going on: {journal.whole} of {count} scans were already there.")
            for item in journal.items:
                item.file = reader.file(item.row)
        _write_scans(part, plan, journal, stored, [sum(bytes_ for bytes_, _ in state) for state in states])
        bad = [item.reason for item in journal.items if item.reason]
        part.keep = len(bad) < len(journal.items)  # where nothing can be used, nothing is worth keeping
        if bad:
            what = "scans" if plan.slicing is None else "scans and slices"
            warn(f"left out, {len(bad)} of {len(journal.items)} {what}:\n{left_out(bad)}")
        with writing(part.out.parent):
            digests = [(item.digest, item.mask_digest) for item in journal.items if not item.more]
            key = content_key(reader.catalog, settings, digests)
            head = {"version": VERSION, "key": key, "name": part.out.name}
            catalog, items = reader.catalog, journal.items
            if plan.slicing is not None:
                catalog, items = catalog_of_slices(catalog, items)
            finish(part.store, catalog, items, settings, head)
            keep_looks(open_store(part.store))
            part.move_in()


def _write_scans(part: Part, plan: _Plan, journal: Journal, stored: list[str], sizes: list[int]) -> None:
    """Conform the scans that the journal lacks and write their arrays; they have the names ``stored``."""
    disk, flat = part.out.parent, plan.grid.dims == 2
    with writing(disk):
        part.apart.mkdir()
        part.store.mkdir(exist_ok=True)
        writer: SliceWriter | VolumeWriter
        if flat:
            writer = SliceWriter(part.store, plan.most, journal)
        else:
            writer = VolumeWriter(part.store, part.apart, stored, journal)
    channels = next((item.array.shape[0] for item in journal.items if not item.reason), 0)
    for item in journal.items if plan.strict else ():
        _refuse(item, plan, part.out.name)
    rows = range(journal.whole, len(stored))
    begun = [item for item in journal.items[-1:] if item.more]  # a volume of which slices are lacking
    skip = sum(item.row == begun[0].row for item in journal.items) if begun else 0
    # Volumes travel alone: a group of them would fill the disk before the first of it counts as done.
    way: dict[str, Any] = {"apart": None, "sizes": sizes} if flat and plan.slicing is None else {"apart": None}
    way |= {"seconds": plan.seconds, "slicing": plan.slicing} | ({} if flat else {"apart": part.apart})
    made = conformed_rows(plan.reader, rows, plan.grid, plan.settings["seed"], plan.workers, **way)
    try:
        for item in islice(track(made, len(rows), "prepare", lambda item: not item.more), skip, None):
            if not item.reason:
                channels = channels or item.array.shape[0]
                if item.array.shape[0] != channels:
                    reason = f"has {item.array.shape[0]} channels, the scans before it {channels}."
                    said = Conformed(item.row, item.digest, item.mask_digest, item.file, reason)
                    said.slice, said.more = item.slice, item.more
                    item = said
            if plan.strict:
                _refuse(item, plan, part.out.name)
            with part.undisturbed(), writing(disk):
                writer.add(item)
    except (KeyboardInterrupt, FileError):
        writer.flush()
        raise
    finally:
        made.close()
    with writing(disk):
        writer.close()


def _refuse(item: Conformed, plan: _Plan, name: str) -> None:
    """Stop at a scan that cannot be used. Which file it is stands in the private list, unless names are kept.

    A slice that shows nothing is no fault of its file.
    """
    if not item.reason or item.slice is not None:
        return
    if plan.settings["identifiers"] == "kept":
        raise FileError(item.file, item.reason)
    hidden, private = pseudonymise(plan.reader.catalog.take([item.row]))
    path = list_path(name, "strict")
    write_list(path, private.set_column(private.schema.get_field_index("reason"), "reason", [[item.reason]]))
    raise FileError(hidden.column("scan_id")[0], f"{item.reason} Its file is listed in {path}, for your eyes.")


def _journal_key(
    catalog: Catalog, settings: dict[str, Any], stored: list[str], states: list[list[tuple[int, int]]]
) -> str:
    """sha256 over all that the rows depend on: settings, program, paths, and size and time of every file."""
    which = ("window", "fit", "seed", "size", "spacing", "spatial_dims", "max_scan_bytes", "slices", "origin")
    head = {"version": [VERSION, __version__], **{name: settings[name] for name in which if name in settings}}
    whole = hashlib.sha256(json.dumps(head, sort_keys=True).encode())
    columns = (catalog.array(name) for name in ("scan_id", "paths", "mask_path", "modality"))
    for cells in zip(stored, states, *columns, strict=True):
        whole.update(json.dumps([*cells[:2], *(cell.as_py() for cell in cells[2:])]).encode())
    return whole.hexdigest()


@contextmanager
def _journal(part: Part, key: str) -> Iterator[Journal]:
    """The journal of a former try with the same key, else a new one (and nothing of the former try is left)."""
    with writing(part.out.parent):
        if not part.store.is_dir():  # moved into its place, and removed there since
            part.journal.unlink(missing_ok=True)
        journal = Journal(part.journal, key)
        if journal.begun_anew:
            say(f"An unfinished {part.out.name} of other files or settings was there; beginning again.")
            part.clear()
    part.keep = True
    try:
        yield journal
    finally:
        part.kept = journal.whole
        journal.close()


@contextmanager
def _explained(part: Part, count: int) -> Iterator[None]:
    """Say how to go on where the writing stops."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise Interrupted(
            f"Stopped: {part.kept} of {count} scans are kept, and the same command goes on from there."
        ) from error
    except CannotWrite as error:
        if not error.full:
            raise
        room = "some room"
        if part.kept:
            room = in_units(bytes_below(part.store) // part.kept * (count - part.kept) + (1 << 20))
        raise CannotWrite(
            f"The disk of {part.out} is full: free {room} and run the same command again; "
            f"{part.kept} of {count} scans are kept."
        ) from error
