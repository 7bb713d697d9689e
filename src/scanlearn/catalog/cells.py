"""Cells as the catalogue keeps them: trimmed words, in Arrow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scanlearn.catalog.mapped import one_piece
from scanlearn.errors import ScanlearnError

_BLOCK = 1 << 16  # cells


def as_strings(cells: Any, name: str) -> pa.Array:
    """One Arrow array of trimmed strings, "" for null; whole floats lose their ".0", lists are joined by "|"."""
    if isinstance(cells, np.ndarray) and cells.dtype.kind == "U":
        cells = cells.tolist()
    array = cells if isinstance(cells, pa.Array | pa.ChunkedArray) else pa.array(cells)
    array = one_piece(array)
    try:
        if pa.types.is_floating(array.type):
            array = pc.if_else(pc.is_nan(array), None, array)
            whole = pc.and_(pc.equal(pc.floor(array), array), pc.less(pc.abs(array), 2.0**53))
            array = array.cast(pa.int64()) if pc.all(whole).as_py() else array
        elif pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
            array = pc.binary_join(array.cast(pa.list_(pa.string())), "|")
        text = array.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ScanlearnError(
            f"The column {name!r} of type {array.type} cannot be read as text; leave it out."
        ) from error
    tidy = pc.fill_null(pc.utf8_trim_whitespace(text), "")
    return text if tidy.equals(text) else tidy  # where nothing was to do, not a second time in memory


def blocks(cells: pa.Array) -> Iterator[list[Any]]:
    """The cells as objects of Python, some at a time: all of a million rows take ten times the memory of Arrow's."""
    for start in range(0, len(cells), _BLOCK):
        yield cells.slice(start, _BLOCK).to_pylist()


def per_block(cells: pa.Array, say: Callable[[list[Any]], Sequence[Any]], kind: pa.DataType | None = None) -> pa.Array:
    """What ``say`` makes of the cells, block by block: words, or another kind."""
    kind = kind or pa.string()
    return one_piece(pa.chunked_array([pa.array(say(block), kind) for block in blocks(cells)], kind))


def per_word(cells: pa.Array | pa.ChunkedArray, say: Callable[[str], str]) -> pa.Array:
    """``say`` of every cell, worked out once for each distinct word."""
    encoded = pc.dictionary_encode(one_piece(cells))
    words = [say(word) for word in encoded.dictionary.to_pylist()]
    return pa.array(words, pa.string()).take(encoded.indices)


def per_cell(cells: pa.Array, which: pa.Array, say: Callable[[str], str]) -> pa.Array:
    """The words with those of some rows (booleans) replaced by what ``say`` makes of them."""
    made = per_block(cells.filter(which), lambda block: [say(cell) for cell in block])
    return pc.replace_with_mask(cells, which, made)
