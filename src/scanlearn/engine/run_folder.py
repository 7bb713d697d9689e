"""The folder of a run: what was asked, on what, what happened. One writer at a time; nothing is half-written."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from scanlearn.console import warn
from scanlearn.errors import ScanlearnError
from scanlearn.files import WriteError, lock, parse_json, read_json, to_json, write_atomic

LINE_BYTES = 1 << 20  # a line of metrics.jsonl has a few hundred


def run_of(weights: Path | str) -> Path:
    """The run folder that weights lie in, given the run, its ``encoder`` folder or the file in it."""
    path = Path(weights)
    path = path.parent if path.suffix == ".safetensors" else path
    return path.parent if path.name == "encoder" else path


class RunFolder:
    """``out`` with its fixed names. ``create`` refuses to write over a run, or beside another writer."""

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self._lock: IO[Any] | None = None

    recipe = property(lambda self: self.path / "recipe.yaml")
    environment = property(lambda self: self.path / "environment.json")
    metrics = property(lambda self: self.path / "metrics.jsonl")
    results = property(lambda self: self.path / "results.json")
    checkpoints = property(lambda self: self.path / "checkpoints")
    encoder = property(lambda self: self.path / "encoder")
    stages = property(lambda self: self.path / "stages")
    words = property(lambda self: self.path / "words")
    report = property(lambda self: self.path / "report.html")

    def create(self, resume: bool) -> None:
        """Make the folder and take its lock, which the system releases however this process ends."""
        if self.recipe.exists() and not resume:
            raise ScanlearnError(f"{self.path} already holds a run: choose another --out, or go on with --resume.")
        if resume and not self.recipe.exists():
            raise ScanlearnError(f"{self.path} holds no run to resume: leave --resume out to start one.")
        self.acquire()

    def acquire(self) -> None:
        """Take the lock of the folder; a folder that cannot be written is refused before any work.

        Raises:
            ScanlearnError: another process holds it, or nothing can be written there.
        """
        if self._lock is not None:
            return
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            for folder in (self.path, self.checkpoints):
                if not os.access(folder, os.W_OK | os.X_OK):
                    raise PermissionError(errno.EACCES, "it can only be read")
            held = (self.path / ".lock").open("wb", buffering=0)
        except OSError as error:
            raise WriteError("A run", self.path, error, advice="choose another --out") from error
        try:
            if not lock(held, self.path):
                warn(f"the file system of {self.path} knows no locks: see to it that no second process writes there.")
            held.write(b"locked while a process writes here\n")  # a full disk is better met now than after an hour
            os.fsync(held.fileno())
        except OSError as error:
            held.close()
            raise WriteError("A run", self.path, error) from error
        except ScanlearnError:
            held.close()
            raise
        self._lock = held
        for folder in (self.checkpoints, self.encoder):  # what a kill left half-written; nobody else writes there now
            for left in folder.glob(".*.tmp*"):
                left.unlink(missing_ok=True)

    def release(self) -> None:
        """Give the lock back."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @contextmanager
    def held(self) -> Iterator[RunFolder]:
        """The lock of the folder for what stands inside."""
        self.acquire()
        try:
            yield self
        finally:
            self.release()

    def read_environment(self) -> dict[str, Any]:
        """What ``environment.json`` says; damage is refused in one sentence."""
        return read_json(self.environment, f"{self.path.name}/{self.environment.name}")

    def read_metrics(self, kind: str | None = None) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl (of one kind): ``step`` int, ``kind`` str, numbers or None, ``stage`` and ``warning`` str.

        A last line cut by a crash is left out. Other lines that are no record are left out as well, and it is said.
        """
        if not self.metrics.exists():
            return []
        lines, damaged = [], 0
        try:
            texts = self.metrics.read_bytes().split(b"\n")
        except OSError as error:
            raise ScanlearnError(f"{self.metrics} cannot be read ({error.strerror}).") from error
        for text in texts[:-1]:  # a whole line ends in a line break: what stands behind the last one is cut
            line = _record(text)
            damaged += line is None
            if line is not None and (kind is None or line["kind"] == kind):
                lines.append(line)
        if damaged:
            warn(
                f"{damaged} of {len(texts) - 1} lines of {self.path.name}/{self.metrics.name} are damaged and left out."
            )
        return lines


def _record(text: bytes) -> dict[str, Any] | None:
    """One line of the log, or None for what is none."""
    if len(text) > LINE_BYTES:
        return None
    try:
        line = parse_json(text.decode("utf-8"), "the line")
    except (ScanlearnError, UnicodeDecodeError):
        return None
    step, kind = line.get("step"), line.get("kind")
    if type(step) is not int or not 0 <= step < 2**53 or not isinstance(kind, str):
        return None
    values = {name: value for name, value in line.items() if name not in ("kind", "stage", "warning")}
    fine = all(value is None or type(value) in (int, float, bool) for value in values.values())
    fine = fine and all(abs(value) < 2**1000 for value in values.values() if type(value) is int)
    return line if fine and all(isinstance(line.get(name, ""), str) for name in ("stage", "warning")) else None


class MetricLog:
    """Appends lines to metrics.jsonl, and to TensorBoard where it is installed."""

    def __init__(self, run: RunFolder, start_step: int):
        # A resumed run says the steps after its checkpoint again: their old lines go, so that each step is there once.
        kept = [line for line in run.read_metrics() if line["step"] <= start_step]
        write_atomic(run.metrics, "".join(to_json(line) + "\n" for line in kept))
        self._path = run.metrics
        try:
            self._file = run.metrics.open("ab", buffering=0)
        except OSError as error:
            raise WriteError(self._path.name, self._path.parent, error) from error
        self._board: Any = _summary_writer(run.path / "tensorboard", start_step)

    def write(self, step: int, kind: str, values: dict[str, Any]) -> None:
        """One line ``{"step", "kind", ...}``; numbers are rounded to six digits.

        Raises:
            WriteError: there is no room for the line; nothing of it is left in the file.
        """
        rounded = {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in values.items()}
        line = (to_json({"step": step, "kind": kind, **rounded}) + "\n").encode()
        before = self._path.stat().st_size
        try:
            written = self._file.write(line)
            if written != len(line):
                self._file.write(line[written:])  # says why
            self._to_board(step, kind, values)
        except OSError as error:
            os.truncate(self._path, before)
            raise WriteError(self._path.name, self._path.parent, error, len(line)) from error

    def _to_board(self, step: int, kind: str, values: dict[str, Any]) -> None:
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, int | float):
                    self._board.add_scalar(f"{kind}/{name}", value, step)

    def sync(self) -> None:
        """Force the lines to the disk, so that no checkpoint is younger than they are."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise WriteError(self._path.name, self._path.parent, error) from error

    def close(self) -> None:
        """Flush and close."""
        self._file.close()
        if self._board is not None:
            try:
                self._board.close()
            except OSError:
                warn("TensorBoard's copy of the log is not complete; metrics.jsonl is.")


def _summary_writer(folder: Path, start_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    try:
        return SummaryWriter(str(folder), purge_step=start_step + 1)
    except OSError as error:
        raise WriteError("TensorBoard's log", folder, error) from error
