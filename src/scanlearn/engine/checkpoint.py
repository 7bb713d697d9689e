"""Checkpoints that are whole or not there. Written beside the last good one, forced to disk, then renamed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from scanlearn.console import warn
from scanlearn.errors import ScanlearnError

KEEP = 2


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint after ``step`` steps lies."""
    return folder / f"step_{step:09d}.ckpt"


def checkpoints(folder: Path) -> list[Path]:
    """Finished checkpoints, oldest first."""
    return sorted(folder.glob("step_*.ckpt"))


def save_checkpoint(fabric: Fabric, folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write ``state`` (modules, optimisers, plain numbers) as the checkpoint after ``step`` steps; keeps the last two.

    All ranks call this. A crash at any moment leaves the earlier checkpoints untouched and at most a ``.tmp``.
    """
    final = checkpoint_path(folder, step)
    temporary = final.with_suffix(".tmp")
    if fabric.is_global_zero:
        _remove(temporary)
    fabric.barrier()
    try:
        fabric.save(temporary, {**state, "step": step})
    except OSError as error:
        _remove(temporary)
        raise ScanlearnError(
            f"The checkpoint of step {step} could not be written to {folder} ({error.strerror}); the last good one is kept: "
            "make room and go on with --resume."
        ) from error
    fabric.barrier()
    if fabric.is_global_zero:
        _sync(temporary)
        temporary.replace(final)
        _sync_folder(folder)
        for old in checkpoints(folder)[:-KEEP]:
            _remove(old)
        for left in folder.glob("*.tmp"):
            _remove(left)
    fabric.barrier()
    return final


def load_latest(fabric: Fabric, folder: Path, state: dict[str, Any]) -> int:
    """Load the newest readable checkpoint into ``state``'s modules and optimisers; returns its step.

    A damaged newest one (a disk that lied) is named, and the one before it is used.
    """
    found = checkpoints(folder)
    for path in reversed(found):
        try:
            rest = fabric.load(path, state, weights_only=True)
        except (RuntimeError, EOFError, OSError) as error:
            if path == found[0]:
                raise ScanlearnError(f"No checkpoint in {folder} can be read: start again without --resume.") from error
            warn(f"checkpoint {path.name} is damaged; going on from the one before it.")
            continue
        return int(state.get("step", rest.get("step", 0)))
    return 0


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    for file in [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]:
        with file.open("rb") as handle:
            os.fsync(handle.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
