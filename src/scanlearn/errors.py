"""Errors that a person can act on: one sentence that says what is wrong, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ScanlearnError(Exception):
    """Something the user can put right. The command line prints the sentence and no traceback."""


class Interrupted(ScanlearnError):
    """A signal asked to stop. What was done is saved, and the same work can go on from there."""


class FileError(ScanlearnError):
    """A file that cannot be used. ``path`` may name a patient; ``reason`` never does, so that it may be written down.

    The message is ``"{path}: {reason}"``. The reason is a sentence without its subject ("is empty.", "is cut off after
    512 bytes.") and quotes nothing from the file but numbers and names of the format.
    """

    def __init__(self, path: object, reason: str):
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = str(path), reason


def nearest(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the known name nearest to ``name``, else a short list of what is known."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
    return f"; known are: {shown}." if known else "."


def unknown(kind: str, name: str, known: Iterable[str]) -> ScanlearnError:
    """The error for a name that is not among the known ones, with the nearest of them."""
    return ScanlearnError(f"There is no {kind} {name!r}{nearest(name, known)}")
