"""Where features come from: a trained network, the same architecture with fresh weights, or the pixels themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from scanlearn.engine.device import default_device
from scanlearn.engine.embedding import embed_scans
from scanlearn.errors import ScanlearnError
from scanlearn.networks.network import Network, build_network
from scanlearn.scans.resample import resample
from scanlearn.scans.store import Store
from scanlearn.tasks.probe import input_size
from scanlearn.tasks.segment import read_unit
from scanlearn.weights.encoder import load_network, read_card

RANDOM, PIXELS = "random", "pixels"
SIDES = {2: 16, 3: 8}  # pixels of a side, so that a scan has 256 or 512 numbers


def features_from(source: str, like: str, store: Store, rows: np.ndarray, seed: int = 0) -> np.ndarray:
    """float32 (n, d) of the scans ``rows``.

    Args:
        source: a run, its encoder folder or a .safetensors file; ``random``, fresh weights of the architecture of
            ``like``, in evaluation mode as ever; ``pixels``, each scan resized to 16 x 16 or 8 x 8 x 8.
    """
    if source == PIXELS:
        return pixels_of(store, rows)
    network, size = network_from(source, like, seed), size_of(source, like, store)
    return embed_scans(network.pooled, store, rows, size=size, device=default_device())


def size_of(source: str, like: str, store: Store) -> tuple[int, ...]:
    """The image size that the network of a source takes."""
    return input_size(like if source == RANDOM else source, store)


def network_from(source: str, like: str, seed: int = 0) -> Network:
    """The network of a source, in evaluation mode; ``random`` is a function of the architecture of ``like`` and the seed."""
    if source != RANDOM:
        return load_network(source).to(default_device()).eval()
    with torch.random.fork_rng(devices=[]):  # torch's random state stays
        torch.manual_seed(seed)
        return build_network(read_card(like)["network"]).to(default_device()).eval()


def pixels_of(store: Store, rows: np.ndarray) -> np.ndarray:
    """float32 (n, channels * side ** D): scans in [0, 1], resized (antialiased) as wholes."""
    size = [SIDES[store.spatial_dims]] * store.spatial_dims
    images = (read_unit(store, int(row), torch.device("cpu")) for row in rows)
    return np.stack([resample(image[None], size).flatten().numpy() for image in images])


def check_sources(sources: list[str]) -> None:
    """The first has to be a network; each of the others a network, ``random`` or ``pixels``, and none twice."""
    if not sources or sources[0] in (RANDOM, PIXELS):
        raise ScanlearnError("The first source has to be a run, as random takes its architecture from it.")
    if len(set(sources)) < len(sources):
        raise ScanlearnError(f"A source is named twice among {', '.join(sources)}: name each once.")
    for source in sources:
        if source not in (RANDOM, PIXELS):
            if not Path(source).exists():
                raise ScanlearnError(f"There is no run {source}: give a run, random or pixels.")
            read_card(source)  # a damaged one is told before the work


def short_names(sources: list[str]) -> list[str]:
    """The name of each source's folder; a number is added where two folders have the same name."""
    names: list[str] = []
    for source in sources:
        short = Path(source).name
        names.append(short if short not in names else f"{short} ({len(names) + 1})")
    return names
