"""Save a trained network so that anything can build it again, and start another network from it.

A folder holds ``model.safetensors`` and, for people, ``encoder.json`` beside it: what the network is, how many tensors
it has, the checksum of the file, and notes. The description also travels inside the safetensors file, so that the
file alone is enough.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor

import scanlearn
from scanlearn.errors import ScanlearnError, unknown
from scanlearn.networks.encoder import Encoder, build_encoder
from scanlearn.networks.network import Network, build_network
from scanlearn.weights.report import LoadReport, load_tensors

MODEL, CARD = "model.safetensors", "encoder.json"


def save_network(network: Network, folder: str | Path, **notes: Any) -> Path:
    """Write the network to ``folder`` and return the path of its ``model.safetensors``.

    Both files are written beside their places, flushed to the disk and then moved over the old ones, so that a kill
    leaves whole files. ``notes`` (recipe, step, data set, ...; values that JSON knows) are stored as they are.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    card = {
        "scanlearn": scanlearn.__version__,
        "network": network.describe(),
        "tensors": len(tensors),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "notes": notes,
    }
    data = safetensors.save(tensors, metadata={"scanlearn": json.dumps(card)})
    card["sha256"] = hashlib.sha256(data).hexdigest()
    _replace({folder / MODEL: data, folder / CARD: (json.dumps(card, indent=2) + "\n").encode()})
    return folder / MODEL


def load_network(path: str | Path) -> Network:
    """The saved network, encoder and decoder, with its weights, on the CPU and in training mode.

    ``path`` is a run folder, its ``encoder`` folder or a ``.safetensors`` file. Loading leaves torch's random state as
    it was. A damaged file or one that is not from ``save_network`` is refused.
    """
    file, card, tensors = _read(path)
    with torch.random.fork_rng(devices=[]):
        network = build_network(card["network"])
    _fill(network, tensors, file)
    return network


def load_encoder(path: str | Path) -> Encoder:
    """The encoder of the saved network, with its weights; otherwise as ``load_network``."""
    file, card, tensors = _read(path)
    with torch.random.fork_rng(devices=[]):
        network = Network(build_encoder(card["network"]["encoder"]))
    _fill(network, {name: tensor for name, tensor in tensors.items() if name.startswith("encoder.")}, file)
    return network.encoder


def read_card(path: str | Path) -> dict[str, Any]:
    """What ``save_network`` said of the network: ``network`` (description), ``parameters``, ``notes``."""
    return _read(path)[1]


TRANSFERS = ("whole", "encoder")


def initialise(network: Network, path: str | Path, transfer: str = "whole") -> LoadReport:
    """Start ``network`` from saved weights; the report, printed, accounts for every tensor.

    The encoder must be there whole, name by name and shape by shape. A decoder is taken where it fits; the rest of it
    keeps its fresh values, and the report says so. With ``transfer`` "encoder" the decoder stays fresh altogether.

    Raises:
        ScanlearnError: the file is damaged, or lacks any of the encoder's tensors; an unknown ``transfer``.
    """
    if transfer not in TRANSFERS:
        raise unknown("transfer", transfer, TRANSFERS)
    file, card, tensors = _read(path)
    if transfer == "encoder":
        tensors = {name: tensor for name, tensor in tensors.items() if name.startswith("encoder.")}
    return load_tensors(network, tensors, str(file), holds=card["network"]["encoder"])


def verify_export(folder: str | Path, network: Network) -> None:
    """Build the network that lies in ``folder`` again and compare it with ``network``; an export must come back.

    Every tensor must be the same bit for bit, and both networks must give the same maps and decoder output for random
    input, in evaluation mode. ``network`` and torch's random state are left as they were. Run before the first step,
    so that a network that cannot be exported costs seconds and not a training.

    Raises:
        ScanlearnError: a tensor or an output differs.
    """
    again = load_network(folder)
    saved = again.state_dict()
    for name, tensor in network.state_dict().items():
        if name not in saved or not torch.equal(tensor.detach().cpu(), saved[name]):
            raise ScanlearnError(f"The export in {folder} does not hold the network's tensor {name!r}: save it again.")
    encoder = network.encoder
    side = max(encoder.strides)
    x = torch.rand((2, encoder.in_channels, *[side] * encoder.spatial_dims), generator=torch.Generator().manual_seed(0))
    device = next(network.parameters()).device
    for index, (ours, loaded) in enumerate(zip(_outputs(network, x.to(device)), _outputs(again, x), strict=True)):
        # Devices and memory formats sum in different orders; a wrong network differs in the first digit.
        difference, scale = (ours.cpu() - loaded).abs().max().item(), loaded.abs().max().item()
        if not difference <= 1e-2 * max(scale, 1e-6):
            raise ScanlearnError(
                f"The network in {folder}, built again, gives other values in its output {index} than the one that was "
                f"saved (largest difference {difference:.3g} at values up to {scale:.3g}): a setting of it is missing "
                "from its description."
            )


@torch.no_grad()
def _outputs(network: Network, x: Tensor) -> list[Tensor]:
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        features = network.features(x)
        outputs = [feature.float() for feature in features]
        if network.decoder is not None:
            outputs.append(network.decoder(features, x.shape[2:]).float())
        return outputs
    finally:
        for module, training in modes.items():
            module.training = training


def _fill(network: Network, tensors: dict[str, Tensor], file: Path) -> None:
    # The description built the network, so everything must match; if not, the file contradicts itself.
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise ScanlearnError(f"The tensors in {file} are not those of the network it describes: {error}") from error


def _find(path: str | Path) -> Path:
    path = Path(path)
    if path.suffix == ".safetensors" and path.is_file():
        return path
    for candidate in (path / MODEL, path / "encoder" / MODEL):
        if candidate.is_file():
            return candidate
    raise ScanlearnError(
        f"There is no saved network at {path}: give a run folder, its encoder folder or a .safetensors file."
    )


def _read(path: str | Path) -> tuple[Path, dict[str, Any], dict[str, Tensor]]:
    """The file, its card and its tensors; the checksum is compared where an ``encoder.json`` lies beside the file."""
    file = _find(path)
    data = file.read_bytes()
    beside = file.with_name(CARD)
    if file.name == MODEL and beside.is_file():
        try:
            expected = json.loads(beside.read_text())["sha256"]
        except (ValueError, KeyError) as error:
            raise ScanlearnError(f"{beside} cannot be read: delete it, {MODEL} stands alone.") from error
        if hashlib.sha256(data).hexdigest() != expected:
            raise ScanlearnError(
                f"{file} is not the file that {CARD} beside it describes (the checksum differs): it was damaged or "
                "replaced, so export it again."
            )
    try:
        tensors = safetensors.load(data)
    except SafetensorError as error:
        raise ScanlearnError(f"{file} cannot be read as a safetensors file ({error}): export it again.") from error
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    card = header.get("__metadata__", {}).get("scanlearn")
    if card is None:
        raise ScanlearnError(f"{file} was not written by scanlearn, so it does not say which network it holds.")
    return file, json.loads(card), tensors


def _replace(contents: dict[Path, bytes]) -> None:
    temporary = {path: path.with_name(f".{path.name}.{uuid.uuid4().hex}") for path in contents}
    try:
        for path, data in contents.items():
            with temporary[path].open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
        for path in contents:
            temporary[path].replace(path)
    finally:
        for left in temporary.values():
            left.unlink(missing_ok=True)
