"""Words: classes of crops that show the same place in similar patients, as a table of boxes; no voxel is copied.

WORDS/ words.arrow   a row for each crop: word, row of the store, part, scale, rank, box, distance of the descriptors
       words.json    the store's content key, the number of words, the size of a crop, how they were discovered

Source: Haghighi et al., "Semantic Genesis", MICCAI 2020 (spec_genesis §1.4). The original copies every crop out, three
MiB for each word and patient; the table takes 60 bytes for each crop.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from scanlearn.catalog.mapped import numbers, open_mapped, write_mapped
from scanlearn.errors import ScanlearnError
from scanlearn.files import make_folder, read_json, replacing, write_json
from scanlearn.scans.store import Store

TABLE, FACTS = "words.arrow", "words.json"
VERSION = 1
PARTS = ("train", "val")
_COLUMNS = {
    **dict.fromkeys(("word", "row", "rank"), pa.int32()),
    **dict.fromkeys(("part", "scale"), pa.uint8()),
    "distance": pa.float32(),
}
_FARTHEST = 1 << 20  # voxels that a box may begin before a scan or reach; a number from a file is not believed


@dataclass(frozen=True)
class Patches:
    """Boxes of scans to walk over, instead of random ones.

    ``rows`` int64 (n,); ``starts``, ``sides`` int64 (n, D) in voxels, which may reach outside the scan; ``words`` int64
    (n,), the class of each box.
    """

    rows: np.ndarray
    starts: np.ndarray
    sides: np.ndarray
    words: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)


class Words:
    """An opened table of words.

    Attributes:
        store: content key of the store that the rows belong to.
        count: number of words, C.
        size: voxels of a crop at base scale.
        settings: how the words were discovered, and what was measured of them.
        word, row, part, scale, rank: int (n,): class; row of the store; 0 train or 1 val; 0 the base scale, 1 and up
            the extra crops; 0 the reference, k the k-th nearest patient.
        start, side: int (n, D), the box in voxels.
        distance: float32 (n,), between the descriptors of this scan and of the reference.
    """

    def __init__(self, folder: Path, facts: dict[str, Any], columns: dict[str, np.ndarray]):
        self.folder = folder
        self.store: str = facts["store"]
        self.count: int = facts["words"]
        self.size: tuple[int, ...] = tuple(facts["size"])
        self.settings: dict[str, Any] = facts["settings"]
        self.word, self.row, self.part = columns["word"], columns["row"], columns["part"]
        self.scale, self.rank, self.distance = columns["scale"], columns["rank"], columns["distance"]
        self.start, self.side = columns["start"], columns["side"]

    def __len__(self) -> int:
        return len(self.word)

    def same_as(self, other: Words) -> bool:
        """Whether both tables list the same crops under the same words."""
        columns = [(self.word, other.word), (self.row, other.row), (self.part, other.part)]
        columns += [(self.start, other.start), (self.side, other.side)]
        return self.store == other.store and all(np.array_equal(a, b) for a, b in columns)

    def patches(self, part: str = "train", scale: int | None = None) -> Patches:
        """The crops of the training or of the validation patients, at one scale or at all of them."""
        where = self.part == PARTS.index(part)
        if scale is not None:
            where = where & (self.scale == scale)
        at = np.flatnonzero(where)
        whole = (np.asarray(values[at], np.int64) for values in (self.row, self.start, self.side, self.word))
        return Patches(*whole)


def write_words(
    folder: str | Path, *, store: str, size: Sequence[int], settings: dict[str, Any], **columns: np.ndarray
) -> None:
    """Write a table of words; ``columns`` are those that ``Words`` names, one row for each crop.

    Raises:
        WriteError: no room, or a folder that cannot be written.
    """
    folder = Path(folder)
    make_folder(folder)
    dims = len(size)
    arrays = {name: pa.array(columns[name].astype(kind.to_pandas_dtype())) for name, kind in _COLUMNS.items()}
    for name in ("start", "side"):
        flat = columns[name].astype(np.int32).reshape(-1)
        arrays[name] = pa.FixedSizeListArray.from_arrays(pa.array(flat), dims)
    with replacing(folder / TABLE) as temporary:
        write_mapped(temporary, arrays)
    facts = {
        "version": VERSION,
        "store": store,
        "words": int(columns["word"].max(initial=-1)) + 1,
        "crops": len(columns["word"]),
        "size": [int(n) for n in size],
        "settings": settings,
    }
    write_json(folder / FACTS, facts)


def open_words(folder: str | Path, store: Store | None = None) -> Words:
    """Open a table of words, every number of it checked.

    Raises:
        ScanlearnError: no table, a damaged one, or one that was discovered in another store than ``store``.
    """
    folder = Path(folder)
    if not (folder / FACTS).is_file():
        raise ScanlearnError(
            f"There is no table of words in {folder}: make one with `scanlearn discover STORE --out {folder}`."
        )
    facts = read_json(folder / FACTS, f"The {FACTS} of {folder.name}")
    try:
        version, crops, count, size = facts["version"], facts["crops"], facts["words"], facts["size"]
        fine = all(type(n) is int and n > 0 for n in [crops, count, *size]) and len(size) in (2, 3)
        fine = fine and isinstance(facts["store"], str) and isinstance(facts["settings"], dict)
    except (KeyError, TypeError):
        raise _damaged(folder) from None
    if version != VERSION:
        raise ScanlearnError(f"The words in {folder.name} have version {version}, not {VERSION}: discover them again.")
    if not fine:
        raise _damaged(folder)
    lists = dict.fromkeys(("start", "side"), pa.list_(pa.int32(), len(size)))
    table = open_mapped(folder / TABLE, {**_COLUMNS, **lists}, crops)
    columns = {name: numbers(table[name].chunk(0)) for name in (*_COLUMNS, *lists)}
    _check(folder, columns, count)
    words = Words(folder, facts, columns)
    if store is not None:
        check_store(words, store)
    return words


def check_store(words: Words, store: Store) -> None:
    """Refuse words that do not belong to ``store``, or that show its test part."""
    if words.store != store.info["key"]:
        raise ScanlearnError(
            f"The words in {words.folder.name} were discovered in another store than {store.path.name}: discover them "
            "again in this one."
        )
    if words.row.max() >= len(store) or len(words.size) != store.spatial_dims:
        raise _damaged(words.folder)
    for code, part in enumerate(PARTS):
        if not np.isin(words.row[words.part == code], np.asarray(store.splits[part])).all():
            raise ScanlearnError(
                f"The words in {words.folder.name} show scans outside of the {part} part of {store.path.name}: "
                "discover them again."
            )


def copy_words(words: Words, folder: Path) -> None:
    """Copy a table into a run, which then needs no other."""
    make_folder(folder)
    for name in (TABLE, FACTS):
        with replacing(folder / name) as temporary:
            shutil.copyfile(words.folder / name, temporary)


def _check(folder: Path, columns: dict[str, np.ndarray], count: int) -> None:
    word, part, start, side = columns["word"], columns["part"], columns["start"], columns["side"]
    fine = word.min() >= 0 and word.max() < count and columns["row"].min() >= 0 and part.max() < len(PARTS)
    fine = fine and side.min() >= 1 and side.max() < _FARTHEST and np.abs(start.astype(np.int64)).max() < _FARTHEST
    if not (fine and (part == 0).any()):
        raise _damaged(folder)


def _damaged(folder: Path) -> ScanlearnError:
    return ScanlearnError(f"The table of words in {folder} is damaged: discover them again.")
