"""From files to a store: ``prepare(source, out)``."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np

from scanlearn.catalog.boxes import with_boxes
from scanlearn.catalog.origin import origin_of
from scanlearn.catalog.pseudonyms import IDENTIFIERS
from scanlearn.catalog.table import Catalog
from scanlearn.console import say, track
from scanlearn.errors import ScanlearnError, unknown
from scanlearn.scans import intensity
from scanlearn.scans.build import Plan, Source, build, content_key
from scanlearn.scans.formats.limits import byte_limit
from scanlearn.scans.geometry import FITS
from scanlearn.scans.given_split import in_split
from scanlearn.scans.part import hold, look_after
from scanlearn.scans.rows import (
    SCAN_SECONDS,
    Header,
    choose_grid,
    digests,
    processes,
    read_headers,
)
from scanlearn.scans.slices import Slicing
from scanlearn.scans.sources import FileSource, source_of, union_of
from scanlearn.scans.store import Store, open_store
from scanlearn.scans.survey import Survey, survey


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
    window: str | Sequence[float] | Mapping[str, Any] | None = None,
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
            ``intensity.window_for``. With several sources also one of these for each data set by its name in the column
            ``dataset``; those that are not named take the default.
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
    settings: dict[str, Any] = {
        "window": intensity.check_windows(window),
        "fit": fit,
        "target": target,
        "seed": int(seed),
    }
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
    if isinstance(settings["window"], dict):
        settings["window"] = intensity.for_all(settings["window"], reader.catalog.words("dataset").to_pylist())
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
        build(part, Plan(reader, grid, settings, workers, max_scan_seconds, strict, slicing, most))
    return open_store(out)


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
