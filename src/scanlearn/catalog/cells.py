"""Cells as the catalogue keeps them: trimmed words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scanlearn.catalog.mapped import one_piece
from scanlearn.errors import ScanlearnError


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
    return pc.fill_null(pc.utf8_trim_whitespace(text), "")
