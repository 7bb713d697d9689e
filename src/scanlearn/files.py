"""Files that are whole or not there, and small files of unknown origin read within bounds.

Everything that a person would miss is written through ``replacing``: beside its place, flushed to the disk, then moved
over the old file, so that a kill, a full disk or a reader meets the old or the new one and nothing between.
"""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from scanlearn.errors import ScanlearnError

JSON_BYTES = 64 << 20  # far above what a run writes; a larger file is not one of ours
JSON_DEPTH = 32

_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class WriteError(ScanlearnError):
    """A file that could not be written: no room, a quota, a folder or a disk that takes nothing.

    Args:
        what: what was being written, as the subject of a sentence.
        folder: where.
        error: what the system said.
        needed: bytes, where they are known.
        advice: what to do; by default to make room, or to choose another place.
    """

    def __init__(self, what: str, folder: Path, error: OSError, needed: int | None = None, advice: str | None = None):
        self.what, self.folder, self.error, self.needed = what, folder, error, needed
        if advice is None:
            full = error.errno in _ROOM
            advice = "make room and run the same command again" if full else "make it writable or choose another place"
        super().__init__(f"{what} could not be written to {folder}: {_why(folder, error, needed)}; {advice}.")

    def advising(self, advice: str) -> WriteError:
        """The same error with other advice."""
        return WriteError(self.what, self.folder, self.error, self.needed, advice)


def _why(folder: Path, error: OSError, needed: int | None) -> str:
    need = f"{size(needed)} needed" if needed else ""
    if error.errno == errno.ENOSPC:
        with suppress(OSError):
            need = ", ".join(filter(None, (need, f"{size(shutil.disk_usage(folder).free)} free")))
    reasons = {
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "the disk quota is used up",
        errno.EFBIG: "the file would be larger than the system allows",
        errno.EROFS: "it can only be read",
        errno.EACCES: "it can only be read",
        errno.EPERM: "it can only be read",
    }
    reason = reasons.get(error.errno or 0, (error.strerror or "the disk failed").lower())
    return f"{reason} ({need})" if need else reason


def size(count: int) -> str:
    """Bytes for a person.

    >>> size(12_345_678)
    '12.3 MB'
    """
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} bytes"


# ---------------------------------------------------------------- writing


@contextmanager
def replacing(path: Path, needed: int | None = None) -> Iterator[Path]:
    """Give a name beside ``path`` to write to, and move what was written there over ``path`` at the end.

    The temporary file has the ending of ``path`` and is removed however this ends. One process at a time: a second one
    is refused.

    Raises:
        WriteError: the system could not write; ``path`` holds what it held before.
    """
    temporary = path.with_name(f".{path.stem}.tmp{path.suffix}")
    try:
        with temporary.open("ab") as held:
            lock(held, path)
            try:
                yield temporary
                with temporary.open("rb") as written:
                    os.fsync(written.fileno())
                temporary.replace(path)
            except BaseException:
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)
                raise
        sync_folder(path.parent)
    except OSError as error:
        raise WriteError(path.name, path.parent, error, needed) from error


def write_atomic(path: Path, data: str | bytes) -> None:
    """Write a small file whole; see ``replacing``."""
    data = data.encode("utf-8") if isinstance(data, str) else data
    with replacing(path, len(data)) as temporary:
        temporary.write_bytes(data)


def to_json(data: Any, indent: int | None = None) -> str:
    """JSON that every reader takes: what Python would write as NaN or Infinity, which JSON knows not, becomes null.

    >>> to_json({"low": float("nan"), "high": 0.5})
    '{"low": null, "high": 0.5}'
    """
    return json.dumps(_told(data), indent=indent, allow_nan=False)


def write_json(path: Path, data: Any) -> None:
    """``write_atomic`` of indented JSON; a figure that cannot be told (NaN) is null there, see ``to_json``."""
    write_atomic(path, to_json(data, indent=1) + "\n")


def _told(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _told(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_told(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def make_folder(path: Path) -> None:
    """Make a folder and its parents, or raise a WriteError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(path.name, path.parent, error) from error


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last through a power cut, where the file system can."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # some network file systems know no such thing
            raise
    finally:
        os.close(handle)


class InUse(ScanlearnError):
    """Another process has the lock."""


def lock(file: IO[Any], path: Path) -> bool:
    """Lock an open file for this process until it is closed; the system lets go however the process ends.

    Returns:
        False where the file system knows no locks (some network shares), so that nobody can tell.

    Raises:
        InUse: another process has it.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InUse(f"Another process is writing {path}: wait for it or choose another --out.") from error
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            raise
        return False
    return True


# ---------------------------------------------------------------- reading


def read_bounded(path: Path, what: str, limit: int) -> str:
    """The text of a small UTF-8 file of unknown origin; larger ones are refused unread."""
    try:
        if path.stat().st_size > limit:
            raise ScanlearnError(f"{what} is larger than {size(limit)}, so it is not one that scanlearn wrote.")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ScanlearnError(f"{what} is no text: it is damaged.") from error
    except OSError as error:
        raise ScanlearnError(f"{what} cannot be read ({error.strerror}).") from error


def read_json(path: Path, what: str) -> dict[str, Any]:
    """The mapping in a JSON file of unknown origin: bounded in size and depth, all its numbers finite."""
    return parse_json(read_bounded(path, what, JSON_BYTES), what)


def parse_json(text: str, what: str) -> dict[str, Any]:
    """``read_json`` of a text; ``what`` is the subject of the sentence that refuses it."""
    try:
        data = json.loads(text, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError) as error:
        raise ScanlearnError(f"{what} is no readable JSON: it is damaged.") from error
    if not isinstance(data, dict):
        raise ScanlearnError(f"{what} holds a {type(data).__name__} where a mapping should be.")
    if too_deep(data, JSON_DEPTH):
        raise ScanlearnError(
            f"{what} is nested deeper than {JSON_DEPTH} levels, so it is not one that scanlearn wrote."
        )
    return data


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number that is not finite")
    return value


def too_deep(data: Any, limit: int) -> bool:
    """Whether lists and mappings lie in each other more than ``limit`` times; written without recursion."""
    level = [data]
    for _ in range(limit + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True
