"""What a study will cost, measured on this machine by a few steps of each of its parts, and what fits a budget."""

from __future__ import annotations

import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from scanlearn.console import console, say
from scanlearn.engine.pretrain import pretrain
from scanlearn.engine.recipe import load_recipe
from scanlearn.engine.run_folder import RunFolder
from scanlearn.engine.train import total_steps
from scanlearn.errors import ScanlearnError
from scanlearn.scans.store import Store
from scanlearn.scans.words import open_words
from scanlearn.study.grid import Cell, Grid, Pretraining
from scanlearn.study.plan import StudyPlan, minutes
from scanlearn.study.work import fine_tune
from scanlearn.tasks.finetune import choose_rows, target_labels

PRETRAINING_STEPS, FINETUNING_STEPS, LOG_EVERY = 12, 8, 4
# A pre-training shortened to less than this share of its recipe's steps says nothing about the method.
LEAST_SHARE = 0.1


@dataclass
class Cost:
    """Of one pre-training or of the cells of one method: seconds, steps and bytes on disk."""

    seconds_per_step: float
    steps: int
    overhead: float  # seconds that do not grow with the steps: start, test, export
    bytes: int
    count: int  # how many of them the study has

    @property
    def seconds(self) -> float:
        """Of one of them."""
        return self.overhead + self.steps * self.seconds_per_step


@dataclass
class Estimate:
    """The cost of a study by its parts."""

    pretrainings: dict[str, Cost] = field(default_factory=dict)  # by name
    cells: dict[str, Cost] = field(default_factory=dict)  # by method
    peak_memory_bytes: int = 0

    @property
    def pretraining_seconds(self) -> float:
        """Of all pre-trainings, one after the other."""
        return sum(c.seconds * c.count for c in self.pretrainings.values())

    @property
    def cell_seconds(self) -> float:
        """Of all fine-tunings, one after the other."""
        return sum(c.seconds * c.count for c in self.cells.values())

    @property
    def bytes(self) -> int:
        """On disk at the end."""
        return sum(c.bytes * c.count for c in [*self.pretrainings.values(), *self.cells.values()])

    def to_dict(self) -> dict[str, Any]:
        """For study.json."""
        return {**asdict(self), "seconds": self.pretraining_seconds + self.cell_seconds, "bytes": self.bytes}


def measure(plan: StudyPlan, grid: Grid, store: Store) -> Estimate:
    """Run a few steps of each pre-training and one short cell of each method in a temporary folder, and extrapolate."""
    found = Estimate()
    with tempfile.TemporaryDirectory(prefix="scanlearn-measure-") as name:
        folder = Path(name)
        for task in grid.pretrainings:
            twin = next(
                (t for t in found.pretrainings if t.rpartition("-seed")[0] == task.name.rpartition("-seed")[0]), ""
            )
            found.pretrainings[task.name] = found.pretrainings[twin] if twin else _pretraining(task, store, folder)
            if twin:
                shutil.copytree(folder / twin, folder / task.name)
        for method in grid.methods:
            of_method = [cell for cell in grid.cells if cell.method == method]
            found.cells[method] = _cells(plan, of_method, store, folder)
    scale = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KiB on Linux
    found.peak_memory_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
    return found


def _pretraining(task: Pretraining, store: Store, folder: Path) -> Cost:
    say(f"measuring the pre-training {task.name}")
    short = {"log_every": LOG_EVERY, "monitor.every": -1}
    recipe = load_recipe(task.recipe, task.overrides)
    count = len(store.splits["train"]) if task.words is None else len(open_words(task.words, store).patches())
    steps = total_steps(recipe, count)
    begun = time.monotonic()
    settings = {**task.overrides, "stages": [], **short, "steps": PRETRAINING_STEPS}
    with quietly():
        pretrain(store, task.recipe, folder / task.name, settings=settings, words=task.words, labels=task.labels)
    whole = time.monotonic() - begun
    each = _seconds_per_step(folder / task.name, recipe.batch_size)
    return Cost(each, steps, max(whole - PRETRAINING_STEPS * each, 0.0), size_of(folder / task.name), 1)


def _cells(plan: StudyPlan, cells: list[Cell], store: Store, folder: Path) -> Cost:
    """Of the method's cells: the one with most labels is run for a few steps and tested as it will be."""
    column = target_labels(store, plan.task, plan.target, plan.classes)
    cell = max(cells, key=lambda c: len(choose_rows(store, column, c.labels, 0)))
    say(f"measuring the fine-tuning {cell.name}")
    method = plan.methods.get(cell.method)
    start = folder / cell.start.name if isinstance(cell.start, Pretraining) else cell.start
    settings = {**plan.finetuning, **(method.finetuning if method else {})}
    named = (method and method.finetuning_recipe) or plan.recipe or f"finetune_{plan.task}"
    recipe = load_recipe(named, {k: v for k, v in settings.items() if k != "size"})
    begun = time.monotonic()
    with quietly():
        fine_tune(plan, cell, store, start, folder / cell.name, steps=FINETUNING_STEPS, log_every=LOG_EVERY)
    whole = time.monotonic() - begun
    if method and method.mode == "frozen":
        return Cost(0.0, 0, whole, size_of(folder / cell.name), len(cells))
    each = _seconds_per_step(folder / cell.name, recipe.batch_size)
    overhead = max(whole - FINETUNING_STEPS * each, 0.0)
    return Cost(each, recipe.steps, overhead, size_of(folder / cell.name), len(cells))


def _seconds_per_step(run: Path, batch_size: int) -> float:
    """The median over the log, but for its first line, which holds the warm-up."""
    speeds = [
        line["images_per_second"] for line in RunFolder(run).read_metrics("train") if line.get("images_per_second")
    ]
    if not speeds:
        raise ScanlearnError(f"The measurement of {run.name} logged no speed, so its cost cannot be told.")
    return batch_size / median(speeds[1:] or speeds)


@contextmanager
def quietly() -> Iterator[None]:
    """Nothing on the screen: a measurement tests too, and nobody should see figures of a test that is not the test."""
    before, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = before


def size_of(folder: Path) -> int:
    """Bytes of the files that a finished run keeps."""
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file() and "checkpoints" not in f.parts)


def steps_that_fit(plan: StudyPlan, estimate: Estimate, jobs: int = 1) -> dict[str, int]:
    """Steps of each pre-training under the plan's equal time or budget; {} where nothing has to change.

    Equal time: as many steps as fit the minutes. A budget: fine-tunings are left alone, and all pre-trainings are
    shortened by one factor to what is left, at most to LEAST_SHARE of their recipes.

    Raises:
        ScanlearnError: the budget cannot hold the study; says what it would take.
    """
    costs = estimate.pretrainings
    steps = {name: cost.steps for name, cost in costs.items()}
    if plan.pretraining_minutes is not None:
        for name, cost in costs.items():
            steps[name] = max(int((plan.pretraining_minutes * 60 - cost.overhead) / cost.seconds_per_step), 1)
    if plan.budget is not None:
        have = minutes(plan.budget) * 60 * jobs - estimate.cell_seconds
        want = sum(steps[name] * c.seconds_per_step for name, c in costs.items())
        share = (have - sum(c.overhead for c in costs.values())) / want if want else 1.0
        if share < LEAST_SHARE:
            least = (estimate.cell_seconds + LEAST_SHARE * want + sum(c.overhead for c in costs.values())) / 60 / jobs
            raise ScanlearnError(
                f"The budget of {plan.budget} cannot hold this study: its {sum(c.count for c in estimate.cells.values())} "
                f"fine-tunings alone take {estimate.cell_seconds / 60 / jobs:.0f} minutes. Give {least:.0f} minutes, or ask "
                "for fewer label counts, seeds or methods."
            )
        if share < 1:
            steps = {name: max(int(count * share), 1) for name, count in steps.items()}
    return {name: count for name, count in steps.items() if count != costs[name].steps}
