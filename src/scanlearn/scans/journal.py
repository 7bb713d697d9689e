"""The journal of a store that is being written: which rows are safely on disk, and what is known of each.

JSON lines in a file that only grows. The first line says for which files and settings it was begun; each other one was
written, and synced, when the voxels of its rows were on disk. A line that a kill cut off is dropped.
"""

from __future__ import annotations

import base64
import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scanlearn.scans.conform import Conformed
from scanlearn.scans.geometry import Placement

FORMAT = 2


class Journal:
    """Rows 0..n-1 that are done, in ``items`` (without voxels); ``generation`` is that of the 2D array they lie in.

    key: digest of everything the rows depend on. ``begun_anew`` is True where a journal of another key was dropped.
    """

    def __init__(self, path: Path, key: str):
        self.items: list[Conformed] = []
        self.generation = 0
        self._path = path
        head, lines, length = _whole_lines(path)
        same = head == {"format": FORMAT, "key": key}
        self.begun_anew = head is not None and not same
        self._file = path.open("r+b" if same else "wb", buffering=0)
        if same:
            self._file.truncate(length)
            self._file.seek(length)
            for line in lines:
                self._take(line)
        else:
            self._write({"format": FORMAT, "key": key})

    def append(self, items: Sequence[Conformed], generation: int = 0) -> None:
        """Note rows whose voxels are on disk; they are noted on disk themselves when this returns."""
        self._write({"generation": generation, "rows": [_record(item) for item in items]})
        self._keep(items)
        self.generation = generation

    @property
    def whole(self) -> int:
        """How many scans of the source are done; a volume of which slices are lacking is not."""
        return self.items[-1].row + (not self.items[-1].more) if self.items else 0

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, line: dict[str, Any]) -> None:
        rest = memoryview(json.dumps(line, separators=(",", ":")).encode() + b"\n")
        while rest:  # a disk that is almost full takes a part
            rest = rest[self._file.write(rest) :]
        os.fsync(self._file.fileno())

    def _take(self, line: dict[str, Any]) -> None:
        self.generation = line["generation"]
        self._keep([_item(record) for record in line["rows"]])

    def _keep(self, items: Sequence[Conformed]) -> None:
        """Neighbours are mostly alike: what equals that of the row before is held once."""
        for item in items:
            before = self.items[-1] if self.items else item
            if item.placement == before.placement:
                item.placement = before.placement
            if np.array_equal(item.affine, before.affine):
                item.affine = before.affine
            if not item.voxels and not before.voxels:
                item.voxels = before.voxels
            self.items.append(item)


def _whole_lines(path: Path) -> tuple[dict[str, Any] | None, list[dict[str, Any]], int]:
    """(first line, the others, bytes up to the end of the last whole one); (None, [], 0) without a journal."""
    if not path.is_file():
        return None, [], 0
    found: list[dict[str, Any]] = []
    length = 0
    with path.open("rb") as file:
        for line in file:
            try:
                value = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                value = None
            if not isinstance(value, dict):
                break
            found.append(value)
            length += len(line)
    return (found[0] if found else {}), found[1:], length


def _record(item: Conformed) -> dict[str, Any]:
    record: dict[str, Any] = {"row": item.row, "digests": [item.digest, item.mask_digest]}
    if item.slice is not None:
        record |= {"slice": [item.slice, item.more], "cells": item.cells}
    if item.reason:
        return record | {"reason": item.reason}
    assert item.placement is not None
    place = item.placement
    return record | {
        "array": [item.array.dtype.name, item.array.shape[0], item.array.ndim - 1],
        "masked": item.masked,
        "affine": item.affine.ravel().tolist(),
        "placement": [place.source, place.inner, place.offset, place.size],
        "factor": item.factor,
        "modality": item.modality,
        "stats": item.stats,
        "voxels": {str(value): _text(voxels) for value, voxels in item.voxels.items()},
        "notes": item.notes,
    }


def _item(record: dict[str, Any]) -> Conformed:
    digest, mask_digest = record["digests"]
    item = Conformed(record["row"], digest, mask_digest, reason=record.get("reason", ""))
    item.slice, item.more = record.get("slice", (None, False))
    item.cells = record.get("cells", {})
    if item.reason:
        return item
    item.hold(*record["array"])
    item.masked, item.factor, item.modality = record["masked"], record["factor"], record["modality"]
    item.affine = np.array(record["affine"]).reshape(4, 4)
    item.placement = Placement(*(tuple(part) for part in record["placement"]))
    item.stats, item.notes = record["stats"], tuple(record["notes"])
    dims = len(item.placement.size)
    item.voxels = {int(value): _voxels(text, dims) for value, text in record["voxels"].items()}
    return item


def _text(voxels: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(voxels.astype("<i4").tobytes(), 1)).decode()


def _voxels(text: str, dims: int) -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), "<i4").astype(np.int32).reshape(-1, dims)
