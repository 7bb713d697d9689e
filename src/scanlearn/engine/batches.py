"""The batches of a run, whatever becomes of the processes that read them.

A batch is a function of (seed, step), so reading can be begun again at any step and gives the same batches: a process
that was killed, or that hangs, costs seconds and changes nothing.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np

from scanlearn.console import warn
from scanlearn.errors import ScanlearnError
from scanlearn.scans.loader import Batch, Loader
from scanlearn.scans.store import Store

TRIES = 3  # times that reading is begun anew without getting one batch further
TIMEOUT = 1800.0  # seconds without a batch after which reading counts as hung


class Unreadable(Exception):
    """No further batch can be had; says why, without advice."""


class Batches:
    """Iterate over the batches of a loader from step ``first`` on.

    Args:
        loader_at: the loader that starts at a step.
        store: what is read, to name the scan that cannot be read.
        first: the first step.
        timeout: seconds to wait for one batch.

    Raises (while iterating):
        Unreadable: a scan cannot be read, or the reading processes die or hang again and again.
    """

    def __init__(self, loader_at: Callable[[int], Loader], store: Store, first: int, timeout: float = TIMEOUT):
        self._loader_at, self._store, self._at, self._timeout = loader_at, store, first, timeout
        self._failures = 0  # since the last batch
        self._said = False
        self._reader = _Reader(loader_at(first))

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        batch = self._taken()
        self._at += 1
        self._failures = 0
        return batch

    def close(self) -> None:
        """Stop reading."""
        self._reader.close()

    def _taken(self) -> Batch:
        while True:
            try:
                return self._reader.take(self._timeout)
            except StopIteration:
                raise
            except TimeoutError as error:
                if not self._reader.loader.workers:
                    raise Unreadable(f"no batch could be read within {self._timeout:g} seconds") from error
                self._again("hung", error)
            except Exception as error:
                if not self._reader.died:
                    return self._read_here(error)
                self._again("died (killed, perhaps for want of memory)", error)

    def _again(self, what: str, error: Exception) -> None:
        """Begin reading anew at the step where it stopped."""
        self._reader.close()
        self._failures += 1
        if self._failures > TRIES:
            raise Unreadable(f"the reading processes {what} {self._failures} times at the same step") from error
        if not self._said:
            warn(f"a reading process {what}; reading goes on where it stopped and nothing is lost.")
            self._said = True
        self._reader = _Reader(self._loader_at(self._at))

    def _read_here(self, error: Exception) -> Batch:
        """The batch that a reading process or thread failed at, read once more, where an error keeps its type."""
        loader = self._reader.loader
        self._reader.close()
        try:
            batch = loader.steps[self._at]
        except Exception as again:
            raise self._blamed(loader, again) from again
        if not self._said:
            warn(f"reading failed once ({type(error).__name__}) and then went well; nothing is lost.")
            self._said = True
        self._reader = _Reader(self._loader_at(self._at + 1))
        return batch

    def _blamed(self, loader: Loader, error: Exception) -> Exception:
        """The error that names the scan at which reading fails; another one is given back as it is."""
        for row in np.unique(loader.steps.rows_at(self._at)):
            try:
                self._store.read([int(row)])
            except ScanlearnError:
                return Unreadable(f"the scan {self._name(row)} cannot be read any more: it is missing or damaged")
        return error

    def _name(self, row: int) -> str:
        try:
            return str(self._store.catalog.take([row]).column("scan_id")[0])
        except Exception:  # the catalogue may be gone with the rest of the store
            return f"in row {row}"


class _Reader:
    """Takes batches from a loader in a thread of its own, so that whoever waits for them can stop waiting."""

    def __init__(self, loader: Loader):
        self.loader = loader
        self._iterator = iter(loader)
        self._ready: queue.Queue[tuple[Batch | None, Exception | None]] = queue.Queue(1)
        self._closed = threading.Event()
        self.died = False  # whether one of the reading processes has ended before its time
        self._thread = threading.Thread(target=self._pull, name="batches", daemon=True)
        self._thread.start()

    def take(self, timeout: float) -> Batch:
        """The next batch; raises what reading raised, TimeoutError, or StopIteration after the last one."""
        try:
            batch, error = self._ready.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError from None
        if error is not None:
            raise error
        assert batch is not None
        return batch

    def close(self) -> None:
        """End the thread and the reading processes, hanging ones by force."""
        self._closed.set()
        with suppress(queue.Empty):
            self._ready.get_nowait()
        self._thread.join(1.0 if self._workers else 0.1)
        if self._thread.is_alive():
            for worker in self._workers:
                worker.kill()

    @property
    def _workers(self) -> list[Any]:
        return getattr(self._iterator, "_workers", [])

    def _pull(self) -> None:
        try:
            for batch in self._iterator:
                if not self._put(batch, None):
                    return
            self._put(None, StopIteration())
        except Exception as error:
            cut = isinstance(error, ConnectionError | EOFError)  # it died between sending word of a batch and the batch
            self.died = cut or not all(worker.is_alive() for worker in self._workers)
            self._put(None, error)
        finally:
            close = getattr(self._iterator, "close", None) or getattr(self._iterator, "_shutdown_workers", None)
            if close is not None:
                close()

    def _put(self, batch: Batch | None, error: Exception | None) -> bool:
        while not self._closed.is_set():
            with suppress(queue.Full):
                self._ready.put((batch, error), timeout=0.2)
                return True
        return False
