"""Stages: parts of a run with weights, a length, a batch size and a learning rate of their own.

Semantic Genesis only changes weights from stage to stage. DiRA (spec_dira §1.6) ends one training and begins the next
from its weights: a ``fresh`` stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

from scanlearn.errors import ScanlearnError, unknown

if TYPE_CHECKING:
    from scanlearn.engine.recipe import Recipe

STARTS = ("last", "best")


@dataclass
class Stage:
    """A part of the run. What a stage does not say is the recipe's; weight 0 skips an objective."""

    steps: int | None = None
    weights: dict[str, float] = field(default_factory=dict)  # objectives that are not named keep theirs
    name: str = ""  # in the log and on the screen; by default its number
    epochs: int | None = None  # instead of steps: passes over the training scans
    batch_size: int | None = None
    lr: float | None = None  # instead of optimizer.lr; the schedule goes on from it
    # Begins anew: optimiser, schedule, best validation and opponents. Network, heads, key network and queue are kept.
    fresh: bool = False
    start: str = "last"  # of a fresh stage: last | best, the weights that the stages before it are left with


@dataclass(frozen=True)
class Phase:
    """A stage as it runs: from step ``first`` to before step ``end``, counted from 0.

    ``begun`` and ``over`` are those steps of its training: of all stages from the last fresh one to before the next.
    """

    name: str
    first: int
    end: int
    batch_size: int
    lr: float
    weights: dict[str, float]
    begun: int
    over: int
    start: str = "last"

    @property
    def handed_over(self) -> bool:
        """Whether it goes on from the weights of another training of this run."""
        return self.first == self.begun > 0


def check_stages(recipe: Recipe) -> None:
    """Lengths in one unit, starts that exist, objectives that are the recipe's; sets the recipe's length by them."""
    stages = recipe.stages
    by_epochs = [stage.epochs is not None for stage in stages]
    if any(by_epochs) != all(by_epochs) or any(stage.steps is None and stage.epochs is None for stage in stages):
        raise ScanlearnError("The stages of a recipe all say their steps, or all their epochs: give each one of these.")
    for stage in stages:
        if stage.start not in STARTS:
            raise unknown("start of a stage", stage.start, STARTS)
        if stage.start == "best" and not (stage.fresh and recipe.stopping.every and recipe.stopping.restore_best):
            raise ScanlearnError(
                "A stage can start from the best weights only with fresh: true, with stopping.every, which says how "
                "often the weights before it are validated, and with stopping.restore_best: true."
            )
        for name in stage.weights:
            if name not in recipe.objectives:
                raise unknown("objective in this recipe", name, recipe.objectives)
    if recipe.stopping.patience and any(stage.fresh for stage in stages[1:]):
        raise ScanlearnError(
            "stopping.patience would end the run before its later stages, which begin anew: leave it out with "
            "--stopping.patience 0."
        )
    if all(by_epochs):
        recipe.epochs = sum(stage.epochs or 0 for stage in stages)
        return
    if recipe.epochs is not None and len({stage.batch_size or recipe.batch_size for stage in stages}) > 1:
        raise ScanlearnError("Stages with batches of different sizes share no number of epochs: give each its own.")
    recipe.steps = sum(stage.steps or 0 for stage in stages)


def lengths(stages: Sequence[Stage], batch_size: int) -> list[Fraction]:
    """How long the stages are beside each other, in steps; ``batch_size`` is that of those that say none."""
    return [
        Fraction(stage.steps or 0) if stage.epochs is None else Fraction(stage.epochs, stage.batch_size or batch_size)
        for stage in stages
    ]


def stretched(stages: Sequence[Stage], steps: int, batch_size: int = 1) -> list[Stage]:
    """The same stages in the same proportions over ``steps`` steps, each one step at least."""
    counts = shares(lengths(stages, batch_size), steps)
    return [replace(stage, steps=count, epochs=None) for stage, count in zip(stages, counts, strict=True)]


def shares(parts: Sequence[Fraction | int], total: int) -> list[int]:
    """``total`` divided in the proportions of ``parts``, each 1 at least."""
    ends = [0]
    for upto in accumulate(parts):
        ends.append(max(round(total * Fraction(upto) / sum(parts)), ends[-1] + 1))
    return [end - start for start, end in pairwise(ends)]


def settled(recipe: Recipe, scans: int) -> list[Stage]:
    """The stages with their steps on a data set of so many scans; the same when asked again."""
    stages = recipe.stages
    if recipe.epochs is None or not stages:
        return stages
    if stages[0].epochs is None:
        return stretched(stages, max(recipe.epochs * scans // recipe.batch_size, 1))
    sizes = [stage.batch_size or recipe.batch_size for stage in stages]
    counts = [max((stage.epochs or 0) * scans // size, 1) for stage, size in zip(stages, sizes, strict=True)]
    return [replace(stage, steps=count) for stage, count in zip(stages, counts, strict=True)]


def phases(recipe: Recipe, steps: int | None = None) -> list[Phase]:
    """The stages of a run of ``steps`` steps; a recipe without stages is one.

    Epochs that no data set has turned into steps yet share the recipe's steps.
    """
    steps = recipe.steps if steps is None else steps
    stages = recipe.stages or [Stage(steps)]
    if any(stage.steps is None for stage in stages):
        stages = stretched(stages, steps, recipe.batch_size)
    ends = [0, *accumulate(stage.steps or 0 for stage in stages)]
    anew = [i for i, stage in enumerate(stages) if stage.fresh or i == 0] + [len(stages)]
    found = []
    for i, (stage, weights) in enumerate(zip(stages, recipe.stage_weights(), strict=True)):
        begun, over = max(at for at in anew if at <= i), min(at for at in anew if at > i)
        found.append(
            Phase(
                stage.name or (f"stage {i + 1}" if recipe.stages else ""),
                ends[i],
                ends[i + 1],
                stage.batch_size or recipe.batch_size,
                recipe.optimizer.lr if stage.lr is None else stage.lr,
                {name: float(weight) for name, weight in weights.items()},
                ends[begun],
                ends[over],
                stage.start,
            )
        )
    return found


def phase_at(course: Sequence[Phase], step: int) -> Phase:
    """The phase that a step, counted from 0, lies in; the last one after the end."""
    return next((phase for phase in course if step < phase.end), course[-1])


def judged_by(course: Sequence[Phase], phase: Phase) -> dict[str, float]:
    """The weights by which a training is validated: those of its last stage."""
    return next(other.weights for other in course if other.end == phase.over)


def scans_in(recipe: dict[str, Any], first: int, last: int) -> int:
    """How many scans the steps after ``first`` up to ``last`` took; ``recipe`` is plain data, as a run keeps it."""
    total, end = 0, 0
    for stage in recipe.get("stages") or []:
        start, end = end, end + (stage.get("steps") or 0)
        inside = max(min(end, last) - max(start, first), 0)
        total += inside * (stage.get("batch_size") or recipe["batch_size"])
    return total + max(last - max(end, first), 0) * int(recipe["batch_size"])
