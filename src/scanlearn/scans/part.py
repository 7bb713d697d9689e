"""The hidden folder in which a store grows, ``.NAME.part`` beside it: one process at a time, and nothing half-written.

.NAME.part/ lock        held by the process that writes
            journal     which rows are done
            apart/      what a process is writing at this moment
            store/      what becomes the store
            old/        the store that was replaced, until the new one is in its place
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from scanlearn.errors import ScanlearnError
from scanlearn.files import lock, sync_folder
from scanlearn.scans.writers import writing


class Part:
    """Paths within the hidden folder of the store ``out``; held by this process while ``hold`` lasts."""

    def __init__(self, out: Path):
        self.out = out
        self.folder = out.with_name(f".{out.name}.part")
        self.journal, self.apart = self.folder / "journal", self.folder / "apart"
        self.store, self.old = self.folder / "store", self.folder / "old"
        self.kept = 0  # rows that are done
        self._busy = self._asked = False
        self.keep = self.journal.exists()  # what is in it serves the next try

    @contextmanager
    def stoppable(self) -> Iterator[None]:
        """SIGTERM (a scheduler's "stop now") is answered like Ctrl-C; only the main thread may say so."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """A signal that comes within is answered at the end."""
        self._busy = True
        try:
            yield
        finally:
            self._busy = False
        if self._asked:
            raise KeyboardInterrupt

    def _stop(self, *_: object) -> None:
        self._asked = True
        if not self._busy:
            raise KeyboardInterrupt

    def put_back(self) -> None:
        """A kill came between taking the old store away and putting the new one in its place: undo the first."""
        if not self.out.exists() and self.old.exists():
            self.old.rename(self.out)

    def clear(self) -> None:
        """Forget every row."""
        shutil.rmtree(self.store, ignore_errors=True)

    def move_in(self) -> None:
        """Put the finished store in its place; an old one goes only when the new one is whole."""
        for path in self.store.iterdir():
            if path.is_file():
                _sync(path)
        if self.out.exists():
            self.out.rename(self.old)
        self.store.rename(self.out)
        sync_folder(self.out.parent)
        self.keep = False


@contextmanager
def hold(out: Path) -> Iterator[Part]:
    """The hidden folder of a store, locked: a second process that wants it is refused in one sentence."""
    part = Part(out)
    with writing(out.parent):
        held = _lock(part)
        shutil.rmtree(part.apart, ignore_errors=True)
        part.put_back()
        shutil.rmtree(part.old, ignore_errors=True)
    try:
        with part.stoppable():
            yield part
    finally:
        shutil.rmtree(part.apart if part.keep else part.folder, ignore_errors=True)
        held.close()


def look_after(out: Path, *, keep: bool) -> None:
    """Raise ScanlearnError if another process writes this store; put an old store back that a kill took away.

    keep: whether what an unfinished try left is kept.
    """
    if Part(out).folder.is_dir():
        with hold(out) as part:
            part.keep = keep


def _lock(part: Part) -> IO[bytes]:
    while True:
        part.folder.mkdir(parents=True, exist_ok=True)
        try:
            held = (part.folder / "lock").open("ab")
        except FileNotFoundError:
            continue  # the one that held it finished and removed the folder
        try:
            lock(held, part.out)
        except ScanlearnError:
            held.close()
            raise
        if os.fstat(held.fileno()).st_nlink:
            return held
        held.close()


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
