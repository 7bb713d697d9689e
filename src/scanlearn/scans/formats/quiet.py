"""Readers of the field print and warn; here what is wrong with a file is said once, as a FileError."""

from __future__ import annotations

import gzip
import logging
import os
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

_LOGGERS = ("nibabel.global", "tifffile", "PIL", "pydicom")
_stderr = threading.Lock()


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings and no log lines of the readers; both are as before afterwards."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """No lines of C libraries (ITK's MetaIO, libtiff) on stderr, which they write to past Python.

    The file descriptor belongs to the whole process: one thread at a time, and around the decoding alone.
    """
    with _stderr:
        try:
            kept = os.dup(2)
        except OSError:  # there is no stderr to keep clean
            yield
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(nowhere)
            os.close(kept)


def reason_of(error: Exception) -> str:
    """The sentence for what a reader raised. Its own words may quote the file or its path, so they are not passed on."""
    if isinstance(error, MemoryError):
        return "does not fit into the memory of this machine."
    if isinstance(error, EOFError):
        return "is cut off."
    if isinstance(error, zlib.error | gzip.BadGzipFile):
        return "is damaged: its compressed data do not unpack."
    if isinstance(error, OSError) and error.errno:
        return f"cannot be read ({os.strerror(error.errno)})."
    return f"cannot be read: it is damaged or of an unknown kind ({type(error).__name__})."
