"""``study(plan, out)``: the question "does pre-training help on my data?" as one command that can be repeated."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from scanlearn.console import say, warn
from scanlearn.errors import Interrupted, ScanlearnError
from scanlearn.files import write_json
from scanlearn.scans.store import Store, open_store
from scanlearn.study.grid import Grid, build_grid
from scanlearn.study.measure import Estimate, measure, steps_that_fit
from scanlearn.study.plan import StudyPlan, load_plan
from scanlearn.study.work import PLAN, STEPS, claimed, failure_of, forget_failures, is_done, result_of, tasks_of, work
from scanlearn.weights.layouts import import_weights

ESTIMATE = "estimate.json"


def study(
    plan: StudyPlan | str | Path | dict[str, Any],
    out: str | Path,
    *,
    jobs: int = 1,
    slurm: dict[str, Any] | None = None,
    plan_only: bool = False,
) -> Path | None:
    """Run a study, or what is left of it, and write its report.

    Args:
        plan: a ``StudyPlan``, its YAML file, or its keys.
        out: folder of the study. The same plan goes on where it stopped; cells that failed are tried again. Methods,
            label counts and seeds may be added; nothing else may change.
        jobs: processes that work side by side on this machine, each with its share of the processor cores.
        slurm: submit every task as one element of a SLURM job array (submitit) with these settings, e.g.
            ``{"slurm_partition": "gpu", "timeout_min": 120, "gpus_per_node": 1}``.
        plan_only: print the grid, time, memory and disk from a short measurement, and stop.

    Returns:
        The report, OUT/report.html; None with ``plan_only``.
    """
    plan, out = plan if isinstance(plan, StudyPlan) else load_plan(plan), Path(out)
    store = open_store(plan.store)
    plan.store = str(Path(plan.store).absolute()) if "://" not in plan.store else plan.store
    bring_in(plan, out)
    grid = build_grid(plan, store)
    describe(plan, grid, store)
    if plan_only:
        estimate = measure(plan, grid, store)
        tell(estimate, steps_that_fit(plan, estimate, jobs), jobs, out)
        return None
    begin(plan, grid, store, out, jobs)
    retried = forget_failures(out)
    if retried:
        say(f"{retried} failed tasks are tried again.")
    if slurm is not None:
        submit(grid, out, slurm)
    elif jobs == 1:
        work(out)
    else:
        side_by_side(out, jobs)
    return finish(plan, grid, store, out)


def bring_in(plan: StudyPlan, out: Path) -> None:
    """Import the published files that methods start from, each once, into OUT/imported; the plan names them there."""
    for method in plan.methods.values():
        if method.layout is None:
            continue
        file = Path(str(method.weights))
        if not file.is_file():
            raise ScanlearnError(f"There is no file {file} of published weights: download it, or leave the method out.")
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()[:12]
        folder = out / "imported" / f"{file.stem}-{method.layout}-{digest}"
        if not (folder / "encoder.json").is_file():
            shutil.rmtree(folder, ignore_errors=True)
            import_weights(file, method.layout, folder)
        method.weights, method.layout = str(folder.absolute()), None


def describe(plan: StudyPlan, grid: Grid, store: Store) -> None:
    """One line on what will be computed."""
    counts = ", ".join(map(str, plan.labels))
    say(
        f"{plan.task} on {store.path.name}: {', '.join(grid.methods)}; {counts} labels; {plan.seeds} seeds: "
        f"{len(grid.pretrainings)} pre-trainings and {len(grid.cells)} fine-tunings."
    )


def begin(plan: StudyPlan, grid: Grid, store: Store, out: Path, jobs: int) -> None:
    """Make the folder, refuse another study in it, and settle the steps of the pre-trainings once and for all."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ScanlearnError(f"{out} cannot be written ({error.strerror}): choose another --out.") from error
    if (out / PLAN).is_file():
        refuse_other(load_plan(out / PLAN), plan, grid, out)
    elif any(entry.name != "imported" for entry in out.iterdir()):
        raise ScanlearnError(f"{out} holds other things than a study: choose another --out.")
    with claimed(out / ".begin.lock") as mine:
        if not mine:
            raise ScanlearnError(f"Another process is starting the study in {out}: try again in a minute.")
        timed = plan.budget is not None or plan.pretraining_minutes is not None
        new = [t.name for t in grid.pretrainings if result_of(out, t) is None]
        if timed and new and not (out / STEPS).is_file():
            estimate = measure(plan, grid, store)
            steps = steps_that_fit(plan, estimate, jobs)
            tell(estimate, steps, jobs, out)
            write_json(out / ESTIMATE, estimate.to_dict())
            write_json(out / STEPS, steps)
        plan.save(out / PLAN)


def refuse_other(before: StudyPlan, now: StudyPlan, grid: Grid, out: Path) -> None:
    """Old cells stay valid only where nothing that they depend on has changed; what has no result may change."""
    kept = {name for name in before.methods if any(out.glob(f"*/{name}-*/results.json"))}
    kept |= {t.method for t in grid.pretrainings if result_of(out, t)}
    fixed = ("task", "target", "classes", "store", "finetuning", "recipe", "encoder", "pretraining_steps")
    changed = [
        name
        for name in (*fixed, "pretraining_minutes", "pretraining_seeds")
        if getattr(before, name) != getattr(now, name)
    ]
    changed += [f"methods.{name}" for name in sorted(kept) if now.methods.get(name) not in (None, before.methods[name])]
    if changed:
        raise ScanlearnError(
            f"{out} holds a study with another {', '.join(changed)}: choose another --out, or give those as they were."
        )


def tell(estimate: Estimate, steps: dict[str, int], jobs: int, out: Path) -> None:
    """Print the cost of each part, the sum, and the room on the disk."""
    for name, cost in estimate.pretrainings.items():
        fitted = f", shortened to {steps[name]:,}" if steps.get(name, cost.steps) < cost.steps else ""
        each = f"{cost.seconds_per_step:.3g} s each, {cost.bytes / 2**20:.0f} MB"
        say(f"  pre-training {name}: {cost.steps:,} steps{fitted}, {each}")
    for name, cost in estimate.cells.items():
        say(f"  {cost.count} cells of {name}: {cost.seconds:.0f} s each, {cost.bytes / 2**20:.0f} MB")
    seconds = estimate.cell_seconds + sum(
        c.overhead + steps.get(name, c.steps) * c.seconds_per_step for name, c in estimate.pretrainings.items()
    )
    free = shutil.disk_usage(next(p for p in [out, *out.absolute().parents] if p.exists())).free
    say(
        f"In all about {seconds / 60 / jobs:.0f} minutes"
        + (f" with {jobs} jobs, if they do not slow each other down" if jobs > 1 else "")
        + f"; {estimate.peak_memory_bytes / 2**30:.1f} GB of memory for each job; {estimate.bytes / 2**30:.2f} GB of disk "
        f"({free / 2**30:.0f} GB free)."
    )


def side_by_side(out: Path, jobs: int) -> None:
    """Several processes on this machine; each takes the next task that nobody holds."""
    threads = max((os.cpu_count() or 1) // jobs, 1)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, "-m", "scanlearn.study.worker", str(out)]
    workers = [subprocess.Popen(command, env=environment) for _ in range(jobs)]
    try:
        codes = [worker.wait() for worker in workers]
    except BaseException:
        for worker in workers:
            worker.terminate()  # a training saves its state and stops
        for worker in workers:
            worker.wait()
        raise
    if any(codes):
        raise Interrupted(f"{sum(map(bool, codes))} of {jobs} jobs were stopped; the same command goes on from there.")


def submit(grid: Grid, out: Path, settings: dict[str, Any]) -> None:
    """Two job arrays, the pre-trainings and, after them, the cells; waits for their end."""
    try:
        import submitit
    except ImportError as error:
        raise ScanlearnError("SLURM needs submitit: pip install 'scanlearn[slurm]'.") from error
    settings = dict(settings)
    executor = submitit.AutoExecutor(folder=out / "slurm", cluster=settings.pop("cluster", None))
    executor.update_parameters(name="scanlearn", **settings)
    left = [task for task in tasks_of(grid) if not is_done(out, task)]
    pre = [task.name for task in left if task in grid.pretrainings]
    rest = [task.name for task in left if task not in grid.pretrainings]
    for names in filter(None, (pre, rest)):
        jobs = executor.map_array(work, [out.absolute()] * len(names), names)
        say(f"Submitted {len(jobs)} jobs, {jobs[0].job_id} and on.")
        for job in jobs:
            job.wait()


def report_again(out: Path) -> Path:
    """Write the page of a study anew, from what is there; nothing is computed."""
    plan = load_plan(out / PLAN)
    store = open_store(plan.store)
    return finish(plan, build_grid(plan, store), store, out)


def finish(plan: StudyPlan, grid: Grid, store: Store, out: Path) -> Path:
    """Statistics, tables and the page, from whatever is there."""
    from scanlearn.study.study_report import write_study

    failed = [(t.name, failure_of(out, t)) for t in tasks_of(grid) if failure_of(out, t)]
    missing = [cell.name for cell in grid.cells if result_of(out, cell) is None]
    if len(missing) == len(grid.cells):
        raise ScanlearnError(
            f"No cell of the study came to its end. The first error: {failed[0][1] if failed else '?'}"
        )
    if missing:
        warn(f"{len(missing)} of {len(grid.cells)} cells have no result; the tables say which.")
    return write_study(plan, grid, store, out)
