"""A store that grows in its hidden folder, from where a former try left off, until it is moved into its place."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

from scanlearn import __version__
from scanlearn.catalog.pseudonyms import list_path, pseudonymise, stored_names, write_list
from scanlearn.catalog.table import Catalog
from scanlearn.console import say, track, warn
from scanlearn.errors import FileError, Interrupted
from scanlearn.files import size as in_units
from scanlearn.scans.conform import Conformed, Grid
from scanlearn.scans.fingerprints import keep_looks
from scanlearn.scans.finish import finish
from scanlearn.scans.journal import Journal
from scanlearn.scans.part import Part
from scanlearn.scans.rows import conformed_rows, left_out
from scanlearn.scans.slices import Slicing, catalog_of_slices
from scanlearn.scans.sources import ArraySource, FileSource
from scanlearn.scans.store import VERSION, open_store
from scanlearn.scans.survey import bytes_below
from scanlearn.scans.writers import CannotWrite, SliceWriter, VolumeWriter, writing

Source = FileSource | ArraySource


@dataclass(frozen=True)
class Plan:
    """What is to be written, and how."""

    reader: Source
    grid: Grid
    settings: dict[str, Any]
    workers: int
    seconds: float
    strict: bool
    slicing: Slicing | None
    most: int  # scans, or slices, that there can be


def build(part: Part, plan: Plan) -> None:
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


def content_key(catalog: Catalog, settings: dict[str, Any], digests: Sequence[tuple[str, str]]) -> str:
    """sha256 over everything the store depends on: the settings, the files' contents and the catalogue's cells.

    Where the files lie does not matter.
    """
    whole = hashlib.sha256(json.dumps({"version": VERSION, **settings}, sort_keys=True).encode())
    names = [n for n in catalog.table.column_names if n not in ("paths", "mask_path", "sha256")]
    whole.update(json.dumps([names, *(catalog.column(n) for n in names), *digests]).encode())
    return whole.hexdigest()


def _write_scans(part: Part, plan: Plan, journal: Journal, stored: list[str], sizes: list[int]) -> None:
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


def _refuse(item: Conformed, plan: Plan, name: str) -> None:
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
