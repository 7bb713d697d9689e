"""Optimisers by name, with parameters grouped by what may decay and how fast they move."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from scanlearn.engine.learner import usable
from scanlearn.engine.opponents import Together, optimizer_settings
from scanlearn.engine.recipe import OptimizerSettings
from scanlearn.errors import unknown
from scanlearn.objectives.objective import Apart


class Lars(torch.optim.Optimizer):
    """Layer-wise adaptive rate scaling (You, Gitman, Ginsburg, arXiv 1708.03888).

    Each weight tensor moves by ``lr * trust * |w| / |g + wd w|`` along its momentum; vectors (biases, norms) move by
    plain SGD without decay, as in Barlow Twins (spec_dira §2.3).
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


def parameter_groups(
    module: nn.Module, encoder: nn.Module, settings: OptimizerSettings, apart: Sequence[Apart] = ()
) -> list[dict[str, Any]]:
    """Groups by (part of the encoder?, decays?, a vector?, at a constant rate?), each with its ``lr_scale``.

    Frozen parameters and those of opponents are left out. ``constant`` groups do not follow the schedule.
    """
    inside = {id(p) for p in encoder.parameters()}
    constant = {id(p) for part in apart if part.optimizer is None for p in part.module.parameters()}
    opposing = {id(p) for part in apart if part.optimizer is not None for p in part.module.parameters()}
    groups: dict[tuple[bool, bool, bool, bool], list[Tensor]] = {}
    for p in module.parameters():
        if p.requires_grad and id(p) not in opposing:
            decays = p.ndim > 1 or settings.decay_norm_and_bias
            slow = p.ndim <= 1 and settings.vector_lr_scale != 1
            groups.setdefault((id(p) in inside, decays, slow, id(p) in constant), []).append(p)
    return [
        {
            "params": params,
            "lr_scale": (settings.encoder_lr_scale if in_encoder else 1.0)
            * (settings.vector_lr_scale if slow else 1.0),
            "weight_decay": settings.weight_decay if decays else 0.0,
            "constant": held,
        }
        for (in_encoder, decays, slow, held), params in groups.items()
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
        return Lars(groups, lr=lr, momentum=momentum, trust=settings.trust)
    raise unknown("optimizer", settings.name, ["sgd", "adam", "adamw", "lars"])


def optimizer_of(
    module: nn.Module, encoder: nn.Module, settings: OptimizerSettings, apart: Sequence[Apart] = ()
) -> torch.optim.Optimizer:
    """The optimiser of everything in ``module``: the recipe's, together with those of opponents where there are some."""
    found = [build_optimizer(parameter_groups(module, encoder, settings, apart), settings)]
    for part in apart:
        if part.optimizer is not None:
            own = optimizer_settings(part)
            groups = [{**group, "opponent": True} for group in parameter_groups(part.module, nn.Module(), own)]
            with usable("of an opponent's optimizer"):
                found.append(build_optimizer(groups, own))
    return found[0] if len(found) == 1 else Together(found)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float, base: float | None = None) -> None:
    """Set every group to ``lr`` times its own scale; constant ones to ``base``, the rate without schedule, times it.

    Opponents keep the rate they were built with.
    """
    for group in optimizer.param_groups:
        if not group.get("opponent"):
            rate = base if group["constant"] and base is not None else lr
            group["lr"] = rate * group["lr_scale"]
