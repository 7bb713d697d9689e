"""Restoration: give back the clean scan that a distorted view was made from.

Models Genesis (Zhou et al., MICCAI 2019; spec_genesis §2), in-painting and context restoration differ only in their
views; DiRA and Semantic Genesis add other objectives beside this one. Context encoders (Pathak et al., CVPR 2016) count
only what was masked: ``region: masked``.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from scanlearn.errors import ScanlearnError, unknown
from scanlearn.networks.network import Network
from scanlearn.objectives.objective import OBJECTIVES, Objective, full_precision
from scanlearn.objectives.ranks import gather
from scanlearn.objectives.step import Step


def restoration_error(restored: Tensor, target: Tensor, loss: str = "mse", changed: Tensor | None = None) -> Tensor:
    """Mean over the voxels of the batch of ``(restored - target)^2`` (mse) or ``|restored - target|`` (mae).

    restored, target (N, C, *spatial). ``changed``, bool (N, 1, *spatial), leaves all other voxels out; with none left the
    error is 0. Ranks have different numbers of changed voxels, so each divides its sum by the ranks' mean number: the
    mean over ranks, which the engine makes, is then the mean over the changed voxels of the global batch.
    """
    difference = restored - target
    error = difference.square() if loss == "mse" else difference.abs()
    if changed is None:
        return error.mean()
    count = gather(changed.sum(dtype=torch.float32)[None]).mean() * target.shape[1]
    return (error * changed).sum() / count.clamp(min=torch.finfo(torch.float32).tiny)


def changed_voxels(view: Tensor, target: Tensor) -> Tensor:
    """bool (N, 1, *spatial): where the view differs from its target in any channel."""
    return (view != target).any(dim=1, keepdim=True)


def restored_image(step: Step, view: str, target: str, activation: str = "sigmoid") -> Tensor:
    """What the decoder makes of ``view``, (N, C, *spatial) float32, in [0, 1] with ``sigmoid``; it must fit ``target``."""
    output, wanted = step.restored(view).float(), step.view(target)
    if output.shape != wanted.shape:
        raise ScanlearnError(
            f"The decoder restores {tuple(output.shape[1:])} (channels, size) but the view {target!r} is "
            f"{tuple(wanted.shape[1:])}: set network.decoder's out_channels or the size."
        )
    return torch.sigmoid(output) if activation == "sigmoid" else output


def restored_pairs(view: str, target: str, also: Mapping[str, str] | None = None) -> list[tuple[str, str]]:
    """(distorted, clean) names of all that is restored: the first pair, then those of ``also``."""
    return [(view, target), *(also or {}).items()]


@OBJECTIVES.register("restore")
class Restore(Objective):
    """Error between the decoder's image and the clean view.

    Args:
        network: needs a decoder with as many output channels as the target has.
        view, target: names of the distorted and of the clean view.
        loss: ``mse`` (all published systems) or ``mae``.
        activation: ``sigmoid`` for targets in [0, 1] (the published default), ``none`` for normalised targets.
        region: ``all`` voxels, or only those ``masked``, which are those that differ between the two views. With
            ``accumulate`` the mean is taken in each part of the batch.
        also: {view: target} of more views that are restored; the loss is the mean over all of them.
    """

    auxiliary = True

    def __init__(
        self,
        network: Network,
        *,
        view: str = "distorted",
        target: str = "clean",
        loss: str = "mse",
        activation: str = "sigmoid",
        region: str = "all",
        also: Mapping[str, str] | None = None,
    ):
        super().__init__()
        if network.decoder is None:
            raise ScanlearnError("The objective 'restore' needs a decoder: set network.decoder in the recipe.")
        if loss not in ("mse", "mae"):
            raise unknown("restoration loss", loss, ["mse", "mae"])
        if activation not in ("sigmoid", "none"):
            raise unknown("restoration activation", activation, ["sigmoid", "none"])
        if region not in ("all", "masked"):
            raise unknown("restoration region", region, ["all", "masked"])
        self.pairs = restored_pairs(view, target, also)
        self.loss, self.activation, self.region = loss, activation, region

    def forward(self, step: Step) -> Tensor:
        errors = [self.error(step, view, target) for view, target in self.pairs]
        return sum(errors[1:], errors[0]) / len(errors)

    def error(self, step: Step, view: str, target: str) -> Tensor:
        """The error of one restored view, a scalar."""
        clean, restored = step.view(target), restored_image(step, view, target, self.activation)
        with full_precision(clean):
            # A collapsed network paints one grey value: its output hardly varies (users' most common complaint).
            step.log("restored_std", restored.std())
            changed = changed_voxels(step.view(view), clean) if self.region == "masked" else None
            return restoration_error(restored, clean, self.loss, changed)
