"""What is optimised: the network and its objectives, in one module, so that one forward is one step on any strategy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from scanlearn.engine.balance import Balance, gradient_norms
from scanlearn.engine.recipe import Recipe
from scanlearn.engine.stages import phase_at, phases
from scanlearn.errors import ScanlearnError
from scanlearn.networks.network import Network, build_network
from scanlearn.networks.norm import set_batch_norm
from scanlearn.objectives.objective import Apart, Objective, build_objective
from scanlearn.objectives.step import Step


class Learner(nn.Module):
    """``forward(views, batch, weights) -> (loss, parts)`` or, with ``embed``, the pooled features of images.

    With ``normalise`` its objectives are balanced by their gradients (``engine/balance``).
    """

    def __init__(
        self,
        network: Network,
        objectives: dict[str, Objective],
        seed: int = 0,
        freeze_encoder: bool = False,
        normalise: bool = False,
    ):
        super().__init__()
        self.network = network
        self.objectives = nn.ModuleDict(objectives)
        # Objectives that enrich others are measured by these, in whatever order a recipe names them.
        order = sorted(objectives, key=lambda name: objectives[name].auxiliary)
        self.balance = Balance(order) if normalise else None
        self.seed = seed
        self.freeze_encoder = freeze_encoder
        self.judged_by: dict[str, float] = {}  # weights that a validation of the objectives goes by; those of the stage
        if freeze_encoder:
            network.encoder.requires_grad_(False)

    def train(self, mode: bool = True) -> Learner:
        """A frozen encoder keeps its batch-norm statistics, so it stays in evaluation mode."""
        super().train(mode)
        if self.freeze_encoder:
            self.network.encoder.eval()
        return self

    def forward(
        self,
        views: dict[str, Tensor] | None = None,
        batch: dict[str, Any] | None = None,
        weights: dict[str, float] | None = None,
        embed: Tensor | None = None,
        measure: bool = False,
    ) -> Any:
        """One step over all objectives of weight > 0.

        ``measure`` also gives the norm of each weighted objective's gradient at the encoder, ``gradient_NAME``.

        Returns:
            (weighted sum, {objective or log name: unweighted value}), or (N, num_features) for ``embed``. The sum has
            the value of the objectives alone, and the gradients of opponents' losses as well, for their own parameters.
        """
        if embed is not None:
            return self.network.pooled(embed)
        assert views is not None and batch is not None and weights is not None
        step = Step(self.network, views, batch, self.seed)
        values = {name: objective(step) for name, objective in self.objectives.items() if weights[name] != 0}
        parts = {name: value.detach() for name, value in values.items()}
        norms = gradient_norms(values, self.network.encoder) if measure else {}
        factors: dict[str, Any] = {name: weights[name] for name in values}
        if self.balance is not None and self.training:
            self.balance.note(norms)
            factors = {name: weights[name] * by for name, by in self.balance.factors(list(values)).items()}
        parts |= {f"gradient_{name}": norm * abs(factors[name]) for name, norm in norms.items()}
        total = torch.zeros((), device=next(iter(views.values())).device)
        for name, value in values.items():
            total = total + factors[name] * value
        for opposing in step.opposed:
            total = total + (opposing - opposing.detach())  # nothing to the value
        return total, {**parts, **step.logs}

    def apart(self) -> list[Apart]:
        """What in the objectives moves in another way than the recipe says."""
        return [part for objective in self.objectives.values() for part in objective.apart()]  # type: ignore[operator]

    def after_update(self) -> None:
        """After each optimiser step: moving averages and the like."""
        for objective in self.objectives.values():
            assert isinstance(objective, Objective)
            objective.after_update()


def build_learner(
    recipe: Recipe, seed: int, world_size: int, network: Network | None = None, device: torch.device | None = None
) -> Learner:
    """Network + objectives of a recipe; the same seed gives the same weights on every rank."""
    torch.manual_seed(seed)
    if network is None:
        settings = recipe.network
        encoder = {**settings.encoder} | ({"normalise": settings.normalise} if settings.normalise else {})
        parts = {"encoder": encoder, "decoder": settings.decoder}
        with usable("network"):
            network = build_network(parts, spatial_dims=recipe.spatial_dims, in_channels=recipe.channels)
    groups = max(recipe.network.batch_norm_groups // world_size, 1)
    set_batch_norm(network, recipe.network.batch_norm, groups, device)
    objectives = {}
    for name, settings_of in recipe.objectives.items():
        with usable(f"objectives.{name}"):
            objectives[name] = build_objective(name, {k: v for k, v in settings_of.items() if k != "weight"}, network)
    learner = Learner(network, objectives, seed, recipe.network.freeze_encoder, recipe.loss_normaliser == "gradients")
    learner.judged_by = phases(recipe)[-1].weights
    return learner


@contextmanager
def usable(settings: str) -> Iterator[None]:
    """Settings of a wrong type or size, which fail somewhere inside the part they are for, end in one sentence."""
    try:
        yield
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RuntimeError, MemoryError) as error:
        why = (str(error).splitlines() or [""])[0][:200]
        raise ScanlearnError(
            f"The settings {settings} of the recipe cannot be used ({type(error).__name__}: {why}): look at their types."
        ) from error


def weights_at(recipe: Recipe, step: int) -> dict[str, float]:
    """The weight of each objective at a step, by the stage that the step lies in."""
    return phase_at(phases(recipe), step).weights
