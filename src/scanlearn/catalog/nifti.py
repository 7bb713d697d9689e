"""The grid of a NIfTI file from its first bytes, for telling which mask fits which scan and what runs over time."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

Grid = tuple[tuple[int, ...], tuple[float, ...]]


def grid_of(path: str | Path) -> Grid | None:
    """(voxels per axis, mm per axis rounded to 0.001) as the header says, axes of 1 at the end left out.

    None for everything that is no NIfTI-1 or NIfTI-2 file or cannot be read; reading it later names the reason.
    """
    name = str(path).lower()
    if not name.endswith((".nii", ".nii.gz")):
        return None
    try:
        with gzip.open(path) if name.endswith(".gz") else Path(path).open("rb") as file:
            head = file.read(168)
        return _grid(head)
    except (OSError, EOFError, struct.error, zlib.error, OverflowError, ValueError):
        return None


def _grid(head: bytes) -> Grid | None:
    for order in "<>":
        size = struct.unpack_from(f"{order}i", head)[0]
        if size == 348:
            count, *axes = struct.unpack_from(f"{order}8h", head, 40)
            steps = struct.unpack_from(f"{order}7f", head, 80)
        elif size == 540:
            count, *axes = struct.unpack_from(f"{order}8q", head, 16)
            steps = struct.unpack_from(f"{order}7d", head, 112)
        else:
            continue
        axes = axes[: max(0, min(count, 7))]
        while len(axes) > 2 and axes[-1] == 1:
            axes.pop()
        return tuple(axes), tuple(round(abs(step), 3) for step in steps[: min(len(axes), 3)])
    return None
