"""What a file may announce: sizes, channels, affines. Asked of headers, before anything is decoded."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from scanlearn.errors import FileError, ScanlearnError

DEFAULT_LIMIT = 4 * 2**30  # decoded bytes of one scan
LIMIT_VARIABLE = "SCANLEARN_MAX_SCAN_BYTES"
MOST_CHANNELS = 8  # beyond these, volumes or samples of one file are a time series or something else
INFLATION = 1032  # deflate makes no more bytes out of one


def byte_limit(limit_bytes: int | None = None) -> int:
    """The limit that holds: the argument, else SCANLEARN_MAX_SCAN_BYTES, else 4 GiB."""
    if limit_bytes is not None:
        return limit_bytes
    text = os.environ.get(LIMIT_VARIABLE, "")
    if text and not (text.isdigit() and int(text)):
        raise ScanlearnError(f"{LIMIT_VARIABLE} is {text!r}; set it to a number of bytes, such as {DEFAULT_LIMIT}.")
    return int(text) if text else DEFAULT_LIMIT


def check_size(path: Path, shape: Sequence[int], itemsize: int, limit: int) -> int:
    """The decoded bytes of an array; FileError for a side below 1 or more bytes than the limit."""
    if not shape or min(shape) < 1:
        raise FileError(path, f"has no voxels: its header says {tuple(int(n) for n in shape)}.")
    count = math.prod(int(n) for n in shape) * itemsize  # Python's integers do not overflow
    if count > limit:
        raise FileError(
            path,
            f"announces {_gib(count)} GiB of voxels, more than the limit of {_gib(limit)} GiB; raise {LIMIT_VARIABLE} "
            "if that is no mistake.",
        )
    return count


def check_channels(path: Path, count: int, what: str = "volumes (a time series?)") -> None:
    """FileError for more channels than MOST_CHANNELS."""
    if count > MOST_CHANNELS:
        raise FileError(path, f"has {count} {what}; up to {MOST_CHANNELS} are read as channels, so split it.")


def check_affine(path: Path, affine: np.ndarray, dims: int) -> np.ndarray:
    """The affine, if its first ``dims`` columns span a grid; FileError for NaN, infinity or a spacing of zero.

    A flat scan (i, j) whose file leaves the third direction at zero gets i x j, 1 mm long.
    """
    affine = np.array(affine, float)
    if not np.isfinite(affine).all():
        raise FileError(path, "has an affine with NaN or infinity, so its place in space is unknown.")
    columns = affine[:3, :dims]
    lengths = np.linalg.norm(columns, axis=0)
    if lengths.min() < 1e-9 or lengths.max() > 1e9 or np.linalg.svd(columns / lengths)[1].min() < 1e-6:
        raise FileError(path, "has a singular affine: its axes span no grid, or a spacing is zero or absurd.")
    if dims == 2 and np.linalg.matrix_rank(affine[:3, :3]) < 3:
        normal = np.cross(affine[:3, 0], affine[:3, 1])
        affine[:3, 2] = normal / np.linalg.norm(normal)
    return affine


def _gib(count: int) -> str:
    return f"{count / 2**30:.3g}"
