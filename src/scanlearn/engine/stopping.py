"""What validation decides: which weights are kept, when the learning rate falls, and when training has come to its end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from scanlearn.engine.learner import Learner
from scanlearn.engine.progress import TrainingProgress
from scanlearn.engine.recipe import Recipe
from scanlearn.engine.run_folder import MetricLog
from scanlearn.errors import ScanlearnError

Validate = Callable[[Learner], float]  # the figure of a network in evaluation mode; lower is better


class Patience:
    """How many figures came since the last one that was ``min_delta`` lower than the best before it.

    The first figure counts as better. This is the counting of Keras (ReduceLROnPlateau, EarlyStopping).
    """

    def __init__(self, min_delta: float):
        self.min_delta = min_delta
        self.best = math.inf
        self.waited = 0

    def note(self, figure: float) -> None:
        """Count one figure."""
        if figure < self.best - self.min_delta:
            self.best, self.waited = figure, 0
        else:
            self.waited += 1


class Stopping:
    """Best weights, plateau schedule and early end of one run, by the figures of its validations; nothing without them.

    The state goes through checkpoints, so a resumed run decides as the unbroken one. The best weights lie in the memory
    of the CPU, all of the learner's: network, heads and buffers. They are those of the lowest figure, whatever
    ``min_delta`` says; of equal figures the first.

    Args:
        recipe: its ``stopping`` and, where that is called plateau, its ``schedule``.
        learner: the module whose weights are kept.
        steps_per_epoch: steps of a pass over the training scans, the unit of ``every`` with ``per_epoch``.
    """

    def __init__(self, recipe: Recipe, learner: nn.Module, steps_per_epoch: int):
        self.settings = recipe.stopping
        self._schedule = recipe.schedule if recipe.schedule.name == "plateau" else None
        self._learner = learner
        self.every = self.settings.every * (steps_per_epoch if self.settings.per_epoch else 1)
        self.begin()

    def begin(self) -> None:
        """Forget every validation: a new training begins, the run's first or that of a fresh stage."""
        self.best, self.best_step = math.inf, 0
        self.factor = 1.0  # of the learning rate
        self._end = Patience(self.settings.min_delta)
        self._plateau = Patience(self._schedule.min_delta if self._schedule else 0.0)
        self._weights: dict[str, Tensor] = {}

    def due(self, step: int, steps: int) -> bool:
        """Whether the weights after ``step`` of ``steps`` are to be validated; those of the last step always are."""
        return self.every > 0 and (step % self.every == 0 or step == steps)

    def note(self, step: int, figure: float) -> None:
        """Take the figure of the weights after ``step``."""
        if not math.isfinite(figure):
            raise ScanlearnError(
                f"The validation at step {step:,} gave {figure}, no number to go by: lower --optimizer.lr, or look at the "
                "scans of the validation part."
            )
        if figure < self.best:
            self.best, self.best_step = figure, step
            if self.settings.restore_best:
                state = self._learner.state_dict()
                self._weights = {name: value.detach().to("cpu", copy=True) for name, value in state.items()}
        self._end.note(figure)
        self._plateau.note(figure)
        if self._schedule is not None and self._plateau.waited >= self._schedule.patience:
            self.factor *= self._schedule.gamma
            self._plateau.waited = 0

    def rate(self, rate: float) -> float:
        """The learning rate on the plateaus met so far; it falls to the schedule's ``floor`` and not below."""
        if self._schedule is None:
            return rate
        return max(rate * self.factor, min(rate, self._schedule.floor))

    @property
    def over(self) -> bool:
        """Whether ``patience`` validations in a row were no better."""
        return 0 < self.settings.patience <= self._end.waited

    def restore(self) -> None:
        """Give the learner its best weights back, where they are kept."""
        if self._weights:
            self._learner.load_state_dict(self._weights)

    def told(self, step: int) -> dict[str, Any] | None:
        """For results.json: where it stopped, why, and which weights were kept; None before the first validation."""
        if self.best_step == 0:
            return None
        patience = self.settings.patience
        why = f"{patience} validations without a better figure" if self.over else "the last step was reached"
        kept = self.best_step if self._weights else step
        return {
            "stopped_at": step,
            "why": why,
            "best_step": self.best_step,
            "best_figure": self.best,
            "weights_of_step": kept,
            "rate_factor": self.factor,
        }

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers and tensors, for the checkpoint."""
        numbers = {"best": self.best, "best_step": self.best_step, "factor": self.factor}
        for name, patience in (("end", self._end), ("plateau", self._plateau)):
            numbers |= {f"{name}_best": patience.best, f"{name}_waited": patience.waited}
        return {"numbers": numbers, "weights": self._weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The state of ``state_dict``; one that cannot be of this run raises ValueError."""
        numbers, weights = state["numbers"], state["weights"]
        counts = ("best_step", "end_waited", "plateau_waited")
        if set(numbers) != set(self.state_dict()["numbers"]) or any(
            type(value) is not (int if name in counts else float) or math.isnan(value) or (value < 0 and name in counts)
            for name, value in numbers.items()
        ):
            raise ValueError("the numbers of its validations are damaged")
        if weights and (forms(weights) != forms(self._learner.state_dict()) or not self.settings.restore_best):
            raise ValueError("its best weights are of another network")
        self.best, self.best_step, self.factor = numbers["best"], numbers["best_step"], numbers["factor"]
        self._end.best, self._end.waited = numbers["end_best"], numbers["end_waited"]
        self._plateau.best, self._plateau.waited = numbers["plateau_best"], numbers["plateau_waited"]
        self._weights = weights


def forms(state: dict[str, Any]) -> dict[str, Any]:
    """Shape and type of each tensor; whatever else there is equals nothing."""
    return {
        name: (tuple(value.shape), value.dtype) if isinstance(value, Tensor) else object()
        for name, value in state.items()
    }


def refuse_no_figure(recipe: Recipe, validate: Validate | None, strategy: str) -> None:
    """Validations that are asked for must be possible."""
    if recipe.stopping.every and validate is None:
        raise ScanlearnError(
            f"Recipe {recipe.name!r} asks for validations, and this training has no figure of them: add --stopping.every 0."
        )
    if recipe.stopping.every and strategy == "fsdp":
        raise ScanlearnError(
            "Validations need the whole weights on one rank, and fsdp cuts them up: train with --strategy ddp, or without "
            "validations (--stopping.every 0)."
        )


def examine(
    stopping: Stopping,
    validate: Validate,
    learner: Learner,
    fabric: Fabric,
    log: MetricLog | None,
    progress: TrainingProgress,
    step: int,
) -> None:
    """Validate the weights after ``step``; all ranks go by the figure of the first. The time is no training time."""
    begun = time.perf_counter()
    figure = 0.0
    if fabric.is_global_zero:
        learner.eval()
        with torch.no_grad():
            figure = float(validate(learner))
        learner.train()
    figure = fabric.broadcast(figure)
    stopping.note(step, figure)
    progress.pause(time.perf_counter() - begun)
    if log is not None:
        best = {"best": stopping.best, "best_step": stopping.best_step, "rate_factor": stopping.factor}
        log.write(step, "validation", {"figure": figure, **best})
        progress.show_validation(step, figure, stopping.best_step)
