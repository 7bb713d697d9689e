"""Optimisers by name, with parameters grouped by what may decay and how fast they move."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from scanlearn.engine.recipe import OptimizerSettings
from scanlearn.errors import unknown


class Lars(torch.optim.Optimizer):
    """Layer-wise adaptive rate scaling (You, Gitman, Ginsburg, arXiv 1708.03888).

    Each weight tensor moves by ``lr * trust * |w| / |g + wd w|`` along its momentum; vectors (biases, norms) move by
    plain SGD without decay.
    """

    def __init__(self, params: Any, lr: float, momentum: float = 0.9, weight_decay: float = 0.0, trust: float = 1e-3):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of all parameters that have a gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._move(p, group)

    def _move(self, p: Tensor, group: dict[str, Any]) -> None:
        update = p.grad
        assert update is not None
        if p.ndim > 1:
            update = update + group["weight_decay"] * p
            weight, size = p.norm(), update.norm()
            ratio = torch.where((weight > 0) & (size > 0), group["trust"] * weight / size, torch.ones_like(weight))
            update = update * ratio
        state = self.state[p]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(p)
        state["momentum"].mul_(group["momentum"]).add_(update)
        p.add_(state["momentum"], alpha=-group["lr"])


def parameter_groups(module: nn.Module, encoder: nn.Module, settings: OptimizerSettings) -> list[dict[str, Any]]:
    """Groups by (part of the encoder?, decays?), each with its ``lr_scale``; frozen parameters are left out."""
    inside = {id(p) for p in encoder.parameters()}
    groups: dict[tuple[bool, bool], list[Tensor]] = {}
    for p in module.parameters():
        if p.requires_grad:
            decays = p.ndim > 1 or settings.decay_norm_and_bias
            groups.setdefault((id(p) in inside, decays), []).append(p)
    return [
        {
            "params": params,
            "lr_scale": settings.encoder_lr_scale if in_encoder else 1.0,
            "weight_decay": settings.weight_decay if decays else 0.0,
        }
        for (in_encoder, decays), params in groups.items()
    ]


def build_optimizer(groups: list[dict[str, Any]], settings: OptimizerSettings) -> torch.optim.Optimizer:
    """The optimiser the recipe names."""
    lr, momentum, betas = settings.lr, settings.momentum, settings.betas
    if settings.name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum)
    if settings.name == "adam":
        # Betas (beta1, beta2); decay added to the gradient, as in the original Adam.
        return torch.optim.Adam(groups, lr=lr, betas=betas)
    if settings.name == "adamw":
        return torch.optim.AdamW(groups, lr=lr, betas=betas)
    if settings.name == "lars":
        return Lars(groups, lr=lr, momentum=momentum)
    raise unknown("optimizer", settings.name, ["sgd", "adam", "adamw", "lars"])


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set every group to ``lr`` times its own scale."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
