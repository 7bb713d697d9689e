"""One NumPy array in a .npy file, never with Python objects in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scanlearn.errors import FileError
from scanlearn.scans.formats.limits import check_size
from scanlearn.scans.formats.raw import SURPLUS, check_length, native, read_array
from scanlearn.scans.formats.scan import Scan
from scanlearn.scans.geometry import unlocated

MAGIC = b"\x93NUMPY"


def read(path: Path, limit: int) -> Scan:
    """(row, column), (row, column, 1 to 4 channels) or (i, j, k); a voxel counts as 1 mm."""
    shape, dtype, fortran, offset = _announced(path, limit)
    if fortran:
        array = read_array(path, offset, shape, dtype, packed="")
    else:
        array = read_array(path, offset, shape[::-1], dtype, packed="").T
    if len(_spatial(shape)) == 3:
        return Scan(native(array)[None], unlocated((1.0, 1.0, 1.0)), located=False)
    channels = array[None] if array.ndim == 2 else np.moveaxis(array, 2, 0)
    return Scan(channels, unlocated((1.0, 1.0)), located=False)


def header(path: Path, limit: int) -> tuple[int, ...]:
    """The spatial shape."""
    return _spatial(_announced(path, limit)[0])


def _announced(path: Path, limit: int) -> tuple[tuple[int, ...], np.dtype, bool, int]:
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = reader(file)
        offset = file.tell()
    if dtype.kind not in "biuf":
        raise FileError(path, "holds other things than real numbers.")
    if len(shape) not in (2, 3):
        raise FileError(path, f"has {len(shape)} axes {shape}; scans have two or three.")
    check_length(path, offset, check_size(path, shape, dtype.itemsize, limit), SURPLUS, "")
    return shape, dtype, fortran, offset


def _spatial(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[:2] if shape[-1] <= 4 else shape
