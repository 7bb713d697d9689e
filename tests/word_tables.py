"""Tables of words for tests: the same relative places in every training scan, and in every validation scan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from scanlearn.scans.store import Store
from scanlearn.scans.words import Words, open_words, write_words


def word_columns(store: Store, size: tuple[int, ...], words: int = 3, scales: int = 1, seed: int = 0) -> dict[str, Any]:
    """Columns of ``write_words``: each word is a place, cut from every training and validation scan."""
    rng = np.random.default_rng(seed)
    parts = {0: np.asarray(store.splits["train"]), 1: np.asarray(store.splits["val"])}
    found: dict[str, list[Any]] = {n: [] for n in ("word", "row", "part", "scale", "rank", "start", "side", "distance")}
    for word in range(words):
        place = rng.random(len(size))
        for part, rows in parts.items():
            for rank, row in enumerate(rows):
                for scale in range(scales if part == 0 else 1):
                    side = np.array(size) + 2 * scale
                    start = (place * (np.array(store.shape(int(row))) - side)).astype(int)
                    values = (word, row, part, scale, rank, start, side, float(rank))
                    for name, value in zip(found, values, strict=True):
                        found[name].append(value)
    return {name: np.array(values) for name, values in found.items()}


def word_table(store: Store, folder: Path, size: tuple[int, ...], **settings: Any) -> Words:
    """A written and opened table."""
    columns = word_columns(store, size, **settings)
    write_words(folder, store=store.info["key"], size=size, settings={"made": "for a test"}, **columns)
    return open_words(folder, store)
