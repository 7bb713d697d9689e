"""How strongly each objective pulls at the encoder, and, where asked, weights that make these pulls comparable.

Losses have very different scales: InfoNCE starts near ln(K + 1) = 11, SimSiam lies in [-1, 1], Barlow Twins starts in
the thousands, restoration near 0.1 (spec_dira §2.3 and detail 33). The norm of the gradient tells what a weight means.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from scanlearn.engine.recipe import Recipe
from scanlearn.objectives.ranks import averaged

KEPT = 0.5  # share of the old norm that a new measurement leaves: one batch is noisy, and the balance moves slowly


def gradient_norms(values: dict[str, Tensor], encoder: nn.Module) -> dict[str, Tensor]:
    """The norm of each loss's gradient with regard to all parameters of the encoder, of the global batch.

    One more backward pass for each loss; the graph stays usable and no ``.grad`` is touched. 0 where none gets through.
    """
    parameters = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    norms = {}
    for name, value in values.items():
        norms[name] = torch.zeros((), device=value.device)
        if parameters and value.requires_grad:
            gradients = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
            parts = [gradient.flatten().float() for gradient in gradients if gradient is not None]
            if parts:
                norms[name] = averaged(torch.cat(parts)).norm()
    return norms


class Balance(nn.Module):
    """Factors that give all objectives gradients of one length at the encoder, that of the first active one.

    With it, an objective's weight says how many times as strongly as the first it pulls. The norms are running means of
    measurements, in the checkpoint, the same on all ranks. ``names`` are in the order in which one is taken for first.
    """

    norms: Tensor

    def __init__(self, names: list[str]):
        super().__init__()
        self.names = names
        self.register_buffer("norms", torch.zeros(len(names)))  # 0: not measured yet

    @torch.no_grad()
    def note(self, measured: dict[str, Tensor]) -> None:
        """Take a measurement; one that is 0 or not finite says nothing."""
        for i, name in enumerate(self.names):
            if name in measured:
                old, new = self.norms[i], measured[name]
                mean = torch.where(old > 0, KEPT * old + (1 - KEPT) * new, new)
                self.norms[i] = torch.where(torch.isfinite(new) & (new > 0), mean, old)

    def factors(self, active: list[str]) -> dict[str, Tensor]:
        """By what each active objective is multiplied, beside its weight; 1 for the first, and for what has no norm."""
        norms = {name: self.norms[i] for i, name in enumerate(self.names) if name in active}
        first = next(iter(norms.values()))
        one = torch.ones_like(first)
        return {name: torch.where((norm > 0) & (first > 0), first / norm, one) for name, norm in norms.items()}


def measures(recipe: Recipe, step: int, steps: int, weights: dict[str, float], begins: bool) -> bool:
    """Whether gradients are measured at ``step`` (from 1) of ``steps``; ``begins``: it is the first one of its stage.

    Never where there is a single objective. A normaliser measures where the stage begins, and at every log line where
    ``monitor.gradients`` gives no number.
    """
    if sum(weight != 0 for weight in weights.values()) < 2:
        return False
    every = recipe.monitor.gradients
    if recipe.loss_normaliser == "gradients":
        return begins or step % (every if every > 0 else recipe.log_every) == 0
    return every >= 0 and (step == 1 or step % (every or math.ceil(steps / 10)) == 0)
