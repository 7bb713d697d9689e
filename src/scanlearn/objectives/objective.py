"""The contract of a learning signal, and the table of their names."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from scanlearn.networks.network import Network
from scanlearn.networks.norm import SplitBatchNorm, set_batch_norm
from scanlearn.objectives.step import Step
from scanlearn.registry import Registry

OBJECTIVES = Registry(
    "objective",
    modules=tuple(
        f"scanlearn.objectives.{name}"
        for name in (
            *("momentum_contrast", "mixed_contrast", "siamese", "redundancy", "restore", "adversary"),
            *("words", "rotation", "prototypes", "classify", "segment", "detect"),
            *("boundary", "variational", "predict", "consistency"),
        )
    ),
)


@dataclass(frozen=True)
class Apart:
    """Parameters of an objective that move in another way than the recipe says.

    Attributes:
        module: whose parameters.
        optimizer: None, the recipe's, at its rate without its schedule; or the settings of an optimiser of its own, at
            a constant rate (``name``, ``lr`` and others of the recipe's ``optimizer``), which makes it an opponent: its
            loss is what the objective gives to ``Step.oppose``, and no other loss may reach it.
    """

    module: nn.Module
    optimizer: Mapping[str, Any] | None = None


class Objective(nn.Module):
    """A learning signal. Subclasses take the network first and their settings as keywords.

    ``reduction`` declares how ranks combine: every objective returns the mean over its rank's samples, and the engine
    averages gradients over ranks, so the sum of both is the mean over the global batch.
    """

    reduction = "mean over the global batch"
    auxiliary = False  # it enriches another objective, whose gradient is then the measure of its own (engine/balance)

    def forward(self, step: Step) -> Tensor:
        """The loss of this step, a scalar."""
        raise NotImplementedError

    def start(self, scans: int, batch_size: int) -> None:
        """Called once before the first step with the number of training scans and the global batch size."""

    def start_from(self, network: Network) -> None:
        """Called after the network was initialised from weights (copies of its parts must follow)."""

    def begin(self, seed: int) -> None:
        """Called before the first step of a stage that begins anew (``stages`` with ``fresh``): heads, key networks and
        queues go on; an opponent starts from new weights, a function of ``seed``."""

    def after_update(self) -> None:
        """Called after each optimiser step (moving averages)."""

    def exported(self) -> dict[str, Tensor]:
        """The tensors that a trained head is applied with, where it is more than a signal to train by."""
        return dict(self.state_dict())

    def apart(self) -> list[Apart]:
        """Its modules that move in another way than the recipe says."""
        return []


def build_objective(name: str, settings: dict[str, object], network: Network) -> Objective:
    """Build the objective called ``name``; unknown names and settings are refused with the nearest known one.

    Batch norms of its heads are made those of the network (local, split or synchronised), as a head stands on maps of
    the same batch.
    """
    objective = OBJECTIVES.build(name, settings, network)
    for part in network.modules():
        if isinstance(part, nn.SyncBatchNorm):
            return nn.SyncBatchNorm.convert_sync_batchnorm(objective)
        if isinstance(part, SplitBatchNorm):
            set_batch_norm(objective, "split", part.groups)
            break
    return objective


def full_precision(x: Tensor) -> AbstractContextManager[None]:
    """Losses are computed in float32 whatever the network's precision: ``with full_precision(x): ...``."""
    return torch.autocast(x.device.type, enabled=False)
