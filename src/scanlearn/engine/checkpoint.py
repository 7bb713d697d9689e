"""Checkpoints that are whole or not there. Written beside the last good one, forced to disk, then renamed."""

from __future__ import annotations

import errno
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from torch import Tensor

from scanlearn.console import warn
from scanlearn.errors import ScanlearnError
from scanlearn.files import WriteError, replacing

KEEP = 2


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint after ``step`` steps lies."""
    return folder / f"step_{step:09d}.ckpt"


def checkpoints(folder: Path) -> list[Path]:
    """Finished checkpoints, oldest first."""
    return sorted(folder.glob("step_*.ckpt"))


def save_checkpoint(fabric: Fabric, folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write ``state`` (modules, optimisers, plain numbers) as the checkpoint after ``step`` steps; keeps the last two.

    All ranks call this. A crash at any moment leaves the earlier checkpoints untouched and at most a temporary file.

    Raises:
        WriteError: no room, a quota, a failing disk; the earlier checkpoints are whole and nothing half-written lies
            beside them.
    """
    final = checkpoint_path(folder, step)
    state = {**state, "step": step}
    if fabric.is_global_zero:
        with _replacing(final, state_bytes(state), step) as temporary:
            fabric.save(temporary, state)
        # Only now, with the new one safe, the oldest go; and any of a later step, which could not be read.
        found = checkpoints(folder)
        for old in [path for path in found if path > final] + [path for path in found if path <= final][:-KEEP]:
            old.unlink()
    else:
        fabric.save(final, state)  # takes part in the gathering; the first rank writes
    fabric.barrier()
    return final


@contextmanager
def _replacing(final: Path, needed: int, step: int) -> Iterator[Path]:
    """``replacing`` whose errors name the step."""
    try:
        with replacing(final, needed) as temporary:
            try:
                yield temporary
            except RuntimeError as error:  # how PyTorch's own writer (FSDP) says that the disk took no more
                if "PytorchStreamWriter" in str(error) or "unexpected pos" in str(error):
                    raise OSError(errno.ENOSPC, "no space left on the disk") from error
                raise
    except WriteError as error:
        raise WriteError(f"The checkpoint of step {step}", final.parent, error.error, needed) from error


class CheckedIO(TorchCheckpointIO):
    """Straight to the file: no copy of all weights in memory, no detour over the system's folder for temporary files."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write the file; what the system says of a full disk comes through as the OSError it is."""
        with Path(path).open("wb") as file:
            sink = _Sink(file)
            try:
                torch.save(checkpoint, sink)  # type: ignore[arg-type]
            except RuntimeError as error:
                raise sink.error or error from error

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        """Tensors and plain values, onto the CPU; pickled code is refused."""
        return torch.load(path, map_location="cpu", weights_only=True)


class _Sink:
    """A file that remembers why it took no more: PyTorch's writer turns every error into one of its own."""

    def __init__(self, file: IO[bytes]):
        self.file, self.error = file, None

    error: OSError | None

    def write(self, data: Any) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def state_bytes(state: dict[str, Any]) -> int:
    """About how large the checkpoint of a state is: all its tensors."""
    total, waiting = 0, [value.state_dict() if hasattr(value, "state_dict") else value for value in state.values()]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            total += value.numel() * value.element_size()
        elif isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list | tuple):
            waiting += value
    return total


def load_latest(fabric: Fabric, folder: Path, state: dict[str, Any]) -> int:
    """Load the newest readable checkpoint into ``state``'s modules and optimisers; returns its step, 0 without any.

    A damaged newest one (a disk that lied) is named, and the one before it is used.
    """
    found = checkpoints(folder)
    for path in reversed(found):
        why, step = damage(path), 0
        try:
            if why is None:
                fabric.load(path, state, weights_only=True)
                step = state["step"]
                why = _misfit(state, step, path)
        except Exception as error:  # a file of unknown origin may fail in any way, inside PyTorch's reader
            why = f"it does not fit ({type(error).__name__})"
        if why is None:
            return step
        if path == found[0]:
            break
        if fabric.is_global_zero:
            warn(f"checkpoint {path.name} is damaged ({why}); going on from the one before it.")
    if found:
        raise ScanlearnError(
            f"No checkpoint in {folder} can be read, the oldest because {why}: start the run again in another --out."
        )
    return 0


def damage(path: Path) -> str | None:
    """Why a checkpoint file is not whole, or None. Each record has its checksum (CRC-32), which PyTorch does not check."""
    try:
        with zipfile.ZipFile(path) as file:
            if any(record.compress_type != zipfile.ZIP_STORED for record in file.infolist()):
                return "it is packed as no checkpoint is"
            if sum(record.file_size for record in file.infolist()) > path.stat().st_size:
                return "it claims to hold more than it is long"
            bad = file.testzip()
    except Exception:  # zipfile has many ways to fail on a damaged file
        return "it is cut off or no checkpoint at all"
    return None if bad is None else "its checksum differs"


def _misfit(state: dict[str, Any], step: Any, path: Path) -> str | None:
    """Why what was loaded cannot be gone on from, or None: PyTorch's optimisers take tensors of any shape."""
    if type(step) is not int or path != checkpoint_path(path.parent, step):
        return "it is of another step than its name says"
    optimizer = state.get("optimizer")
    for parameter, values in getattr(optimizer, "state", {}).items():
        for value in values.values():
            fits = not isinstance(value, Tensor) or value.ndim == 0 or value.shape == parameter.shape
            if not fits:
                return "the state of its optimiser has other shapes"
    return None
