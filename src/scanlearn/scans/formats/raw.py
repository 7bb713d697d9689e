"""Bytes of files: packed or not, as many as the header announces and not one more."""

from __future__ import annotations

import gzip
import math
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from scanlearn.errors import FileError
from scanlearn.scans.formats.limits import INFLATION

GZIP = b"\x1f\x8b"
SURPLUS = 4096  # bytes behind the voxels that are no sign of a wrong header: padding, short footers
_PIECE = 2**20


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The file for reading, through gzip where its first bytes say so (names are not always right)."""
    with path.open("rb") as file:
        zipped = file.read(2) == GZIP
        file.seek(0)
        if zipped:
            with gzip.GzipFile(fileobj=file) as inflated:
                yield cast(BinaryIO, inflated)
        else:
            yield file


def head(path: Path, count: int) -> bytes:
    """The first ``count`` bytes, inflated if the file is gzip; fewer if it is shorter."""
    with opened(path) as file:
        return file.read(count)


def read_array(
    path: Path,
    offset: int,
    shape: tuple[int, ...],
    dtype: np.dtype,
    surplus: int | None = SURPLUS,
    *,
    packed: str | None = None,
) -> np.ndarray:
    """The array of Fortran order that starts ``offset`` bytes into a file, in native byte order.

    packed: "" or None for plain bytes, which, with None, may lie in a file that is gzip as a whole (then offset
    counts inflated bytes); "gzip" or "zlib" for a stream that starts at the offset. FileError where there are fewer
    bytes than announced, or over ``surplus`` more: then the header is wrong. Reading to the end compares checksums.
    """
    count = math.prod(shape) * dtype.itemsize
    packed = check_length(path, offset, count, surplus, packed)
    buffer = np.empty(count, np.uint8)
    with path.open("rb") as plain:
        file: BinaryIO = plain
        if packed == "whole":
            file = cast(BinaryIO, gzip.GzipFile(fileobj=plain))
            file.seek(offset)
        else:
            plain.seek(offset)
            if packed:
                file = cast(BinaryIO, gzip.GzipFile(fileobj=plain) if packed == "gzip" else _Inflated(plain))
        got = _fill(file, buffer)
        if got < count:
            raise FileError(path, f"is cut off: it holds {got} of the {count} bytes of voxels that it announces.")
        if surplus is not None and _fill(file, np.empty(surplus + 1, np.uint8)) > surplus:
            raise _too_long(path, count)
    return native(buffer.view(dtype).reshape(shape, order="F"))


def check_length(path: Path, offset: int, count: int, surplus: int | None, packed: str | None) -> str:
    """Whether the file can hold ``count`` bytes of voxels, by its size alone, as memory is not yet asked for.

    Takes what ``read_array`` takes. Returns how the bytes are packed: "", "zlib", "gzip", or "whole" for a gzip file.
    """
    size = path.stat().st_size
    if packed is None:
        with path.open("rb") as file:
            packed = "whole" if file.read(2) == GZIP else ""
    held = max(size - (0 if packed == "whole" else offset), 0)
    if count > held * (INFLATION if packed else 1):
        raise FileError(path, f"is cut off or its header wrong: {size} bytes cannot hold the {count} it announces.")
    if not packed and surplus is not None and held > count + surplus:
        raise _too_long(path, count)
    return packed


def _too_long(path: Path, count: int) -> FileError:
    return FileError(path, f"holds more than the {count} bytes of voxels that its header announces.")


def native(array: np.ndarray) -> np.ndarray:
    """The array in the byte order of this machine."""
    order = array.dtype.byteorder
    swapped = order not in "=|" and (order == "<") != (sys.byteorder == "little")
    return array.byteswap().view(array.dtype.newbyteorder()) if swapped else array


class _Inflated:
    """A zlib stream as a file; its checksum is compared at its end."""

    def __init__(self, file: BinaryIO):
        self._file, self._stream = file, zlib.decompressobj()

    def read(self, count: int) -> bytes:
        """Up to ``count`` bytes, none at the end. EOFError where the stream breaks off."""
        out = b""
        while not out and not self._stream.eof:
            given = self._stream.unconsumed_tail or self._file.read(_PIECE)
            out = self._stream.decompress(given, count)
            if not given and not out and not self._stream.eof:
                raise EOFError
        return out


def _fill(file: BinaryIO, buffer: np.ndarray) -> int:
    """Read until the buffer is full or the file ends; the bytes read."""
    got = 0
    while got < len(buffer):
        piece = file.read(min(_PIECE, len(buffer) - got))
        if not piece:
            break
        buffer[got : got + len(piece)] = np.frombuffer(piece, np.uint8)
        got += len(piece)
    return got
