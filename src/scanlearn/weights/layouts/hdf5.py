"""Weights that Keras saved as HDF5, read without following anything that leads out of the file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scanlearn.errors import ScanlearnError

DEEPEST, MOST = 8, 10_000  # groups in each other, objects in the file
_MODEL, _OPTIMIZER = "model_weights", "optimizer_weights"  # of a whole saved model; weights alone have neither


def read_hdf5(file: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors as ``layer/weight`` (``depth_0_conv/kernel``), float32, and the names of what lies beside them.

    Raises:
        ScanlearnError: h5py is missing; damaged; links, external or virtual data, filters, other types than floats, or
            shapes larger than what is stored.
    """
    try:
        import h5py
    except ImportError as error:
        raise ScanlearnError(f"Reading {file} needs h5py: pip install 'scanlearn[keras]'.") from error
    tensors: dict[str, Tensor] = {}
    try:
        with h5py.File(file, "r") as opened:
            for path, dataset in _datasets(h5py, file, opened, (), [MOST]):
                *layers, weight = path
                name = f"{layers[-1]}/{weight.split(':')[0]}" if layers else weight
                if name in tensors:
                    raise ScanlearnError(f"{file} holds {name!r} twice.")
                tensors[name] = torch.from_numpy(np.ascontiguousarray(dataset[()], dtype=np.float32))
            return tensors, [_OPTIMIZER] if _OPTIMIZER in opened else []
    except ScanlearnError:
        raise
    except Exception as error:  # HDF5 answers damage with any error
        raise ScanlearnError(f"{file} cannot be read as HDF5: it is damaged, fetch it again.") from error


def _datasets(h5py: Any, file: Path, group: Any, above: tuple[str, ...], left: list[int]) -> Iterator[Any]:
    """(path, data set) of everything below a group; ``left`` counts down over the whole file."""
    for name in group:
        path = (*above, str(name))
        left[0] -= 1
        if left[0] < 0 or len(path) > DEEPEST:
            raise ScanlearnError(f"{file} holds more objects than a file of weights: it is forged or damaged.")
        if path == (_OPTIMIZER,):
            continue
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise _refused(file, path, "is a link that leads elsewhere")
        item = group[name]
        if isinstance(item, h5py.Group):
            yield from _datasets(h5py, file, item, () if path == (_MODEL,) else path, left)
        elif isinstance(item, h5py.Dataset):
            _check(file, path, item)
            yield path, item
        else:
            raise _refused(file, path, "is no tensor")


def _check(file: Path, path: tuple[str, ...], dataset: Any) -> None:
    """Keras writes plain floats in one piece; anything cleverer is refused before a value is read."""
    if dataset.dtype.kind != "f" or dataset.shape is None or len(dataset.shape) > 5:
        raise _refused(file, path, "does not hold floating-point numbers")
    if dataset.is_virtual or dataset.external:
        raise _refused(file, path, "keeps its values in another file")
    if dataset.id.get_create_plist().get_nfilters():
        raise _refused(file, path, "is compressed, as Keras does not do it")
    if dataset.nbytes > dataset.id.get_storage_size():
        raise _refused(file, path, "is declared larger than what is stored")


def _refused(file: Path, path: tuple[str, ...], why: str) -> ScanlearnError:
    return ScanlearnError(f"{'/'.join(path)[:80]!r} in {file} {why}: it is not opened.")
