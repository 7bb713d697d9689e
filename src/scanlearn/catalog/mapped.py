"""Arrow files that are mapped into memory: a table of a million rows opens at once and costs only what is looked at.

Words are kept as codes into a dictionary whose first word is always "", so that code 0 means "no word". What lies in a
file is not believed: a column is checked when it is used, and only as much of it as is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scanlearn.errors import ScanlearnError

_DAMAGED = "A side file is damaged: what it says lies outside of it or is no text; write the file again."
WORDS = pa.dictionary(pa.int32(), pa.string())


def write_mapped(
    path: str | Path, columns: Mapping[str, pa.Array], metadata: Mapping[bytes, bytes] | None = None
) -> None:
    """Write columns of equal length as one batch of an uncompressed Arrow IPC file; of no rows too."""
    table = pa.table(dict(columns)).replace_schema_metadata(dict(metadata or {}))
    (batch,) = table.combine_chunks().to_batches() or [pa.RecordBatch.from_pylist([], schema=table.schema)]
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_batch(batch)


def open_mapped(path: str | Path, types: Mapping[str, pa.DataType], rows: int | None = None) -> pa.Table:
    """Map what ``write_mapped`` wrote. Nothing of it is read but its head.

    Args:
        types: columns that must be there, with their types; others may be there too.
        rows: how many rows there must be.

    Raises:
        ScanlearnError: the file is missing, damaged, or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise ScanlearnError(f"There is no file {path.name} in {path.parent}; prepare the store again.")
    try:
        with pa.memory_map(str(path)) as file:
            reader = pa.ipc.open_file(file)
            if reader.num_record_batches != 1:
                raise damaged(path, f"has {reader.num_record_batches} batches instead of one")
            table = pa.Table.from_batches([reader.get_batch(0)])
            table.validate()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise damaged(path, "is no whole Arrow file") from error
    for name, kind in types.items():
        if table.schema.get_field_index(name) < 0 or table.schema.field(name).type != kind:
            raise damaged(path, f"lacks the column {name!r} of type {kind}")
    if rows is not None and len(table) != rows:
        raise damaged(path, f"has {len(table)} rows instead of {rows}")
    return table


def damaged(path: Path, what: str) -> ScanlearnError:
    """The error for a side file that nobody should go on with."""
    return ScanlearnError(f"The file {path.name} in {path.parent} is damaged, it {what}: write it again.")


def numbers(array: pa.Array) -> np.ndarray:
    """A view of an Arrow array of numbers without null, (N,), or (N, k) for lists of one length."""
    if pa.types.is_fixed_size_list(array.type):
        return numbers(array.flatten()).reshape(len(array), array.type.list_size)
    return array.to_numpy(zero_copy_only=True)


def encode(words: pa.Array) -> pa.DictionaryArray:
    """Words (N,) without null as codes into their distinct values, in the order of their first appearance; 0 is ""."""
    if pa.types.is_dictionary(words.type):
        return words
    encoded = pc.dictionary_encode(words)
    codes, known = numbers(encoded.indices).copy(), encoded.dictionary
    blank = pc.index(known, "").as_py()
    if blank != 0:
        codes += 1
        if blank > 0:  # its place is left to a word that nothing has
            codes[codes == blank + 1] = 0
            known = pa.concat_arrays([known.slice(0, blank), known.slice(blank + 1)])
            codes[codes > blank] -= 1
        known = pa.concat_arrays([pa.array([""], known.type), known])
    return pa.DictionaryArray.from_arrays(pa.array(codes), known)


def codes_of(words: pa.DictionaryArray) -> np.ndarray:
    """int32 (N,), a view of the codes; refused where one leads outside the dictionary or 0 is not the blank."""
    codes = numbers(words.indices)
    known = words.dictionary
    _refuse_unless(len(codes) == 0 or bool(codes.min() >= 0 and codes.max() < len(known)))
    if len(known) == 0 or known[0].as_py() != "":
        raise ScanlearnError("A side file is damaged: a dictionary does not begin with the blank; write it again.")
    return codes


def check_words(array: pa.Array) -> pa.Array:
    """The same words, lists of words, or codes into words; refused where they lead outside their memory or are no text.

    Reads all of them.
    """
    try:
        array.validate(full=True)
    except pa.ArrowInvalid as error:
        raise ScanlearnError(_DAMAGED) from error
    _refuse_unless(array.null_count == 0)
    return array


def take_words(array: pa.Array, rows: np.ndarray) -> pa.Array:
    """Plain words (or lists of words) of some rows (n,), checked like ``check_words``; only these are touched."""
    if pa.types.is_dictionary(array.type):
        codes = numbers(array.indices)[rows]
        _refuse_unless(bool(len(codes) == 0 or (codes.min() >= 0 and codes.max() < len(array.dictionary))))
        return take_words(array.dictionary, codes)
    if len(rows):
        offsets, room = _offsets(array)
        starts, stops = offsets[rows], offsets[1:][rows]
        _refuse_unless(bool(starts.min() >= 0 and (starts <= stops).all() and stops.max() <= room))
        if pa.types.is_list(array.type):
            inner = [np.arange(a, b) for a, b in zip(starts.tolist(), stops.tolist(), strict=True) if a < b]
            take_words(array.values, np.concatenate([np.zeros(0, np.int64), *inner]))
    return check_words(array.take(pa.array(rows)))


def _offsets(array: pa.Array) -> tuple[np.ndarray, int]:
    """Where each word or list begins and the last one ends, int32 (N + 1,), and how much room there is."""
    bounds, data = array.buffers()[1:3]
    if pa.types.is_list(array.type):
        room = len(array.values)
    else:
        room = 0 if data is None else data.size
    return np.frombuffer(bounds, np.int32)[array.offset : array.offset + len(array) + 1], room


def _refuse_unless(fine: bool) -> None:
    if not fine:
        raise ScanlearnError(_DAMAGED)


def present(codes: np.ndarray, count: int) -> np.ndarray:
    """bool (count,): which of the codes 0..count-1 occur."""
    found = np.zeros(count, bool)
    found[codes] = True
    return found


def decoded(cells: pa.Array) -> pa.Array:
    """Plain words, whether they are kept as words or as codes."""
    return cells.dictionary_decode() if pa.types.is_dictionary(cells.type) else cells


def one_piece(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    """An array of one piece: combining the chunks of a chunked array gives one, save where there is too much text."""
    while isinstance(array, pa.ChunkedArray):
        array = array.chunk(0) if array.num_chunks == 1 else array.combine_chunks()
    return array


class Words:
    """A column (N,) of words, decoded where it is looked at: ``words[rows]`` is a str array, as is ``np.asarray``."""

    dtype = np.dtype(np.str_)

    def __init__(self, column: pa.Array):
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    def __getitem__(self, rows: Any) -> Any:
        if isinstance(rows, int | np.integer):
            return take_words(self._column, np.array([range(len(self))[int(rows)]]))[0].as_py()
        taken = np.arange(len(self), dtype=np.int32)[rows]
        return np.array(take_words(self._column, taken).to_pylist(), dtype=np.str_)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.tolist(), dtype=dtype or np.str_)

    def __iter__(self) -> Iterator[str]:
        return iter(self.tolist())

    def tolist(self) -> list[str]:
        """All of them."""
        return decoded(check_words(self._column)).to_pylist()
