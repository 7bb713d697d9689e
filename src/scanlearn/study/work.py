"""Doing the work of a study: one pre-training or one cell at a time, each at most once, by any number of processes.

Processes share nothing but the study's folder. Who works on a task holds the lock of its folder, which the system
releases however the process ends; what is finished has its result file, and what was cut short is resumed.
"""

from __future__ import annotations

import shutil
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scanlearn.console import say, warn
from scanlearn.engine.checkpoint import checkpoints
from scanlearn.engine.pretrain import pretrain
from scanlearn.engine.run_folder import RunFolder
from scanlearn.errors import Interrupted, ScanlearnError
from scanlearn.files import InUse, lock, read_json, write_json
from scanlearn.scans.store import Store, open_store
from scanlearn.study.grid import Cell, Grid, Pretraining, build_grid, folder_of
from scanlearn.study.page import without_paths
from scanlearn.study.plan import StudyPlan, load_plan
from scanlearn.tasks.finetune import finetune

PLAN = "study.yaml"
STEPS = "steps.json"  # steps of each pre-training, where time decides them
FAILED = "failed.json"
WAIT_SECONDS = 5.0
CHECKPOINT_EVERY = 500  # steps of a fine-tuning that a kill can cost; a short one writes none before its end

Task = Pretraining | Cell


def work(out: Path, only: str | None = None, wait: bool = True) -> None:
    """Do what is left of the study in ``out``, or the one task of the name ``only``.

    Tasks that another process holds are passed over; with ``wait`` this returns when nothing is left or in work.
    """
    plan = load_plan(out / PLAN)
    store = open_store(plan.store)
    grid = build_grid(plan, store)
    while True:
        held = 0
        for task in tasks_of(grid):
            if (only is None or task.name == only) and not is_done(out, task):
                held += not attempt(out, plan, task, store)
        if not held or not wait:
            return
        time.sleep(WAIT_SECONDS)


def tasks_of(grid: Grid) -> list[Task]:
    """Pre-trainings first: every cell after the one that it needs."""
    return [*grid.pretrainings, *grid.cells]


def is_done(out: Path, task: Task) -> bool:
    """Whether a task ended, well or with an error, its own or that of its pre-training."""
    return result_of(out, task) is not None or failure_of(out, task) is not None


def result_of(out: Path, task: Task) -> dict[str, Any] | None:
    """What a finished task left: the results of a cell, the card of a pre-training; None before that."""
    folder = folder_of(out, task)
    file = folder / "results.json" if isinstance(task, Cell) else folder / "encoder" / "encoder.json"
    if not file.is_file():
        return None
    found = read_json(file, f"The {file.name} of {task.name}")
    return found if isinstance(task, Cell) or found["notes"].get("finished") else None


def failure_of(out: Path, task: Task) -> str | None:
    """The sentence that a task, or the pre-training that it needs, failed with, or None."""
    file = beside(out, task, FAILED)
    if file.is_file():
        return read_json(file, file.name)["error"]
    start = task.start if isinstance(task, Cell) else None
    return failure_of(out, start) if isinstance(start, Pretraining) else None


def beside(out: Path, task: Task, word: str) -> Path:
    """A file beside the folder of a task."""
    folder = folder_of(out, task)
    return folder.with_name(f"{folder.name}.{word}")


def forget_failures(out: Path) -> int:
    """Let failed tasks be tried again; returns how many."""
    files = [*out.glob(f"*/*.{FAILED}")]
    for file in files:
        file.unlink()
    return len(files)


def attempt(out: Path, plan: StudyPlan, task: Task, store: Store) -> bool:
    """Do a task unless another process does it or its pre-training is not there yet (False)."""
    with claimed(beside(out, task, "lock")) as mine:
        if not mine:
            return False
        if is_done(out, task):
            return True
        try:
            if isinstance(task, Pretraining):
                run_pretraining(out, task, store)
                return True
            start = task.start
            if isinstance(start, Pretraining) and result_of(out, start) is None:
                return False  # another process is at it
            run_cell(out, plan, task, store)
        except Interrupted:
            raise
        except Exception as error:  # whatever it is, the other cells can still be computed
            fail(out, task, error, store)
        return True


def run_pretraining(out: Path, task: Pretraining, store: Store) -> None:
    """Pre-train once, without the patients of the validation and test parts."""
    folder, settings = folder_of(out, task), task.overrides
    steps = read_json(out / STEPS, STEPS) if (out / STEPS).is_file() else {}
    if task.name in steps:
        settings["steps"] = steps[task.name]
    resume = ready(folder)
    say(f"\npre-training {task.name}" + (" (going on)" if resume else ""))
    how: dict[str, Any] = {"seed": task.seed, "words": task.words, "labels": task.labels, "resume": resume}
    ended = pretrain(store, task.recipe, folder, settings=settings, **how)
    if ended.stopped:
        raise Interrupted("The study was stopped by a signal; the same command goes on from here.")


def run_cell(out: Path, plan: StudyPlan, cell: Cell, store: Store) -> dict[str, Any]:
    """Fine-tune and test one cell."""
    folder = folder_of(out, cell)
    start = folder_of(out, cell.start) if isinstance(cell.start, Pretraining) else cell.start
    resume = ready(folder)
    say(f"\ncell {cell.name}" + (" (going on)" if resume else ""))
    results = fine_tune(plan, cell, store, start, folder, resume=resume)
    drop_what_no_one_reads(folder)
    return results


def fine_tune(
    plan: StudyPlan, cell: Cell, store: Store, start: Path | str, folder: Path, *, resume: bool = False, **changes: Any
) -> dict[str, Any]:
    """The fine-tuning of a cell into ``folder``; ``changes`` are settings that a measurement shortens it by."""
    method = plan.methods.get(cell.method)
    settings = {"checkpoint_every": CHECKPOINT_EVERY, **plan.finetuning, **(method.finetuning if method else {})}
    if method and method.transfer != "whole":
        settings["network.transfer"] = method.transfer
    return finetune(
        store,
        plan.task,
        init="none" if cell.from_scratch else start,
        like=start or None,
        out=folder,
        target=plan.target,
        classes=plan.classes,
        labels=cell.labels,
        mode=method.mode if method else "full",
        recipe=(method and method.finetuning_recipe) or plan.recipe,
        seed=cell.seed,
        resume=resume,
        settings={**settings, **changes},
    )


def ready(folder: Path) -> bool:
    """Whether a run can go on from a checkpoint; one that was cut short before that is taken away."""
    if checkpoints(RunFolder(folder).checkpoints):
        return True
    if folder.exists():
        shutil.rmtree(folder)
    return False


def drop_what_no_one_reads(folder: Path) -> None:
    """A tested cell needs no checkpoints; its weights, predictions and curves stay."""
    shutil.rmtree(RunFolder(folder).checkpoints, ignore_errors=True)
    shutil.rmtree(folder / "tensorboard", ignore_errors=True)


def fail(out: Path, task: Task, error: Exception, store: Store) -> None:
    """Note that a task failed and why, without any path; nothing else of the study stops."""
    sentence = str(error) if isinstance(error, ScanlearnError) else f"{type(error).__name__}: {error}"
    for place in (out, store.path):
        for path in (place.absolute(), place.resolve()):
            sentence = sentence.replace(str(path), place.name)
    sentence = without_paths(sentence)
    trace = [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in traceback.extract_tb(error.__traceback__)]
    write_json(beside(out, task, FAILED), {"error": sentence, "trace": trace})
    warn(f"{task.name} failed: {sentence}")


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Hold the lock file ``path``; gives False where another process holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        try:
            mine = lock(file, path)
        except InUse:
            mine = False
        yield mine
