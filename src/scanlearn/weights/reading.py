"""Reading saved networks of any origin: what is damaged, forged or not ours is refused before anything is built.

Nothing here runs code from a file. The description is compared with the tensors while it costs no memory, so a file
cannot ask for a network larger than itself.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor

from scanlearn.errors import ScanlearnError
from scanlearn.files import parse_json, read_json
from scanlearn.networks.network import build_network

MODEL, CARD = "model.safetensors", "encoder.json"
PICKLES = (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle", ".tar")
LARGEST = 1 << 16  # of any number in a description; published networks stay below 5,000
DTYPES = (
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
)


def find_saved(path: str | Path) -> Path:
    """The .safetensors file that ``path`` names: itself, or in an encoder folder or a run folder."""
    path = Path(path)
    if path.suffix == ".safetensors" and path.is_file():
        return path
    for candidate in (path / MODEL, path / "encoder" / MODEL):
        if candidate.is_file():
            return candidate
    if path.suffix in PICKLES and path.is_file():
        raise ScanlearnError(
            f"{path} {pickled(path)}; scanlearn starts from networks that say what they are: bring published weights in "
            "with `scanlearn import-weights`, others, where you trust the file, with "
            "scanlearn.weights.report.load_tensors and save_network."
        )
    raise ScanlearnError(
        f"There is no saved network at {path}: give a run folder, its encoder folder or a .safetensors file."
    )


def pickled(path: Path) -> str:
    """What a file of ``torch.save`` holds, told without opening it: a predicate such as "holds tensors only"."""
    try:
        unsafe = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    except Exception:  # an old format, TorchScript, or no such file at all
        return "is a pickle that cannot be looked into without running its code"
    if not unsafe:
        return "holds tensors and plain values without a description"
    shown = ", ".join(name[:80] for name in unsafe[:5]) + (f" and {len(unsafe) - 5} more" if len(unsafe) > 5 else "")
    return f"holds pickled objects whose code would run when they are opened ({shown})"


def read_saved(path: str | Path) -> tuple[Path, dict[str, Any], dict[str, Tensor]]:
    """The file, its card and its tensors, whole and belonging together.

    Raises:
        ScanlearnError: damaged, not written by ``save_network``, or describing another network than it holds.
    """
    file = find_saved(path)
    try:
        data = file.read_bytes()
        tensors = safetensors.load(data)
        metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__") or {}
    except OSError as error:
        raise ScanlearnError(f"{file} cannot be read ({error.strerror}).") from error
    except (SafetensorError, ValueError, KeyError, RecursionError) as error:
        raise ScanlearnError(f"{file} cannot be read as a safetensors file: it is damaged, export it again.") from error
    text = metadata.get("scanlearn")
    if text is None:
        raise ScanlearnError(f"{file} was not written by scanlearn, so it does not say which network it holds.")
    card = parse_json(text, f"The description in {file}")
    _check_digest(file, data, card, tensors)
    _check_card(file, card)
    _check_tensors(file, card, tensors)
    return file, card, tensors


def digest(card: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    """SHA-256 of a description and of every tensor's name, type, shape and values."""
    found = hashlib.sha256(json.dumps(card).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        found.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _check_digest(file: Path, data: bytes, card: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Compare the checksum inside the file; files from before it stood there have one in the card beside them."""
    beside, expected = file.with_name(CARD), card.pop("digest", None)
    if expected is not None:
        matches = digest(card, tensors) == expected
    elif file.name == MODEL and beside.is_file():
        matches = hashlib.sha256(data).hexdigest() == read_json(beside, str(beside)).get("sha256")
    else:
        return
    if not matches:
        raise ScanlearnError(f"{file} is not as it was written (the checksum differs): export it again.")


def _check_card(file: Path, card: dict[str, Any]) -> None:
    network, notes = card.get("network"), card.setdefault("notes", {})
    encoder = network.get("encoder") if isinstance(network, dict) else None
    if not isinstance(encoder, dict) or not isinstance(encoder.get("name"), str) or not isinstance(notes, dict):
        raise ScanlearnError(f"The description in {file} names no encoder: export it again.")
    waiting: list[Any] = [network]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict | list):
            waiting += value.values() if isinstance(value, dict) else value
        elif isinstance(value, int | float) and abs(value) > LARGEST:
            raise ScanlearnError(
                f"The description in {file} holds a number beyond {LARGEST:,}: no network is that large."
            )
    if not isinstance(notes.get("licence_notice", ""), str):
        raise ScanlearnError(f"The description in {file} holds a licence_notice that is no text: export it again.")
    size = notes.get("input_size")
    if size is not None:
        whole = isinstance(size, list) and all(type(side) is int and 0 < side <= LARGEST for side in size)
        if not whole or len(size) not in (2, 3):
            raise ScanlearnError(f"The description in {file} holds no usable input_size: export it again.")


def _check_tensors(file: Path, card: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Refuse tensors that are not those of the described network, or whose values no network has."""
    try:
        with torch.device("meta"):  # shapes without memory
            expected = build_network(card["network"]).state_dict()
    except ScanlearnError as error:
        raise ScanlearnError(f"The description in {file} cannot be built: {error}") from error
    except Exception as error:  # settings of any type reach constructors that expect numbers
        raise ScanlearnError(
            f"The description in {file} cannot be built ({type(error).__name__}): export it again."
        ) from error
    for name in [*expected, *tensors]:
        if name not in tensors or name not in expected or tensors[name].shape != expected[name].shape:
            raise ScanlearnError(f"The tensors in {file} are not those of the network it describes, {name!r} first.")
        tensor = tensors[name]
        if tensor.dtype not in DTYPES or tensor.is_floating_point() != expected[name].is_floating_point():
            raise ScanlearnError(f"The tensor {name!r} in {file} is of the type {tensor.dtype}, which no network has.")
        if not bool(torch.isfinite(tensor).all()):
            raise ScanlearnError(
                f"The tensor {name!r} in {file} holds values that are not finite: the run that wrote it had diverged."
            )
