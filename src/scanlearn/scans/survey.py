"""``prepare(..., dry_run=True)``: what a store would hold and how large it would be, from the headers of the files."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from scanlearn.catalog.identifiers import telling_columns
from scanlearn.catalog.table import Catalog
from scanlearn.files import size as in_units
from scanlearn.scans.conform import Conformed, Grid
from scanlearn.scans.digests import state_of
from scanlearn.scans.rows import Header, conformed_rows, left_out
from scanlearn.scans.slices import Slicing
from scanlearn.scans.sources import ArraySource, FileSource
from scanlearn.scans.writers import Stack

# Scans that are read whole, in order to see how well they compress.
SAMPLE = 8
# Of a label column with more classes only their number is shown.
SHOWN_CLASSES = 12
SHOWN_LETTERS = 24
_ENDS = 1 << 16


@dataclass(frozen=True)
class Survey:
    """What ``prepare`` would write.

    labels: for each label column how many scans each class has, {} for numbers; columns that lead to a person
    are not among them.
    shapes: (smallest, median, largest) by number of voxels. skipped: how many scans for each reason in a header; what
    only shows in the voxels (constant, NaN) is not among them. equal: scans whose files are equal to the last byte to
    those of another patient. bytes_needed: measured on ``sampled`` scans; bytes_free: of the disk of the store.
    """

    scans: int
    patients: int
    patients_known: bool
    masks: int
    spatial_dims: int
    shapes: tuple[tuple[int, ...], ...]
    size: tuple[int, ...] | None
    labels: dict[str, dict[str, int]]
    skipped: dict[str, int]
    equal: int
    sampled: int
    bytes_needed: int
    bytes_free: int
    slices: int | None = None  # about so many, where volumes are cut into them

    def __str__(self) -> str:
        known = "" if self.patients_known else " (not known: every scan counts as one)"
        lines = [
            f"{self.scans} scans of {self.patients} patients{known}, {self.spatial_dims}D, {self.masks} with masks"
            + ("" if self.slices is None else f", about {self.slices} slices")
        ]
        if self.shapes:
            low, middle, high = (" x ".join(map(str, shape)) for shape in self.shapes)
            shown = low if low == high else f"{low} to {high}, median {middle}"
            grid = "each on its own grid" if self.size is None else "brought to " + " x ".join(map(str, self.size))
            lines.append(f"shapes: {shown}; {grid}")
        lines += [f"label {name}: {_shown(counts)}" for name, counts in self.labels.items()]
        if self.equal:
            lines.append(f"equal to a scan of another patient: {self.equal}")
        if self.skipped:
            lines.append(f"left out by their headers, {sum(self.skipped.values())}:")
            lines.append(left_out([reason for reason, count in self.skipped.items() for _ in range(count)]))
        enough = "" if self.bytes_needed < self.bytes_free else ": TOO LITTLE"
        lines.append(
            f"size of the store: about {in_units(self.bytes_needed)} (measured on {self.sampled} scans); "
            f"{in_units(self.bytes_free)} are free{enough}"
        )
        return "\n".join([*lines, "Nothing was written."])


def survey(
    reader: FileSource | ArraySource,
    rows: np.ndarray,
    headers: Counter[Header],
    grid: Grid,
    out: Path,
    workers: int,
    slicing: Slicing | None = None,
) -> Survey:
    """Count what the catalogue and the headers say, and measure a few scans. Nothing is written beside ``out``.

    rows: of the scans whose headers let them be used; only these are counted. slicing: volumes are counted, and how many
    slices they give is told by the few that are measured.
    """
    catalog = reader.catalog.take(rows)
    dims = (grid.dims,) if slicing is None else (2, 3)
    usable = {header: times for header, times in headers.items() if len(header.shape) in dims}
    skipped: Counter[str] = Counter()
    for header, times in headers.items():
        if header not in usable:
            reason = header.reason or f"is {len(header.shape)}D among {grid.dims}D scans; prepare those apart."
            skipped[reason] += times
    sample = rows[_spread(len(rows))].tolist() if len(rows) else []
    voxels = sum(int(np.prod(header.shape)) * times for header, times in usable.items())
    sampled, needed, slices = _measure(reader, sample, grid, workers, len(rows), voxels, slicing)
    telling = telling_columns(catalog)
    masks = sum(path != "" for path in catalog.column("mask_path"))
    return Survey(
        scans=len(rows),
        patients=len(pc.unique(catalog.array("patient_id"))),
        patients_known=catalog.patients_known,
        masks=masks if isinstance(reader, FileSource) else len(catalog) * (reader.mask(0) is not None),
        spatial_dims=grid.dims,
        shapes=_shapes(usable),
        size=grid.size,
        labels={name: _classes(catalog, name) for name in catalog.label_columns if name not in telling},
        skipped=dict(skipped),
        equal=_equal(reader) if isinstance(reader, FileSource) else 0,
        sampled=sampled,
        bytes_needed=needed,
        bytes_free=shutil.disk_usage(_existing(out)).free,
        slices=slices,
    )


def bytes_below(folder: Path) -> int:
    """The size of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _spread(count: int) -> list[int]:
    return sorted({int(row) for row in np.linspace(0, count - 1, min(count, SAMPLE)).round()})


def _shapes(usable: dict[Header, int]) -> tuple[tuple[int, ...], ...]:
    ordered = sorted(usable, key=lambda header: (int(np.prod(header.shape)), header.shape))
    if not ordered:
        return ()
    ends = np.cumsum([usable[header] for header in ordered])
    middle = ordered[int(np.searchsorted(ends, (ends[-1] + 1) // 2))]
    return ordered[0].shape, middle.shape, ordered[-1].shape


def _shown(counts: dict[str, int]) -> str:
    if not counts:
        return "numbers"
    if len(counts) > SHOWN_CLASSES:
        return f"{len(counts)} classes"
    cut = (word if len(word) <= SHOWN_LETTERS else f"{word[:SHOWN_LETTERS]}..." for word in counts)
    return ", ".join(f"{word} {count}" for word, count in zip(cut, counts.values(), strict=True))


def _classes(catalog: Catalog, name: str) -> dict[str, int]:
    labels = catalog.labels(name)
    if not labels.classes:
        return {}
    _, classes = labels.shown()
    return dict(zip(labels.classes, np.bincount(classes, minlength=len(labels.classes)).tolist(), strict=True))


def _measure(
    reader: FileSource | ArraySource,
    rows: list[int],
    grid: Grid,
    workers: int,
    total: int,
    voxels: int,
    slicing: Slicing | None,
) -> tuple[int, int, int | None]:
    """(scans measured, bytes of the whole store, slices in it): a few scans are written into a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="scanlearn-") as name:
        folder = Path(name) / "store" / "apart"
        folder.mkdir(parents=True)
        apart = None if grid.dims == 2 else folder
        made = conformed_rows(reader, rows, grid, 0, workers, apart=apart, slicing=slicing)
        items = [item for item in made if not item.reason]
        if not items:
            return 0, 0, None if slicing is None else 0
        if apart is None:
            _write_flat(items, folder)
        measured = bytes_below(folder)
    if grid.dims == 2:
        scans = len({item.row for item in items})
        return scans, measured * total // scans, None if slicing is None else len(items) * total // scans
    seen = sum(int(np.prod(item.placement.source)) for item in items if item.placement is not None)
    return len(items), measured * voxels // seen, None


def _write_flat(items: list[Conformed], folder: Path) -> None:
    Stack(folder, "images", len(items), 0, False).write(0, np.stack([item.array for item in items]))
    masks = [item.mask for item in items if item.mask is not None]
    if masks:
        Stack(folder, "masks", len(masks), 0, False).write(0, np.stack(masks))


def _equal(reader: FileSource) -> int:
    """Scans whose files are equal to those of another patient's scan; only files alike in size and ends are read."""
    patients = reader.catalog.column("patient_id")
    groups = [list(range(len(patients)))]
    for trait in (_bytes, _ends, FileSource.digest):
        groups = [same for rows in groups for same in _alike(rows, partial(trait, reader))]
    return sum(len(rows) for rows in groups if len({patients[row] for row in rows}) > 1)


def _alike(rows: list[int], trait: Callable[[int], object]) -> list[list[int]]:
    groups: dict[object, list[int]] = defaultdict(list)
    for row in rows:
        groups[trait(row)].append(row)
    return [same for same in groups.values() if len(same) > 1]


def _bytes(reader: FileSource, row: int) -> tuple[int, ...]:
    return tuple(state_of(file)[0] for file in reader.scan_files(row))


def _ends(reader: FileSource, row: int) -> tuple[bytes, bytes]:
    files = reader.scan_files(row)
    try:
        with files[0].open("rb") as first, files[-1].open("rb") as last:
            last.seek(-min(_ENDS, files[-1].stat().st_size), os.SEEK_END)
            return first.read(_ENDS), last.read(_ENDS)
    except (OSError, IndexError):
        return b"", b""
