"""Save a trained network so that anything can build it again, and start another network from it.

A folder holds ``model.safetensors`` and, for people, ``encoder.json`` beside it: what the network is, how many tensors
it has, the checksum of the file, and notes. The description also travels inside the safetensors file, so that the
file alone is enough.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import torch as safetensors
from torch import Tensor

import scanlearn
from scanlearn.errors import ScanlearnError, unknown
from scanlearn.files import make_folder, write_atomic
from scanlearn.networks.encoder import Encoder, build_encoder
from scanlearn.networks.network import Network, build_network
from scanlearn.weights.reading import CARD, MODEL, digest, read_saved
from scanlearn.weights.report import LoadReport, load_tensors


def save_network(network: Network, folder: str | Path, **notes: Any) -> Path:
    """Write the network to ``folder`` and return the path of its ``model.safetensors``.

    Each file is written beside its place, flushed to the disk and then moved over the old one, so that a kill leaves
    whole files; the first stands alone, with its own checksum. ``notes`` (recipe, step, data set, ...; values that
    JSON knows) are stored as they are.

    Raises:
        WriteError: no room, or a folder that cannot be written; what lay there before is whole.
    """
    folder = Path(folder)
    make_folder(folder)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    card = {
        "scanlearn": scanlearn.__version__,
        "network": network.describe(),
        "tensors": len(tensors),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "notes": notes,
    }
    # One entry, as several stand in the file in no fixed order, and the same network is to give the same file.
    whole = {**card, "digest": digest(card, tensors)}
    data = safetensors.save(tensors, metadata={"scanlearn": json.dumps(whole)})
    card["sha256"] = hashlib.sha256(data).hexdigest()
    write_atomic(folder / MODEL, data)
    write_atomic(folder / CARD, json.dumps(card, indent=2) + "\n")
    return folder / MODEL


def load_network(path: str | Path) -> Network:
    """The saved network, encoder and decoder, with its weights, on the CPU and in training mode.

    ``path`` is a run folder, its ``encoder`` folder or a ``.safetensors`` file. Loading leaves torch's random state as
    it was. A damaged file or one that is not from ``save_network`` is refused.
    """
    _, card, tensors = read_saved(path)
    with torch.random.fork_rng(devices=[]):
        network = build_network(card["network"])
    network.load_state_dict(tensors)
    return network


def load_encoder(path: str | Path) -> Encoder:
    """The encoder of the saved network, with its weights; otherwise as ``load_network``."""
    _, card, tensors = read_saved(path)
    with torch.random.fork_rng(devices=[]):
        network = Network(build_encoder(card["network"]["encoder"]))
    network.load_state_dict({name: tensor for name, tensor in tensors.items() if name.startswith("encoder.")})
    return network.encoder


def read_card(path: str | Path) -> dict[str, Any]:
    """What ``save_network`` said of the network: ``network`` (description), ``parameters``, ``notes``."""
    return read_saved(path)[1]


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
    file, card, tensors = read_saved(path)
    if transfer == "encoder":
        tensors = {name: tensor for name, tensor in tensors.items() if name.startswith("encoder.")}
    report = load_tensors(network, tensors, str(file), holds=card["network"]["encoder"])
    return replace(report, notice=card["notes"].get("licence_notice", ""))


def terms_of(path: str | Path) -> dict[str, str]:
    """What a network that starts from these weights keeps among its notes: their ``licence_notice``, if they have one."""
    notes = read_card(path)["notes"]
    return {name: notes[name] for name in ("licence_notice",) if name in notes}


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
    sizes = [2 * max(encoder.strides)] * encoder.spatial_dims  # no map of one voxel, which instance norm cannot take
    x = torch.rand((2, encoder.in_channels, *sizes), generator=torch.Generator().manual_seed(0))
    device = next(network.parameters()).device
    for index, (ours, loaded) in enumerate(zip(_outputs(network, x.to(device)), _outputs(again, x), strict=True)):
        if not ours.isfinite().all() and not loaded.isfinite().all():
            continue  # weights that overflow on random input do so in both; every tensor was compared above
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
