"""From files to a store: ``prepare(source, out)``."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from scanlearn.catalog.table import Catalog
from scanlearn.console import say, track
from scanlearn.errors import ScanlearnError, unknown
from scanlearn.scans.conform import Conformed, Grid, conform
from scanlearn.scans.finish import finish
from scanlearn.scans.geometry import FITS
from scanlearn.scans.intensity import check_window
from scanlearn.scans.sources import ArraySource, FileSource, source_of
from scanlearn.scans.store import VERSION, Store, open_store
from scanlearn.scans.writers import SliceWriter, VolumeWriter

T = TypeVar("T")
R = TypeVar("R")

DEFAULT_2D_SIZE = (256, 256)


def prepare(
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
    seed: int = 0,
    workers: int | None = None,
    overwrite: bool = False,
) -> Store:
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
        seed: of the splits and of the foreground voxels.
        workers: threads; default one for each processor.
        overwrite: replace a store of another content.

    Files that cannot be used are left out, counted, and listed with the reason in ``store.json``. An existing store of
    the same files and settings is opened as it is. Raises ScanlearnError if no scan is usable, if ``out`` holds
    something else, or for settings that do not fit.
    """
    out = Path(out).absolute()
    if fit not in FITS:
        raise unknown("fit", fit, FITS)
    settings: dict[str, Any] = {"window": check_window(window), "fit": fit, "target": target, "seed": int(seed)}
    reader = source_of(source, patient=patient, mask=mask, image=image)
    if target is not None:
        reader.catalog.labels(target)  # an unknown column is refused before the work, not after it
    workers = workers or os.cpu_count() or 1
    grid = _choose_grid(reader, size, spacing, fit, settings["window"], workers)
    settings |= {"size": grid.size, "spacing": grid.spacing, "spatial_dims": grid.dims}
    if out.exists() and _reusable(reader, out, settings, workers, overwrite):
        say(f"{out} already holds these {len(reader.catalog)} scans with these settings; nothing to do.")
        return open_store(out)
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        items = _write_scans(reader, part, grid, settings["seed"], workers)
        key = content_key(reader.catalog, settings, [(i.digest, i.mask_digest) for i in items])
        finish(part, reader, items, settings, {"version": VERSION, "key": key})
        _move_in(part, out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return open_store(out)


def content_key(catalog: Catalog, settings: dict[str, Any], digests: Sequence[tuple[str, str]]) -> str:
    """sha256 over everything the store depends on: the settings, the files' contents and the catalogue's cells.

    Where the files lie does not matter.
    """
    whole = hashlib.sha256(json.dumps({"version": VERSION, **settings}, sort_keys=True).encode())
    names = [n for n in catalog.table.column_names if n not in ("paths", "mask_path", "sha256")]
    whole.update(json.dumps([names, *(catalog.column(n) for n in names), *digests]).encode())
    return whole.hexdigest()


def _choose_grid(
    reader: FileSource | ArraySource, size: Any, spacing: Any, fit: str, window: Any, workers: int
) -> Grid:
    """2D or 3D, by what most files are; and the size of 2D scans."""
    found = Counter(shape for shape in _in_order(lambda row: _shape(reader, row), range(len(reader.catalog)), workers))
    found.pop((), None)
    by_dims = Counter(len(shape) for shape in found.elements())
    dims = 3 if by_dims[3] >= by_dims[2] and by_dims[3] else 2
    size = _per_axis("size", size, dims, int)
    spacing = _per_axis("spacing", spacing, dims, float)
    if size and spacing:
        raise ScanlearnError("Give either a size or a spacing; each of them fixes the other.")
    if spacing and dims == 2:
        raise ScanlearnError("A spacing is for 3D scans; give 2D scans a size (rows, columns).")
    if dims == 2 and size is None:
        same = [shape for shape in found if len(shape) == 2]
        size = same[0] if len(same) == 1 else DEFAULT_2D_SIZE
    return Grid(dims, size, spacing, fit, window)


def _per_axis(name: str, value: Any, dims: int, kind: type) -> Any:
    if value is None:
        return None
    numbers = tuple(kind(v) for v in (value if isinstance(value, Sequence) else (value,)))
    numbers = numbers * dims if len(numbers) == 1 else numbers
    if len(numbers) != dims or min(numbers) <= 0:
        raise ScanlearnError(f"The {name} {value} must be {dims} numbers above 0 for these {dims}D scans, or one.")
    return numbers


def _shape(reader: FileSource | ArraySource, row: int) -> tuple[int, ...]:
    try:
        return reader.shape(row)
    except ScanlearnError:
        return ()  # the scan itself will say what is wrong


def _reusable(
    reader: FileSource | ArraySource, out: Path, settings: dict[str, Any], workers: int, overwrite: bool
) -> bool:
    """True if ``out`` already is the store wanted; False if it may be written; an error where it must not be."""
    if not (out / "store.json").is_file():
        if out.is_dir() and not any(out.iterdir()):
            return False
        raise ScanlearnError(f"{out} exists and is no store; choose another place.")
    digest = lambda row: (reader.digest(row), reader.mask_digest(row))  # noqa: E731
    rows = range(len(reader.catalog))
    digests = list(track(_in_order(digest, rows, workers), len(rows), "compare"))
    key = json.loads((out / "store.json").read_text()).get("key")
    if key == content_key(reader.catalog, settings, digests):
        return True
    if not overwrite:
        raise ScanlearnError(
            f"{out} holds a store of other scans or settings; choose another place or say overwrite to replace it."
        )
    return False


def _write_scans(reader: FileSource | ArraySource, part: Path, grid: Grid, seed: int, workers: int) -> list[Conformed]:
    """Conform all scans and write their arrays under ``part``; what is returned no longer holds voxels."""
    catalog, count = reader.catalog, len(reader.catalog)
    names, modalities = catalog.column("scan_id"), catalog.column("modality")
    writer = VolumeWriter(part, names) if grid.dims == 3 else SliceWriter(part, names)

    def one(row: int) -> Conformed:
        item = conform(reader, row, grid, modalities[row], seed, names[row])
        writer.at_once(item)
        return item

    items: list[Conformed] = []
    channels = 0
    for item in track(_in_order(one, range(count), workers), count, "prepare"):
        if not item.reason:
            found = item.array.shape[0]
            channels = channels or found
            if found != channels:
                item.reason = f"{reader.file(item.row)} has {found} channels, the scans before it {channels}."
        writer.in_turn(item)
        items.append(item)
    writer.close()
    return items


def _in_order(function: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """Results in the order of the items, computed by threads, never many more at a time than there are threads."""
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _move_in(part: Path, out: Path) -> None:
    """Put the finished folder in its place; an old store goes only when the new one is whole."""
    old = out.with_name(f".{out.name}.{os.getpid()}.old")
    if out.exists():
        out.rename(old)
    part.rename(out)
    shutil.rmtree(old, ignore_errors=True)
