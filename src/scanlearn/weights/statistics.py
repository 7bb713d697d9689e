"""Running statistics of batch norm, estimated anew: for weights whose own are missing or of other scans."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from scanlearn.console import track
from scanlearn.errors import ScanlearnError
from scanlearn.networks.network import Network
from scanlearn.scans.intensity import to_unit
from scanlearn.scans.loader import Loader
from scanlearn.scans.store import Store

BATCHES, BATCH_SIZE = 32, 4


@torch.no_grad()
def estimate_statistics(network: Network, store: Store, size: Sequence[int], seed: int = 0) -> None:
    """Make the running statistics the mean over ``BATCHES`` batches of random patches of the store's training scans.

    Patches have ``size`` voxels. Every other tensor, and the mode of the network, stay as they are.

    Raises:
        ScanlearnError: scans of another dimension, or a network without running statistics that evaluation uses.
    """
    norms = [part for part in network.modules() if isinstance(part, _BatchNorm)]
    if not norms or any(getattr(norm, "always_batch_stats", False) for norm in norms):
        raise ScanlearnError(
            "This network uses no running statistics, so there is nothing to estimate: leave --store out."
        )
    if store.spatial_dims != network.encoder.spatial_dims:
        raise ScanlearnError(
            f"The network is for {network.encoder.spatial_dims}D scans, the store {store.path.name} holds "
            f"{store.spatial_dims}D ones: give another --store."
        )
    loader = Loader(store, store.splits["train"], batch_size=BATCH_SIZE, size=size, seed=seed, stop=BATCHES)
    modes, momenta = {part: part.training for part in network.modules()}, [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
    network.train()
    try:
        for batch in track(loader, BATCHES, "statistics"):
            image = to_unit(batch["image"], batch["low"], batch["high"])
            network.features(image) if network.decoder is None else network.restored(image)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for part, training in modes.items():
            part.training = training
