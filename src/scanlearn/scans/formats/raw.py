"""Bytes of files: inside gzip or not, as many as the header announces and not one more."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from scanlearn.errors import FileError
from scanlearn.scans.formats.limits import INFLATION

GZIP = b"\x1f\x8b"
SURPLUS = 4096  # bytes behind the voxels that are no sign of a wrong header: padding, short footers


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
    path: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype, surplus: int | None = SURPLUS
) -> np.ndarray:
    """The array of Fortran order that starts ``offset`` bytes into the (inflated) file, in native byte order.

    FileError where the file holds fewer bytes, or over ``surplus`` more than announced: then the header is wrong.
    Reading to the end lets gzip compare its checksum.
    """
    count = int(np.prod(shape, dtype=object)) * dtype.itemsize
    _check_length(path, offset + count)
    buffer = np.empty(count, np.uint8)
    with opened(path) as file:
        file.seek(offset)
        got = _fill(file, buffer)
        if got < count:
            raise FileError(path, f"is cut off: it holds {got} of the {count} bytes of voxels that it announces.")
        if surplus is not None and len(file.read(surplus + 1)) > surplus:
            raise FileError(path, f"holds more than the {count} bytes of voxels that its header announces.")
    return native(buffer.view(dtype).reshape(shape, order="F"))


def native(array: np.ndarray) -> np.ndarray:
    """The array in the byte order of this machine."""
    order = array.dtype.byteorder
    swapped = order not in "=|" and (order == "<") != (sys.byteorder == "little")
    return array.byteswap().view(array.dtype.newbyteorder()) if swapped else array


def _check_length(path: Path, count: int) -> None:
    """Refuse before memory is asked for what the file cannot hold."""
    size = path.stat().st_size
    with path.open("rb") as file:
        zipped = file.read(2) == GZIP
    if count > size * (INFLATION if zipped else 1):
        raise FileError(path, f"is cut off or its header wrong: {size} bytes cannot hold the {count} it announces.")


def _fill(file: BinaryIO, buffer: np.ndarray) -> int:
    view, got = memoryview(buffer), 0  # type: ignore[arg-type]
    while got < len(view):
        count = file.readinto(view[got:])  # type: ignore[attr-defined]
        if not count:
            break
        got += count
    return got
