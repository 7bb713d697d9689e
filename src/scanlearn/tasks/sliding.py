"""Dense output for a whole scan from a network that takes patches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from scanlearn.errors import ScanlearnError, unknown
from scanlearn.networks.network import Network

MODES = {"gaussian": "gaussian", "equal": "constant"}  # MONAI's words


@torch.no_grad()
def sliding_window_logits(
    network: Network,
    head_fn: Callable[[Tensor], Tensor] | None,
    volume: Tensor,
    size: Sequence[int],
    overlap: float = 0.5,
    *,
    batch_size: int = 4,
    weights: str = "gaussian",
) -> Tensor:
    """Logits float32 (N, K, *spatial) of whole scans (N, C, *spatial) in [0, 1], in 2D or 3D, by overlapping windows.

    Where windows overlap, logits are averaged, by default with Gaussian weights (sigma 1/8 of the window), so that a
    window's rim, where it sees least context, counts least (MONAI's ``sliding_window_inference``, nnU-Net's way). A scan
    smaller than the window is centred in zeros, the low end of the intensity range, as in training. The network computes
    in evaluation mode; afterwards each of its modules is in the mode it was in.

    Args:
        head_fn: patches (n, C, *size) -> logits (n, K, *size); None takes the network's decoder.
        size: the window, as large as the patches that the network was trained on.
        overlap: share of the window that neighbours have in common, 0 <= overlap < 1.
        batch_size: windows in one forward pass.
        weights: of a window's voxels: ``gaussian``, or ``equal``, with which the mean chooses the classes that the sum
            of the logits chooses (as published for ssCPCseg, spec_cpcseg §7).

    The output is put together where ``volume`` lies; leave it on the CPU if the logits of a scan do not fit on the GPU,
    and only windows travel.
    """
    if volume.ndim != len(size) + 2 or not 0 <= overlap < 1:
        raise ScanlearnError(
            f"A window of size {tuple(size)} with overlap {overlap} does not fit images {tuple(volume.shape)}: "
            "give one size for each spatial axis and an overlap from 0 to below 1."
        )
    if weights not in MODES:
        raise unknown("weights of windows", weights, MODES)
    from monai.inferers.utils import sliding_window_inference

    forward = network.segmented if head_fn is None else head_fn
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        logits = sliding_window_inference(
            volume,
            tuple(size),
            batch_size,
            lambda patches: forward(patches).float(),
            overlap=overlap,
            mode=MODES[weights],
            sw_device=next(network.parameters()).device,
        )
    finally:
        for module, training in modes.items():
            module.training = training
    assert isinstance(logits, Tensor)
    return logits
