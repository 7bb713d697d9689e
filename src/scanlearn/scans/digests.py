"""What tells whether a file is the same: the sha256 of what it holds, or its size and time."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from scanlearn.scans.read import files_of


def digest_of(paths: Sequence[str]) -> str:
    """sha256 of one file, or of the digests of several (a series, header and voxels of a pair, an OME-Zarr folder).

    A file that is not there counts as empty.
    """
    digests = [_sha256(file) for path in paths for file in files_of(path)]
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _sha256(path: Path) -> str:
    try:
        if not path.is_file():  # nothing waits for a pipe
            return ""
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def state_of(path: Path) -> tuple[int, int]:
    """(bytes, time of the last change in ns) of a file; (-1, 0) if it is not there."""
    try:
        found = path.stat()
    except OSError:
        return (-1, 0)
    return found.st_size, found.st_mtime_ns
