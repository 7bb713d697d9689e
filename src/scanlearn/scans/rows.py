"""The scans of a source on their way through the processes: headers first, then whole."""

from __future__ import annotations

import os
import re
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from scanlearn.errors import ScanlearnError
from scanlearn.scans.conform import Conformed, Grid, conform, reason_of
from scanlearn.scans.slices import Slicing, conform_slices, flat_shape
from scanlearn.scans.sources import ArraySource, FileRows, FileSource
from scanlearn.scans.workers import Lost, run_in_order
from scanlearn.scans.writers import CannotWrite, write_apart

# Small files travel together, as handing over a task costs as much as reading one of them.
GROUP_ROWS = 16
GROUP_BYTES = 4 << 20
HEADER_ROWS = 64
DEFAULT_2D_SIZE = (256, 256)
# Reading one scan takes no longer, however large it is; a file that does is left out.
SCAN_SECONDS = 600.0


@dataclass(frozen=True)
class Header:
    """What the header of a scan says: its spatial shape, or () and the ``reason`` why it cannot be read."""

    shape: tuple[int, ...]
    reason: str = ""


@dataclass(frozen=True)
class _Task:
    row: int
    source: FileRows | ArraySource
    modality: str
    name: str
    dataset: str = ""


def processes(reader: FileSource | ArraySource, workers: int | None) -> int:
    """How many processes read: as many as there are processors, none for arrays that are in memory already."""
    if workers is not None and workers < 0:
        raise ScanlearnError(f"There cannot be {workers} workers; give 0 to read in this process, or more.")
    if isinstance(reader, ArraySource):
        return 0
    if workers is None:
        from loky import cpu_count

        return int(cpu_count())
    return workers


def read_headers(
    reader: FileSource | ArraySource, workers: int, seconds: float = SCAN_SECONDS
) -> Iterator[tuple[int, Header]]:
    """(row, header) of every scan, in order."""
    count = len(reader.catalog)
    groups = (range(start, min(start + HEADER_ROWS, count)) for start in range(0, count, HEADER_ROWS))
    tasks = ([_Task(row, _alone(reader, row), "", "") for row in group] for group in groups)
    for row, found in enumerate(run_in_order(_header, tasks, workers, seconds=seconds)):
        yield row, Header((), found.reason) if isinstance(found, Lost) else found


def choose_grid(
    headers: Counter[Header], size: Any, spacing: Any, fit: str, window: Any, slicing: Slicing | None = None
) -> Grid:
    """2D or 3D, by what most files are; and the size of 2D scans, or of slices."""
    by_dims: Counter[int] = Counter()
    for header, times in headers.items():
        by_dims[len(header.shape)] += times
    dims = 3 if by_dims[3] >= by_dims[2] and by_dims[3] else 2
    if slicing is not None:
        dims = 2
        headers = Counter({Header(flat_shape(header.shape, slicing)): 1 for header in headers if header.shape})
    size = _per_axis("size", size, dims, int)
    spacing = _per_axis("spacing", spacing, dims, float)
    if size and spacing:
        raise ScanlearnError("Give either a size or a spacing; each of them fixes the other.")
    if spacing and dims == 2:
        raise ScanlearnError("A spacing is for 3D scans; give 2D scans a size (rows, columns).")
    if dims == 2 and size is None:
        same = {header.shape for header in headers if len(header.shape) == 2}
        size = same.pop() if len(same) == 1 else DEFAULT_2D_SIZE
    return Grid(dims, size, spacing, fit, window)


def _per_axis(name: str, value: Any, dims: int, kind: type) -> Any:
    if value is None:
        return None
    numbers = tuple(kind(v) for v in (value if isinstance(value, Sequence) else (value,)))
    numbers = numbers * dims if len(numbers) == 1 else numbers
    if len(numbers) != dims or min(numbers) <= 0:
        raise ScanlearnError(f"The {name} {value} must be {dims} numbers above 0 for these {dims}D scans, or one.")
    return numbers


def conformed_rows(
    reader: FileSource | ArraySource,
    rows: Sequence[int],
    grid: Grid,
    seed: int,
    workers: int,
    *,
    apart: Path | None,
    sizes: Sequence[int] | None = None,
    seconds: float = SCAN_SECONDS,
    slicing: Slicing | None = None,
) -> Generator[Conformed, None, None]:
    """The scans of ``rows`` in that order, read, checked and laid on the grid by processes; or their slices.

    apart: 3D: the folder where arrays are written, so that what is returned holds none; None returns them. sizes: bytes
    of the files of each row of the reader; without them every scan travels alone. slicing: 2D; the slices of a volume
    are made by one process, and one volume for each process is under way.
    """
    words = [reader.catalog.array(name) for name in ("modality", "scan_id", "dataset")]
    task = lambda r: _Task(r, _alone(reader, r), *(column[r].as_py() for column in words))  # noqa: E731
    groups = ([row] for row in rows) if sizes is None else _groups(rows, sizes)
    tasks = ([task(row) for row in group] for group in groups)
    function: Callable[[_Task], Conformed | CannotWrite | list[Conformed]]
    function = partial(_conform, grid=grid, seed=seed, apart=apart)
    if slicing is not None:
        function = partial(_slices, grid=grid, seed=seed, slicing=slicing)
    ahead = 4 if slicing is None else 1
    for row, made in zip(rows, run_in_order(function, tasks, workers, seconds=seconds, ahead=ahead), strict=True):
        if isinstance(made, CannotWrite):
            raise made
        if isinstance(made, Lost):
            made = Conformed(row, reader.digest(row), reader.mask_digest(row), reader.file(row), made.reason)
        yield from made if isinstance(made, list) else [made]


def kinds(reasons: Iterable[str]) -> list[tuple[int, str]]:
    """(how many, reason) with the most frequent first; reasons that differ in their numbers only count as one."""
    found: dict[str, list[str]] = {}
    for reason in reasons:
        found.setdefault(general(reason), []).append(reason)
    counted = [(len(same), same[0] if len(set(same)) == 1 else kind) for kind, same in found.items()]
    return sorted(counted, key=lambda pair: -pair[0])


def general(sentence: str) -> str:
    """The sentence with N for every number."""
    return re.sub(r"\d[\d.,]*\d|\d", "N", sentence)


def left_out(reasons: Sequence[str], most: int = 12) -> str:
    """One line for each kind of reason, indented."""
    found = kinds(reasons)
    lines = [f"  {count} x {reason}" for count, reason in found[:most]]
    return "\n".join([*lines, *([f"  and {len(found) - most} other reasons"] if len(found) > most else [])])


def digests(reader: FileSource | ArraySource) -> Iterator[tuple[str, str]]:
    """(digest of the scan, of its mask) of every row in order; hashing leaves Python's lock, so threads do it."""
    digest = lambda row: (reader.digest(row), reader.mask_digest(row))  # noqa: E731
    threads = os.cpu_count() or 1
    waiting: deque[Future[tuple[str, str]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for row in range(len(reader.catalog)):
            waiting.append(pool.submit(digest, row))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _alone(reader: FileSource | ArraySource, row: int) -> FileRows | ArraySource:
    return reader.only([row]) if isinstance(reader, FileSource) else reader


def _groups(rows: Sequence[int], sizes: Sequence[int]) -> Iterator[list[int]]:
    group: list[int] = []
    weight = 0
    for row in rows:
        if group and (len(group) == GROUP_ROWS or weight + sizes[row] > GROUP_BYTES):
            yield group
            group, weight = [], 0
        group.append(row)
        weight += sizes[row]
    if group:
        yield group


def _header(task: _Task) -> Header:
    try:
        return Header(task.source.shape(task.row))
    except Exception as error:  # the scan itself will say what is wrong
        return Header((), reason_of(error, task.source.files(task.row)))


def _slices(task: _Task, *, grid: Grid, seed: int, slicing: Slicing) -> list[Conformed]:
    return conform_slices(task.source, task.row, slicing, grid.of_dataset(task.dataset), task.modality, seed, task.name)


def _conform(task: _Task, *, grid: Grid, seed: int, apart: Path | None) -> Conformed | CannotWrite:
    item = conform(task.source, task.row, grid.of_dataset(task.dataset), task.modality, seed, task.name)
    try:
        if apart is not None:
            write_apart(apart, item)
    except CannotWrite as error:
        return error  # raised when its turn comes, so that what was written before it counts
    return item
