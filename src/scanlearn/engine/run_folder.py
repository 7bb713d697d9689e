"""The folder of a run: what was asked, on what, what happened. One writer at a time; nothing is half-written."""

from __future__ import annotations

import fcntl
import json
import math
import os
from pathlib import Path
from typing import Any, TextIO

from scanlearn.errors import ScanlearnError


def write_atomic(path: Path, text: str) -> None:
    """Write a text file so that a reader, or a crash, sees the old or the new one and nothing between."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_json(path: Path, data: Any) -> None:
    """``write_atomic`` of indented JSON; a figure that cannot be told (NaN) becomes null, which JSON knows."""
    write_atomic(path, json.dumps(without_nan(data), indent=1, allow_nan=False) + "\n")


def without_nan(data: Any) -> Any:
    """The same data with None for NaN and infinities."""
    if isinstance(data, dict):
        return {key: without_nan(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [without_nan(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def run_of(weights: Path | str) -> Path:
    """The run folder that weights lie in, given the run, its ``encoder`` folder or the file in it."""
    path = Path(weights)
    path = path.parent if path.suffix == ".safetensors" else path
    return path.parent if path.name == "encoder" else path


class RunFolder:
    """``out`` with its fixed names. ``create`` refuses to write over a run, or beside another writer."""

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self._lock: TextIO | None = None

    recipe = property(lambda self: self.path / "recipe.yaml")
    environment = property(lambda self: self.path / "environment.json")
    catalog = property(lambda self: self.path / "catalog.parquet")
    splits = property(lambda self: self.path / "splits.json")
    metrics = property(lambda self: self.path / "metrics.jsonl")
    results = property(lambda self: self.path / "results.json")
    checkpoints = property(lambda self: self.path / "checkpoints")
    encoder = property(lambda self: self.path / "encoder")
    report = property(lambda self: self.path / "report.html")

    def create(self, resume: bool) -> None:
        """Make the folder and take its lock, which the system releases however this process ends."""
        if self.recipe.exists() and not resume:
            raise ScanlearnError(f"{self.path} already holds a run: choose another --out, or go on with --resume.")
        if resume and not self.recipe.exists():
            raise ScanlearnError(f"{self.path} holds no run to resume: leave --resume out to start one.")
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / ".lock").open("w", encoding="utf-8")
        except OSError as error:
            raise ScanlearnError(f"{self.path} cannot be written ({error.strerror}): choose another --out.") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise ScanlearnError(
                f"Another process is writing {self.path}: wait for it or choose another --out."
            ) from error

    def release(self) -> None:
        """Give the lock back."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def read_metrics(self, kind: str | None = None) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl (of one kind); a last line cut by a crash is left out."""
        if not self.metrics.exists():
            return []
        lines = []
        for text in self.metrics.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                continue
            if kind is None or line.get("kind") == kind:
                lines.append(line)
        return lines


class MetricLog:
    """Appends lines to metrics.jsonl, and to TensorBoard where it is installed."""

    def __init__(self, run: RunFolder, start_step: int):
        # A resumed run says the steps after its checkpoint again: their old lines go, so that each step is there once.
        kept = [line for line in run.read_metrics() if line["step"] <= start_step]
        write_atomic(run.metrics, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = run.metrics.open("a", encoding="utf-8")
        self._board: Any = _summary_writer(run.path / "tensorboard", start_step)

    def write(self, step: int, kind: str, values: dict[str, Any]) -> None:
        """One line ``{"step", "kind", ...}``; numbers are rounded to six digits."""
        rounded = {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in values.items()}
        self._file.write(json.dumps(without_nan({"step": step, "kind": kind, **rounded})) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, int | float):
                    self._board.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Flush and close."""
        self._file.close()
        if self._board is not None:
            self._board.close()


def _summary_writer(folder: Path, start_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=start_step + 1)
