"""Restoration: give back the clean scan that a distorted view was made from.

Models Genesis (Zhou et al., MICCAI 2019; spec_genesis §2), in-painting and context restoration differ only in their
views; DiRA and Semantic Genesis add other objectives beside this one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scanlearn.errors import ScanlearnError, unknown
from scanlearn.networks.network import Network
from scanlearn.objectives.objective import OBJECTIVES, Objective, full_precision
from scanlearn.objectives.step import Step


def restoration_error(restored: Tensor, target: Tensor, loss: str = "mse") -> Tensor:
    """Mean over all voxels of the batch of ``(restored - target)^2`` (mse) or ``|restored - target|`` (mae)."""
    difference = restored - target
    return difference.square().mean() if loss == "mse" else difference.abs().mean()


@OBJECTIVES.register("restore")
class Restore(Objective):
    """Error between the decoder's image and the clean view.

    Args:
        network: needs a decoder with as many output channels as the target has.
        view, target: names of the distorted and of the clean view.
        loss: ``mse`` (all published systems) or ``mae``.
        activation: ``sigmoid`` for targets in [0, 1] (the published default), ``none`` for normalised targets.
    """

    def __init__(
        self,
        network: Network,
        *,
        view: str = "distorted",
        target: str = "clean",
        loss: str = "mse",
        activation: str = "sigmoid",
    ):
        super().__init__()
        if network.decoder is None:
            raise ScanlearnError("The objective 'restore' needs a decoder: set network.decoder in the recipe.")
        if loss not in ("mse", "mae"):
            raise unknown("restoration loss", loss, ["mse", "mae"])
        if activation not in ("sigmoid", "none"):
            raise unknown("restoration activation", activation, ["sigmoid", "none"])
        self.view, self.target, self.loss, self.activation = view, target, loss, activation

    def restored(self, step: Step) -> Tensor:
        """The restored image, (N, C, *spatial), float32."""
        output = step.restored(self.view).float()
        return torch.sigmoid(output) if self.activation == "sigmoid" else output

    def forward(self, step: Step) -> Tensor:
        target, restored = step.view(self.target), self.restored(step)
        with full_precision(target):
            if restored.shape != target.shape:
                raise ScanlearnError(
                    f"The decoder restores {tuple(restored.shape[1:])} (channels, size) but the view {self.target!r} is "
                    f"{tuple(target.shape[1:])}: set network.decoder's out_channels or the size."
                )
            # A collapsed network paints one grey value: its output hardly varies (users' most common complaint).
            step.log("restored_std", restored.std())
            return restoration_error(restored, target, self.loss)
