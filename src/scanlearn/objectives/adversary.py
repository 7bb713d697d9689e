"""Adversarial restoration (DiRA: Haghighi et al., CVPR 2022, arXiv 2204.10437; spec_dira §1.4, §1.5, §3).

An opponent learns to tell restored images from clean scans; the network learns to restore images that it takes for
clean ones. Least squares: Mao et al., ICCV 2017, arXiv 1611.04076; wgan_gp: Gulrajani et al., NeurIPS 2017,
arXiv 1704.00028.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from scanlearn.errors import ScanlearnError, unknown
from scanlearn.networks.discriminator import PatchDiscriminator
from scanlearn.networks.network import Network
from scanlearn.objectives.objective import OBJECTIVES, Apart, Objective, full_precision
from scanlearn.objectives.restore import restored_image, restored_pairs
from scanlearn.objectives.step import Step

LOSSES = ("least_squares", "log", "wgan_gp")
OPTIMIZER = {"name": "adam", "lr": 2e-4, "betas": [0.5, 0.999]}


def deceiving_error(fake: Tensor, loss: str = "least_squares") -> Tensor:
    """What the network pays for the judgements ``fake`` of its images, mean over all patches.

    least_squares ``(D - 1)^2``; log ``-log sigmoid(D)``; wgan_gp ``-D``.
    """
    if loss == "least_squares":
        return (fake - 1).square().mean()
    return F.softplus(-fake).mean() if loss == "log" else -fake.mean()


def judging_error(real: Tensor, fake: Tensor, loss: str = "least_squares") -> Tensor:
    """What the opponent pays for its judgements of clean and of restored images, mean over all patches.

    least_squares ``((D(real) - 1)^2 + D(fake)^2) / 2``; log ``(-log sigmoid(D(real)) - log(1 - sigmoid(D(fake)))) / 2``;
    wgan_gp ``D(fake) - D(real)``, to which the gradient penalty comes.
    """
    if loss == "least_squares":
        return ((real - 1).square().mean() + fake.square().mean()) / 2
    if loss == "log":
        return (F.softplus(-real).mean() + F.softplus(fake).mean()) / 2
    return fake.mean() - real.mean()


def gradient_penalty(judge: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, share: Tensor) -> Tensor:
    """``(|grad D(x)| - 1)^2`` at ``x = share * real + (1 - share) * fake``, mean over the N images; share (N,) in [0, 1].

    D of an image is the mean of its map of judgements, as in the losses. ``real`` and ``fake`` are all that is judged: with
    a condition, the image and the condition, which both have in common.
    """
    share = share.view(-1, *[1] * (real.ndim - 1)).to(real.dtype)
    mixed = torch.lerp(fake, real, share).requires_grad_()
    judged = judge(mixed).flatten(1).mean(1).sum()
    (gradient,) = torch.autograd.grad(judged, mixed, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


@OBJECTIVES.register("adversary")
class Adversary(Objective):
    """The restored image should be taken for a clean one. Shares the restored image with ``restore``.

    The weight of the recipe is that of the network's part alone. The opponent learns from the same restored images,
    which are those from before the network's step; its part reaches no parameter but its own, and the network's
    part none of the opponent's. Both gradients are taken in one step, so this is "first the network, then the opponent".

    Args:
        network: needs a decoder.
        view, target: names of the distorted and of the clean view; clean views are what the opponent sees as real.
        also: {view: target} of more views that are judged, as in ``restore``.
        activation: of the decoder's output, as in ``restore``: ``sigmoid`` or ``none``.
        loss: ``least_squares`` (the released code), ``log`` or ``wgan_gp``.
        penalty: weight of the gradient penalty of ``wgan_gp``, 100 as in the released 3D code.
        conditional: the opponent also sees the distorted view, as channels behind those of the image.
        width: of the opponent's first layer, 64.
        optimizer: of the opponent, as in a recipe's ``optimizer``; what it does not say is Adam, rate 2e-4, betas 0.5 and
            0.999. Its rate is constant.
    """

    auxiliary = True

    def __init__(
        self,
        network: Network,
        *,
        view: str = "distorted",
        target: str = "clean",
        also: Mapping[str, str] | None = None,
        activation: str = "sigmoid",
        loss: str = "least_squares",
        penalty: float = 100.0,
        conditional: bool = False,
        width: int = 64,
        optimizer: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        if network.decoder is None:
            raise ScanlearnError("The objective 'adversary' needs a decoder: set network.decoder in the recipe.")
        if loss not in LOSSES:
            raise unknown("adversarial loss", loss, LOSSES)
        if activation not in ("sigmoid", "none"):
            raise unknown("restoration activation", activation, ["sigmoid", "none"])
        if penalty < 0:
            raise ScanlearnError(f"The gradient penalty of 'adversary' must be 0 or more, not {penalty}.")
        self.pairs, self.activation = restored_pairs(view, target, also), activation
        self.loss, self.penalty = loss, penalty
        self.conditions = network.encoder.in_channels if conditional else 0
        channels = (network.decoder.image_channels or network.decoder.out_channels) + self.conditions
        self.opponent = PatchDiscriminator(channels, network.encoder.spatial_dims, width)
        self.optimizer = {**OPTIMIZER, **(optimizer or {})}

    def apart(self) -> list[Apart]:
        return [Apart(self.opponent, self.optimizer)]

    def begin(self, seed: int) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.opponent.renew()

    def judged_pair(self, step: Step, view: str, target: str) -> tuple[Tensor, Tensor]:
        """What the opponent may judge, (N, C, *spatial) each: the clean and the restored image with their condition."""
        real, fake = step.view(target), restored_image(step, view, target, self.activation)
        if self.conditions == 0:
            return real, fake
        condition = step.view(view).expand(-1, self.conditions, *real.shape[2:])
        return torch.cat([real, condition], dim=1), torch.cat([fake, condition], dim=1)

    def forward(self, step: Step) -> Tensor:
        judged_pairs = [self.judged_pair(step, view, target) for view, target in self.pairs]
        real, fake = (torch.cat(images) for images in zip(*judged_pairs, strict=True))
        frozen = {name: parameter.detach() for name, parameter in self.opponent.named_parameters()}
        judged = functional_call(self.opponent, frozen, (fake,)).float()
        with full_precision(judged):
            loss = deceiving_error(judged, self.loss)
        if self.training:  # an opponent is not validated, and its penalty needs gradients
            step.oppose(self.opposing(step, real, fake.detach()))
        return loss

    def opposing(self, step: Step, real: Tensor, fake: Tensor) -> Tensor:
        """The opponent's own loss; ``fake`` without gradient."""
        judged = self.opponent(torch.cat([real, fake])).float()  # instance norm: each image is judged alone
        of_real, of_fake = judged.chunk(2)
        with full_precision(judged):
            loss = judging_error(of_real, of_fake, self.loss)
            step.log("opponent_real", of_real.mean())
            step.log("opponent_fake", of_fake.mean())
            if self.loss == "wgan_gp":
                share = step.draws("adversary").uniform().repeat(len(self.pairs))
                penalty = gradient_penalty(self.opponent, real, fake, share)
                step.log("opponent_penalty", penalty)
                loss = loss + self.penalty * penalty
        step.log("opponent", loss)
        return loss
