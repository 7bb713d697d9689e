"""Opponents: modules of objectives that have an optimiser of their own and learn against the network.

An opponent's gradients come from the same backward pass as all others, from a loss that reaches nothing else (the
objective sees to it), so ranks, precision and accumulated parts need no word here. What is left is a second optimiser,
made one with the first: whoever steps, saves, loads or scales gradients of half precision sees a single optimiser.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lightning_fabric import Fabric

from scanlearn.engine.recipe import OptimizerSettings, parse_settings
from scanlearn.objectives.objective import Apart


class Together(torch.optim.Optimizer):
    """Several optimisers that step as one. The first is the network's.

    They share one state and one list of groups, so the state dict is that of an ordinary optimiser.
    """

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer]):
        self.optimizers = list(optimizers)
        super().__init__([group for optimizer in optimizers for group in optimizer.param_groups], {})
        self._share()

    def _share(self) -> None:
        first = 0
        for optimizer in self.optimizers:
            count = len(optimizer.param_groups)
            optimizer.param_groups = self.param_groups[first : first + count]
            optimizer.state = self.state
            first += count

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The state of ``state_dict``."""
        super().load_state_dict(state_dict)  # puts a new state and new groups in place of the shared ones
        self._share()

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step of each, on the gradients that are there."""
        for optimizer in self.optimizers:
            optimizer.step()


def optimizer_settings(apart: Apart) -> OptimizerSettings:
    """The settings of an opponent's optimiser; unknown ones are refused."""
    return parse_settings(OptimizerSettings, dict(apart.optimizer or {}), "optimizer of an opponent")


def clip_gradients(fabric: Fabric, optimizer: Any, max_norm: float) -> None:
    """Shorten the network's gradient to ``max_norm``; an opponent's is left alone, and out of the norm."""
    whole = optimizer.optimizer  # without Fabric's wrapper
    fabric.strategy.precision.unscale_gradients(whole)
    own = whole.optimizers[0] if isinstance(whole, Together) else whole
    parameters = [parameter for group in own.param_groups for parameter in group["params"]]
    torch.nn.utils.clip_grad_norm_(parameters, max_norm, error_if_nonfinite=False)
