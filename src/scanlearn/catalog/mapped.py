"""Arrow files that are mapped into memory: a table of a million rows opens at once and costs only what is looked at.

Words are kept as codes into a dictionary whose first word is always "", so that code 0 means "no word". What lies in a
file is not believed: a column is checked before its first use, in time that does not depend on the words' lengths.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scanlearn.errors import ScanlearnError

WORDS = pa.dictionary(pa.int32(), pa.string())


def write_mapped(
    path: str | Path, columns: Mapping[str, pa.Array], metadata: Mapping[bytes, bytes] | None = None
) -> None:
    """Write columns of equal length as one batch of an uncompressed Arrow IPC file."""
    table = pa.table(dict(columns)).replace_schema_metadata(dict(metadata or {}))
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table.combine_chunks())


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
    if len(codes) and (codes.min() < 0 or codes.max() >= len(known)):
        raise ScanlearnError("A side file is damaged: a code leads outside its dictionary; write the file again.")
    if len(known) == 0 or known[0].as_py() != "":
        raise ScanlearnError("A side file is damaged: a dictionary does not begin with the blank; write it again.")
    return codes


def check_words(array: pa.Array) -> None:
    """Refuse an array of words, of lists of words, or of codes into words whose offsets lead outside its memory."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        codes_of(array)
        check_words(array.dictionary)
        return
    values = array.values if pa.types.is_list(kind) else None
    room = len(values) if values is not None else (array.buffers()[2].size if array.buffers()[2] is not None else 0)
    if len(array):
        offsets = np.frombuffer(array.buffers()[1], np.int32)[array.offset : array.offset + len(array) + 1]
        if offsets[0] < 0 or offsets[-1] > room or (np.diff(offsets) < 0).any():
            raise ScanlearnError("A side file is damaged: words lie outside of it; write the file again.")
    if values is not None:
        check_words(values)


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
            return decoded(self._column.slice(range(len(self))[int(rows)], 1))[0].as_py()
        taken = np.arange(len(self), dtype=np.int32)[rows]
        return np.array(decoded(self._column.take(pa.array(taken))).to_pylist(), dtype=np.str_)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.tolist(), dtype=dtype or np.str_)

    def __iter__(self) -> Iterator[str]:
        return iter(self.tolist())

    def tolist(self) -> list[str]:
        """All of them."""
        return decoded(self._column).to_pylist()
