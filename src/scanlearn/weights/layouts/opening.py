"""The tensors in a file of any origin, by name; no code in it is run, and it cannot ask for more memory than its size.

Read are files of ``torch.save`` (also from before PyTorch 1.6), .safetensors, and HDF5 from Keras.
"""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core import multiarray
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor

from scanlearn.errors import ScanlearnError
from scanlearn.files import size
from scanlearn.weights.reading import DTYPES, pickled

LARGEST_FILE = 16 << 30
WEIGHTS = ("state_dict", "model")  # under which training code keeps the weights, beside what it keeps of the training

# NumPy's floats, as which some code saves its best loss: under the name of NumPy 1 and of NumPy 2; and the settings of
# a command line. They run nothing.
_PLAIN = (
    (multiarray.scalar, "numpy.core.multiarray.scalar"),
    multiarray.scalar,
    np.dtype,
    np.dtypes.Float64DType,
    argparse.Namespace,
)


@dataclass(frozen=True)
class Opened:
    """The tensors of a file, and what lies beside them (epoch, state of the optimiser, ...), by name."""

    tensors: dict[str, Tensor]
    beside: list[str] = field(default_factory=list)


def open_tensors(file: Path) -> Opened:
    """Read a file of weights.

    Raises:
        ScanlearnError: no such file; damaged; objects in it whose code would run; larger than it looks; values that
            are no tensors of a network among the weights.
    """
    try:
        whole = file.stat().st_size
        with file.open("rb") as opened:
            head = opened.read(8)
    except OSError as error:
        raise ScanlearnError(f"{file} cannot be read ({error.strerror}): give a file of weights.") from error
    if whole > LARGEST_FILE:
        raise ScanlearnError(f"{file} is larger than {size(LARGEST_FILE)}, which no published network is.")
    if head == b"\x89HDF\r\n\x1a\n":
        from scanlearn.weights.layouts.hdf5 import read_hdf5

        found = Opened(*read_hdf5(file))
    elif file.suffix == ".safetensors":
        found = Opened(_read_safetensors(file))
    else:
        found = _weights_in(_read_pickle(file), file)
    for name, tensor in found.tensors.items():
        _check(file, name, tensor)
    if sum(tensor.nbytes for tensor in found.tensors.values()) > whole:
        raise ScanlearnError(f"The tensors in {file} are declared larger than the file is: it is forged or damaged.")
    return found


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        return safetensors.load(file.read_bytes())
    except (SafetensorError, OSError, ValueError, KeyError, RecursionError) as error:
        raise ScanlearnError(f"{file} cannot be read as a safetensors file: it is damaged, fetch it again.") from error


def _read_pickle(file: Path) -> Any:
    """What ``torch.save`` wrote; names the globals that it would have had to call for anything but plain values."""
    _refuse_compressed(file)
    with torch.serialization.safe_globals(list(_PLAIN)), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pickle protocols
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # a pickle can make any error happen
            if not isinstance(error, pickle.UnpicklingError):
                raise ScanlearnError(f"{file} cannot be read as weights: it is damaged, fetch it again.") from error
            called = re.search(r"GLOBAL ([\w.]{1,80})", str(error))
            told = pickled(file)
            if "without running its code" in told and called:
                told = f"holds pickled objects whose code would run when they are opened ({called[1]})"
            raise ScanlearnError(
                f"{file} {told}: it is not opened; ask whoever made it for the state dict alone, or for .safetensors."
            ) from error


def _refuse_compressed(file: Path) -> None:
    """``torch.save`` stores its records as they are; compressed ones could grow a thousandfold."""
    try:
        with zipfile.ZipFile(file) as archive:
            compressed = any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError):
        return  # the old format, or damaged, which its reader will tell
    if compressed:
        raise ScanlearnError(f"{file} is a compressed archive: unpack it and give the file of weights in it.")


def _weights_in(content: Any, file: Path) -> Opened:
    """The state dict, alone or among what training code saves with it."""
    beside: list[str] = []
    for key in WEIGHTS if isinstance(content, Mapping) else ():
        if isinstance(content.get(key), Mapping):
            beside = [str(name)[:80] for name in content if name != key]
            content = content[key]
            break
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        raise ScanlearnError(f"{file} holds a {type(content).__name__} where tensors by name should be.")
    return Opened(dict(content), beside)


def _check(file: Path, name: str, tensor: Any) -> None:
    plain = isinstance(tensor, Tensor) and tensor.layout is torch.strided and tensor.device.type == "cpu"
    if not plain or tensor.dtype not in DTYPES:
        kind = f"a tensor of {tensor.dtype}" if isinstance(tensor, Tensor) else f"a {type(tensor).__name__}"
        raise ScanlearnError(f"{name[:80]!r} in {file} is {kind}, which is no weight of a network.")
