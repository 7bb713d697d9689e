"""Processes that read scans, so that a file which crashes, hangs or fills memory costs only itself.

They are started by loky, which does not run the user's script again, and are used again by the next call.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from scanlearn.errors import ScanlearnError

T = TypeVar("T")
R = TypeVar("R")

# Idle processes are given back after so many seconds.
IDLE_SECONDS = 60
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",
    "OPENBLAS_NUM_THREADS": "1",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1",
    "PYTHONFAULTHANDLER": "",  # a process that a file killed is reported in one sentence, not by a stack
}


@dataclass(frozen=True)
class Lost:
    """In place of a result: the process that worked on this task ended, or did not come back."""

    reason: str


def run_in_order(
    function: Callable[[T], R], groups: Iterable[Sequence[T]], workers: int, *, seconds: float, ahead: int = 4
) -> Iterator[R | Lost]:
    """Results of all tasks in their order, computed by processes; small tasks travel in groups.

    function and tasks are pickled. workers: 0 computes in this process, where nothing is survived. seconds: after so
    long without a result a group is taken apart, and the task that hangs is given up. ahead: groups under way for each
    process, whose results may wait in memory. Exceptions of ``function`` are raised here.
    """
    if workers == 0:
        for group in groups:
            yield from map(function, group)
        return
    crew: _Crew[T, R] = _Crew(function, workers, seconds, ahead)
    try:
        for group in groups:
            crew.submit(group)
            if crew.busy:
                yield from crew.oldest()
        while crew.waiting:
            yield from crew.oldest()
    finally:
        crew.cancel()


class _Crew(Generic[T, R]):
    """The groups under way, oldest first, and the processes that work on them."""

    def __init__(self, function: Callable[[T], R], workers: int, seconds: float, ahead: int):
        self._function, self._workers, self._seconds, self._ahead = function, workers, seconds, ahead
        self.waiting: deque[tuple[Sequence[T], Future[list[R]]]] = deque()

    @property
    def busy(self) -> bool:
        """True where enough is under way to keep every process at work."""
        return len(self.waiting) > self._ahead * self._workers

    def submit(self, group: Sequence[T]) -> None:
        """Hand a group to the processes, which are started again if they are gone."""
        try:
            future = self._executor().submit(_each, self._function, group)
        except (RuntimeError, OSError) as error:
            if isinstance(error, OSError):
                raise ScanlearnError(f"The processes that read do not start ({error}); try --workers 0.") from error
            # One of them died meanwhile: what it worked on is found out when its turn comes.
            future = Future()
            future.set_exception(error)
        self.waiting.append((group, future))

    def oldest(self) -> list[R | Lost]:
        """The results of the group that waits longest; after a death, of all that were under way."""
        _, future = self.waiting[0]
        try:
            # Groups are begun in their order, so the oldest one is being worked on.
            results: list[R | Lost] = list(future.result(timeout=self._seconds))
        except (RuntimeError, TimeoutError) as error:
            if future.done() and not _is_death(error):
                raise
            return self._one_at_a_time()
        self.waiting.popleft()
        return results

    def cancel(self) -> None:
        """End what is still under way, so that nobody writes into a folder that is given up."""
        if self.waiting:
            self._executor().shutdown(wait=True, kill_workers=True)

    def _one_at_a_time(self) -> list[R | Lost]:
        """Results of everything under way, each task alone with the processes, so that the culprit shows itself."""
        waiting, self.waiting = self.waiting, deque()
        self._restart()
        out: list[R | Lost] = []
        for group, future in waiting:
            if future.done() and not future.cancelled() and future.exception() is None:
                out += future.result()
            else:
                out += [self._alone(task) for task in group]
        return out

    def _alone(self, task: T) -> R | Lost:
        future = self._executor().submit(_each, self._function, [task])
        try:
            return future.result(timeout=self._seconds)[0]
        except (RuntimeError, TimeoutError) as error:
            hangs = not future.done()
            if not hangs and not _is_death(error):
                raise
            self._restart()
            if hangs:
                return Lost(f"was not read within {self._seconds:g} seconds.")
            return Lost(f"ended the program that read it{_signal_of(error)}.")

    def _executor(self) -> Any:
        from loky import get_reusable_executor

        return get_reusable_executor(
            self._workers, timeout=IDLE_SECONDS, initializer=_begin, initargs=(os.getpid(),), env=_ENVIRONMENT
        )

    def _restart(self) -> None:
        """New processes, and a word with them: if they die without a file, no file is to blame."""
        self._executor().shutdown(wait=True, kill_workers=True)
        future = self._executor().submit(os.getpid)
        try:
            future.result(timeout=max(self._seconds, 60.0))
        except (RuntimeError, TimeoutError) as error:
            raise ScanlearnError(
                f"The processes that read scans do not start{_signal_of(error)}; try --workers 0."
            ) from error


def _each(function: Callable[[T], R], group: Sequence[T]) -> list[R]:
    return [function(task) for task in group]


def _is_death(error: BaseException) -> bool:
    # Not every broken pool: a task that cannot be pickled is a fault of the program.
    from loky.process_executor import ShutdownExecutorError, TerminatedWorkerError

    return isinstance(error, TerminatedWorkerError | ShutdownExecutorError)


def _signal_of(error: BaseException) -> str:
    found = re.search(r"\((-?\d+)\)", str(error).partition("exit codes")[2])
    if found is None:
        return ""
    code = int(found[1])
    return f" (signal {-code})" if code < 0 else f" (exit code {code})"


def _begin(parent: int) -> None:
    """In a new process: Ctrl-C is the parent's business, and without the parent there is nothing left to do.

    It says nothing on the console: warnings of decoders quote file names and identifiers.
    """
    import scanlearn.scans.conform  # noqa: F401  # now, not on the first scan's time

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(silence, stream)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(0)
