"""A variational auto-encoder on the coarsest map: the scan is drawn again from a short random code (VAEseg).

Source: Myronenko, BrainLes 2018; Iwasawa et al. 2020, spec_cpcseg §3. The decoder is its own, as released, and nothing of
this objective is needed for inference.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scanlearn.errors import ScanlearnError
from scanlearn.networks.conv import CONV
from scanlearn.networks.network import Network
from scanlearn.networks.segres import NormReluConv, Up, doubled, lecun_normal
from scanlearn.objectives.objective import OBJECTIVES, Objective, full_precision
from scanlearn.objectives.step import Step


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL of N(mean, exp(log_variance)) from N(0, 1): 0.5 (mean² + exp(log_variance) - log_variance - 1), averaged over
    samples and numbers of the code, both (N, latent); by the voxels as in Myronenko 2018 it would be smaller."""
    return 0.5 * (mean.square() + log_variance.exp() - log_variance - 1.0).mean()


@OBJECTIVES.register("variational")
class Variational(Objective):
    """Mean squared error of the drawn scan + KL of its code; needs no label. In evaluation the code is its mean.

    The scan is restored as the encoder sees it, normalised, with all channels.

    Args:
        network: its encoder's coarsest map is coded.
        size: voxels per axis of the view; linear layers fix it. Divisible by twice the stride of the coarsest map.
        view: the view that is coded and restored.
        latent: numbers of the code.
        narrow: channels of the map that is coded.
        groups: of every group norm.
        kl: weight of the KL beside the error.
    """

    def __init__(
        self,
        network: Network,
        *,
        size: Sequence[int],
        view: str = "image",
        latent: int = 128,
        narrow: int = 16,
        groups: int = 8,
        kl: float = 1.0,
    ):
        super().__init__()
        encoder = network.encoder
        dims, stride, wide = encoder.spatial_dims, encoder.strides[-1], encoder.num_features
        self.size, self.view, self.kl = tuple(size), view, kl
        if len(self.size) != dims or any(side % (2 * stride) for side in self.size):
            raise ScanlearnError(
                f"The objective 'variational' needs the size of its view, {dims} sides divisible by {2 * stride}, not "
                f"{list(self.size)}: set objectives.variational.size to the recipe's size."
            )
        self.coded = (narrow, *(side // (2 * stride) for side in self.size))
        self.reduce = NormReluConv(dims, wide, narrow, groups, stride=2)
        self.mean, self.log_variance = (nn.Linear(prod(self.coded), latent) for _ in range(2))
        self.expand = nn.Linear(latent, prod(self.coded))
        self.widen = CONV[dims](narrow, wide, kernel_size=1)
        channels = [max(wide >> level, groups) for level in range(stride.bit_length())]
        self.ups = nn.ModuleList(Up(dims, a, b, groups) for a, b in pairwise(channels))
        self.output = CONV[dims](channels[-1], encoder.in_channels, kernel_size=1)
        lecun_normal(self)

    def code(self, step: Step) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance of each scan's code, (N, latent)."""
        flat = self.reduce(step.features(self.view)[-1]).flatten(1)
        return self.mean(flat), self.log_variance(flat)

    def drawn(self, code: Tensor) -> Tensor:
        """The scan (N, in_channels, *size) of a code (N, latent)."""
        x = F.relu(self.expand(code)).view(-1, *self.coded)
        x = doubled(self.widen(x))
        for up in self.ups:
            x = up(x)
        return self.output(x)

    def forward(self, step: Step) -> Tensor:
        image = step.view(self.view)
        if tuple(image.shape[2:]) != self.size:
            raise ScanlearnError(
                f"The view {self.view!r} has {list(image.shape[2:])} voxels, but objectives.variational.size says "
                f"{list(self.size)}: make them equal."
            )
        mean, log_variance = self.code(step)
        noise = step.draws("variational").normal(mean.shape[1]) if self.training else torch.zeros_like(mean)
        restored = self.drawn(mean + (0.5 * log_variance).exp() * noise)
        with full_precision(image):
            error = F.mse_loss(restored.float(), step.network.encoder.prepared(image).float())
            kl = divergence(mean.float(), log_variance.float())
        step.log("variational_error", error)
        step.log("variational_kl", kl)
        return error + self.kl * kl
