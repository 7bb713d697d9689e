"""Where ``prepare`` takes scans from: the files of a catalogue, or the arrays of one .npz file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scanlearn.catalog.mask_cells import RunLengths, parsed
from scanlearn.catalog.origin import origin_of
from scanlearn.catalog.table import Catalog
from scanlearn.catalog.union import union
from scanlearn.errors import ScanlearnError
from scanlearn.scans import run_lengths
from scanlearn.scans.array_source import ArraySource
from scanlearn.scans.digests import digest_of, state_of
from scanlearn.scans.read import Scan, files_of, read_header, read_mask, read_scan

__all__ = ["ArraySource", "FileRows", "FileSource", "source_of", "union_of"]


class FileRows:
    """The files of some scans by their row: all that a process needs in order to read them."""

    def __init__(
        self,
        paths: Mapping[int, list[str]],
        masks: Mapping[int, str],
        limit_bytes: int | None = None,
        origin: Mapping[str, Any] | None = None,
        datasets: Mapping[int, str] | None = None,
    ):
        self._paths, self._masks, self._datasets = paths, masks, datasets or {}
        self.limit_bytes = limit_bytes
        self._origin = dict(origin or {})  # see catalog.origin

    def shape(self, row: int) -> tuple[int, ...]:
        """The spatial shape, from the file's header."""
        return tuple(int(n) for n in read_header(self._paths[row], limit_bytes=self.limit_bytes))

    def read(self, row: int) -> Scan:
        """The scan, in Hounsfield units where its data set stores them with an offset."""
        scan = read_scan(self._paths[row], limit_bytes=self.limit_bytes)
        offset = self._origin_of(row).get("value_offset", 0)
        if offset:
            scan.array = scan.array.astype(np.float32 if scan.array.dtype.kind == "f" else np.int32) + offset
        return scan

    def mask(self, row: int) -> Scan | None:
        """Its mask, or None."""
        if not self._masks[row]:
            return None
        mask = read_mask(self._masks[row], limit_bytes=self.limit_bytes)
        mask.located = mask.located and not self._origin_of(row).get("masks_on_image", False)
        return mask

    def _origin_of(self, row: int) -> Mapping[str, Any]:
        """What is known of the data set of a scan, where there are several (catalog.union) or one."""
        several: Mapping[str, Any] | None = self._origin.get("datasets")
        return self._origin if several is None else several[self._datasets[row]]

    def digest(self, row: int) -> str:
        """sha256 of the file; for a series, of the digests of its files in their order."""
        return digest_of(self._paths[row])

    def mask_digest(self, row: int) -> str:
        """sha256 of the mask's file or of its run lengths, "" without one."""
        cell = parsed(self._masks[row])
        if isinstance(cell, RunLengths):
            return run_lengths.digest(cell.table, cell.name)
        return digest_of([self._masks[row]]) if self._masks[row] else ""

    def file(self, row: int) -> str:
        """The name by which a person finds the scan."""
        return str(self._paths[row][0])

    def files(self, row: int) -> list[str]:
        """Every path of the scan and of its mask."""
        mask = self._masks[row]
        masks = [mask] if mask and parsed(mask) is None else map(str, files_of(mask)) if mask else ()
        return [*self._paths[row], *masks]

    def state(self, row: int) -> list[tuple[int, int]]:
        """(bytes, time of the last change in ns) of every file; (-1, 0) for one that is not there."""
        return [state_of(file) for path in self.files(row) for file in files_of(path)]

    def scan_files(self, row: int) -> list[Path]:
        """Every file of the scan, without its mask."""
        return [file for path in self._paths[row] for file in files_of(path)]


class FileSource(FileRows):
    """Scans in files, as the catalogue lists them."""

    def __init__(self, catalog: Catalog, limit_bytes: int | None = None):
        origin = origin_of(catalog.table)
        cells = (_Cells(catalog, "paths"), _Cells(catalog, "mask_path"), limit_bytes)
        super().__init__(*cells, origin, _Cells(catalog, "dataset") if "datasets" in origin else None)
        self.catalog = catalog

    def only(self, rows: Sequence[int]) -> FileRows:
        """The files of these rows, small enough to be sent to another process."""
        paths, masks = {r: self._paths[r] for r in rows}, {r: self._masks[r] for r in rows}
        datasets = {r: self._datasets[r] for r in rows} if self._datasets else None
        return FileRows(paths, masks, self.limit_bytes, self._origin, datasets)


class _Cells(Mapping[int, Any]):
    """One column of a catalogue by row; a million rows stay in Arrow and are not made into Python objects."""

    def __init__(self, catalog: Catalog, name: str):
        self._array = catalog.array(name)

    def __getitem__(self, row: int) -> Any:
        return self._array[row].as_py()

    def __len__(self) -> int:
        return len(self._array)

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self)))


def source_of(
    source: str | Path | Catalog,
    *,
    patient: str | None = None,
    mask: str | None = None,
    image: str | None = None,
    layout: str | None = None,
    split: str | None = None,
    limit_bytes: int | None = None,
) -> FileSource | ArraySource:
    """Open what a person names: a catalogue, a folder, a table of files, or an .npz file.

    ``limit_bytes``: scans in files that are larger once decoded are refused; None: the readers' own limit.
    """
    if isinstance(source, Catalog):
        return FileSource(source, limit_bytes)
    path = Path(source).absolute()
    named = {"patient": patient, "mask": mask, "image": image, "layout": layout, "split": split}
    if path.suffix.lower() == ".npz" and path.is_file():
        return ArraySource(path, **named)
    inside = sorted(path.glob("*.npz")) if path.is_dir() else []
    if len(inside) == 1 and not any(p.is_dir() for p in path.iterdir()):
        return ArraySource(inside[0], **named)
    return FileSource(Catalog.from_source(path, **named), limit_bytes)


def union_of(first: FileSource | ArraySource, also: Sequence[str | Path | Catalog], seed: int) -> FileSource:
    """``first`` and the scans of other sources, see ``catalog.union``."""
    readers = [first, *(source_of(source) for source in also)]
    if not all(isinstance(reader, FileSource) for reader in readers):
        raise ScanlearnError("An .npz of arrays cannot be prepared together with other sources: prepare it apart.")
    return FileSource(union([reader.catalog for reader in readers], seed=seed), first.limit_bytes)  # type: ignore[union-attr]
