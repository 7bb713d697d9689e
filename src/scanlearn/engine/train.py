"""The training loop: one for pre-training and for fine-tuning, on one device or many, from the first step or resumed."""

from __future__ import annotations

import math
import time
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from scanlearn.console import say, warn
from scanlearn.engine.balance import measures
from scanlearn.engine.batches import TIMEOUT, Batches, Unreadable
from scanlearn.engine.checkpoint import checkpoints, load_latest, save_checkpoint
from scanlearn.engine.device import per_rank, reshard, start_fabric, to_memory_format, unsharded
from scanlearn.engine.leaks import Checked, keep_apart
from scanlearn.engine.learner import Learner, build_learner, usable
from scanlearn.engine.monitor import Monitor
from scanlearn.engine.opponents import clip_gradients
from scanlearn.engine.optim import optimizer_of, set_learning_rate
from scanlearn.engine.progress import TrainingProgress
from scanlearn.engine.recipe import Recipe
from scanlearn.engine.record import write_record
from scanlearn.engine.resume import facts_of, refuse_changes, refuse_lost_weights, resumable
from scanlearn.engine.run_folder import MetricLog, RunFolder
from scanlearn.engine.schedule import factor
from scanlearn.engine.stages import Phase, judged_by, phase_at, phases, settled
from scanlearn.engine.stop import StopSignal
from scanlearn.engine.stopping import Stopping, Validate, examine, refuse_no_figure
from scanlearn.errors import ScanlearnError
from scanlearn.files import WriteError, write_json
from scanlearn.keys import key_of
from scanlearn.networks.network import Network
from scanlearn.randomness import Draws
from scanlearn.scans.episodes import EpisodeWalk
from scanlearn.scans.intensity import to_unit
from scanlearn.scans.loader import Loader
from scanlearn.scans.sampling import Shares, shares_of
from scanlearn.scans.store import Store
from scanlearn.scans.words import Words, copy_words
from scanlearn.views.graph import ViewGraph, is_image
from scanlearn.weights.encoder import initialise, save_network, terms_of, verify_export


@dataclass
class Training:
    """What a run trains on: rows of the store, with labels or masks where the objectives want them."""

    rows: np.ndarray
    labels: np.ndarray | None = None  # indexed by store row
    boxes: np.ndarray | None = None  # likewise, see ``Loader``
    masks: bool = False
    labelled: np.ndarray | None = None  # which scans' masks may be seen, by store row; None: all
    shares: Shares | None = None  # of groups of ``rows``, where the recipe's sampling says none
    words: Words | None = None  # ``rows`` are then those of its training crops, one for each
    episodes: EpisodeWalk | None = None  # over ``rows``; batches are then its episodes
    parts: dict[str, np.ndarray] = field(default_factory=dict)  # all parts in play, checked to share no patient
    notes: dict[str, Any] = field(default_factory=dict)  # for encoder.json and the report
    checked: Checked = field(default_factory=Checked)  # what was looked for among earlier runs, for the record


@dataclass
class Result:
    """What a run leaves in memory."""

    network: Network
    learner: Learner
    steps: int
    stopped: bool  # by a signal, before the last step
    stopping: dict[str, Any] | None = None  # where validation ended the run and why, which weights these are


def train(
    recipe: Recipe,
    store: Store,
    training: Training,
    out: Path,
    *,
    seed: int = 0,
    init: Path | str | None = None,
    resume: bool = False,
    workers: int = 0,
    strategy: str = "auto",
    timeout: float = TIMEOUT,
    network: Network | None = None,
    validate: Validate | None = None,
) -> Result:
    """Train ``recipe`` on ``training`` and write the run folder ``out``.

    Args:
        recipe: views, network, objectives, schedule.
        store: a prepared data set.
        training: the rows to train on.
        out: the run folder; refused when it holds a run, unless ``resume``.
        seed: of the weights and of everything that is drawn.
        init: weights to start from (a run, an ``encoder`` folder, a .safetensors).
        resume: go on from the newest checkpoint, bit for bit; refuses changed settings.
        workers: reading processes; 0 reads in a thread beside the training.
        strategy: auto | ddp | fsdp.
        timeout: seconds without a batch after which reading counts as hung.
        network: an already built network to train instead of the recipe's description.
        validate: where the recipe asks for validations, the figure of a learner, lower is better. It is called without
            gradients in evaluation mode, on the first rank alone: its buffers are those that are exported.

    Raises:
        ScanlearnError: overlap between parts, a folder in use, settings that do not fit, a non-finite loss, a scan
            that cannot be read any more, a full disk. What was done until then is kept, and the sentence says how to
            go on.
    """
    refuse_no_figure(recipe, validate, strategy)
    training.checked.add(keep_apart(store, training.parts))
    fabric = start_fabric(recipe.precision, strategy, unused_parameters(recipe))
    run = RunFolder(out)
    if fabric.is_global_zero:
        run.create(resume)
    try:
        return _train(recipe, store, training, run, fabric, seed, init, resume, workers, timeout, network, validate)
    finally:
        run.release()  # also where an error lives on in a notebook


def _train(
    recipe: Recipe,
    store: Store,
    training: Training,
    run: RunFolder,
    fabric: Fabric,
    seed: int,
    init: Path | str | None,
    resume: bool,
    workers: int,
    timeout: float,
    network: Network | None,
    validate: Validate | None,
) -> Result:
    # ---------------------------------------------------------------- the same run as before?
    rows, shares = shares_of(store.catalog, training.rows, recipe.sampling)
    training = replace(training, rows=rows)
    steps = total_steps(recipe, len(rows))
    if recipe.stages:
        recipe = replace(recipe, stages=settled(recipe, len(rows)), steps=steps)
    course = phases(recipe, steps)
    facts = facts_of(store, training.rows, fabric, seed, init, training.labelled)
    begun = resume and bool(checkpoints(run.checkpoints))  # killed before its first checkpoint, a run begins again
    if resume and fabric.is_global_zero:
        refuse_changes(run, recipe, facts)
    if resume and not begun:
        refuse_lost_weights(run, init)
    fabric.barrier()

    # ---------------------------------------------------------------- network, objectives, optimiser
    learner = build_learner(recipe, seed, fabric.world_size, network, fabric.device)
    if init is not None and not begun:
        account = initialise(learner.network, init, recipe.network.transfer)
        if fabric.is_global_zero:
            say(str(account))
        for objective in learner.objectives.values():
            objective.start_from(learner.network)  # type: ignore[operator]
    layout = to_memory_format(learner, recipe.memory_format, recipe.spatial_dims, fabric)
    make_views = Views(recipe, store, seed, fabric.device, layout)
    notes = {**training.notes, "recipe": recipe.name, "seed": seed, "input_size": list(make_views.input_size)}
    weights_from = run.encoder if begun else init
    if weights_from is not None:
        notes |= terms_of(weights_from)
    if fabric.is_global_zero and not begun:
        save_network(learner.network, run.encoder, step=0, finished=False, **notes)
        verify_export(run.encoder, learner.network)  # fail in the first second, not after a week
    for objective in learner.objectives.values():
        objective.start(len(training.rows), recipe.batch_size)  # type: ignore[operator]
    wrapped = fabric.setup_module(learner)
    whole = optimizer_of(learner, learner.network.encoder, recipe.optimizer, learner.apart())
    optimizer: Any = fabric.setup_optimizers(whole)

    # ---------------------------------------------------------------- where to start
    stopping = Stopping(recipe, learner, passes(training, recipe.batch_size))
    state = {"learner": wrapped, "optimizer": optimizer, "step": 0} | ({"stopping": stopping} if stopping.every else {})
    first = load_latest(fabric, run.checkpoints, state) if begun else 0
    if resume and fabric.is_global_zero:
        say(f"Resuming {run.path} at step {first:,} of {steps:,}.")

    # ---------------------------------------------------------------- data
    parts = recipe.accumulate
    for phase in course:
        per_rank(phase.batch_size, parts, fabric.world_size)

    def loader_at(batch: int) -> Loader:
        return Loader(
            store,
            training.rows,
            batch_size=[(phase.first * parts, phase.batch_size // parts) for phase in course],
            size=tuple(recipe.size) if recipe.size else None,
            seed=seed,
            start=batch,
            stop=steps * parts,
            rank=fabric.global_rank,
            world_size=fabric.world_size,
            workers=workers,
            masks=training.masks,
            labelled=training.labelled,
            foreground=recipe.foreground,
            labels=training.labels,
            boxes=training.boxes,
            patches=training.words.patches() if training.words else None,
            shares=shares or training.shares,
            episodes=training.episodes,
        )

    # ---------------------------------------------------------------- the loop
    every_check = max(recipe.checkpoint_every or math.ceil(steps / 10), 1)
    every_look = recipe.monitor.every or math.ceil(steps / 10)
    monitor: Monitor | None = None
    step = first
    with ExitStack() as ending:
        ending.enter_context(resumable(run, state))
        batches = ending.enter_context(closing(Batches(loader_at, store, first * parts, timeout)))
        if fabric.is_global_zero and not resume:
            write_facts(run, recipe, store, training, facts)  # from here on the folder holds a run
        log = ending.enter_context(closing(MetricLog(run, first))) if fabric.is_global_zero else None
        progress = ending.enter_context(TrainingProgress(recipe, steps, first, fabric, log, store))
        stop = ending.enter_context(StopSignal(fabric))
        wrapped.train()
        for step in range(first + 1, 0 if stopping.over else steps + 1):
            phase = phase_at(course, step - 1)
            if phase.handed_over and step - 1 == phase.first:
                hand_over(phase, learner, optimizer, stopping, seed)
                keep_stage(run, learner, fabric, course.index(phase), notes)
            weights, learner.judged_by = phase.weights, judged_by(course, phase)
            rate = stopping.rate(rate_at(recipe, phase, step - 1, passes(training, phase.batch_size)))
            set_learning_rate(optimizer, rate, phase.lr)
            due = measures(recipe, step, steps, weights, begins=step - 1 == phase.first)
            torch.manual_seed(seed * 1_000_003 + step)  # whatever draws from the global generator (dropout)
            optimizer.zero_grad()
            for part in range(parts):
                try:
                    batch = progress.wait(batches)
                except Unreadable as error:
                    raise unreadable(error, fabric, run, step, part, state, progress) from error
                views = make_views(batch)
                with fabric.no_backward_sync(wrapped, enabled=part < parts - 1):
                    loss, values = wrapped(views, batch, weights, measure=due and part == 0)
                    fabric.backward(loss / parts)
                progress.add(batch, loss.detach(), values)
            if recipe.clip_norm:
                clip_gradients(fabric, optimizer, recipe.clip_norm)
            optimizer.step()
            learner.after_update()
            if validate is not None and stopping.due(step, phase.over):
                progress.check_finite(step)
                examine(stopping, validate, learner, fabric, log, progress, step)
            ending_now = step == steps or stop.asked(step) or stopping.over
            if step % recipe.log_every == 0 or ending_now or step % every_check == 0 or fabric.device.type == "cpu":
                progress.check_finite(step)  # before anything is saved
            if step % recipe.log_every == 0 or ending_now:
                progress.report(step, rate, phase.name)
            if recipe.monitor.every >= 0 and (step % every_look == 0 or step == 1 or step == steps):
                if monitor is None:
                    monitor = Monitor(
                        store, np.unique(training.rows), recipe.monitor.scans, seed, make_views.input_size
                    )
                look(monitor, wrapped, fabric, log, progress, step, make_views.pair(views))
            if step % every_check == 0 or ending_now:
                if log is not None:
                    log.sync()  # no checkpoint is younger than the lines that lead to it
                save_checkpoint(fabric, run.checkpoints, step, state)
            if ending_now:
                break

        # ---------------------------------------------------------------- what stays
        finished = step >= steps or stopping.over
        if finished:
            stopping.restore()
        exported = unsharded(learner.network)
        if fabric.is_global_zero:
            save_network(exported, run.encoder, step=step, finished=finished, **notes)
    fabric.barrier()
    if not finished and fabric.is_global_zero:
        warn(f"stopped by a signal at step {step:,}; the state is saved, go on with --resume.")
    return Result(exported, learner, step, not finished, stopping.told(step))


def write_facts(run: RunFolder, recipe: Recipe, store: Store, training: Training, facts: dict[str, Any]) -> None:
    """The record of the data, environment.json and, last, recipe.yaml, which makes the folder that of a run."""
    try:
        write_record(
            run, store, training.parts, facts["seed"], asdict(training.checked), training.notes.get("masks", 0)
        )
        if training.words is not None:
            copy_words(training.words, run.words)
    except OSError as error:
        raise WriteError("The catalogue of the run", run.path, error) from error
    write_json(run.environment, facts)
    recipe.save(run.recipe)


def unreadable(
    error: Unreadable, fabric: Fabric, run: RunFolder, step: int, part: int, state: Any, progress: TrainingProgress
) -> ScanlearnError:
    """Save what is done, where that is whole, and say what is wrong and what is kept."""
    # Parts of a batch move batch-norm statistics and queues before the step is made, and other ranks are further on.
    if part == 0 and fabric.world_size == 1 and step > 1:
        progress.check_finite(step - 1)
        save_checkpoint(fabric, run.checkpoints, step - 1, state)
    kept = checkpoints(run.checkpoints)
    saved = f"the state after step {int(kept[-1].stem[5:]):,} is saved" if kept else "no state was saved yet"
    return ScanlearnError(
        f"Reading stopped at step {step:,}, {error}; {saved}: bring the data back and go on with --resume."
    )


def hand_over(phase: Phase, learner: Learner, optimizer: Any, stopping: Stopping, seed: int) -> None:
    """Begin a training from the weights of the one before it in the same run (spec_dira §1.6).

    The learner goes on whole, with key networks, queues and their pointers; optimiser, best validation and opponents
    begin anew, and so does the schedule. It happens before the first step, so a run resumed here does the same.
    """
    if phase.start == "best":
        stopping.restore()
    stopping.begin()
    optimizer.state.clear()
    for number, objective in enumerate(learner.objectives.values()):
        objective.begin(key_of(seed, "stage", phase.first, number))  # type: ignore[operator]


def keep_stage(run: RunFolder, learner: Learner, fabric: Fabric, number: int, notes: dict[str, Any]) -> None:
    """Export the network that a training hands over, by the number of the stage that it ended with, for the report."""
    exported = unsharded(learner.network)
    if fabric.is_global_zero:
        save_network(exported, run.stages / str(number), **notes)


def passes(training: Training, batch_size: int) -> int:
    """Steps of one pass over the training scans."""
    return max(len(training.rows) // batch_size, 1)


def rate_at(recipe: Recipe, phase: Phase, step: int, steps_per_epoch: int) -> float:
    """The learning rate at a step, counted from 0: the schedule runs from where the phase's training began."""
    return phase.lr * factor(recipe.schedule, step - phase.begun, phase.over - phase.begun, steps_per_epoch)


def total_steps(recipe: Recipe, scans: int) -> int:
    """Optimiser steps of the run; ``epochs`` counts passes over the training scans."""
    if scans == 0:
        raise ScanlearnError("There is not one scan to train on: look at the store's splits and labels.")
    if recipe.stages:
        return sum(stage.steps or 0 for stage in settled(recipe, scans))
    if recipe.epochs is not None:
        return max(recipe.epochs * scans // recipe.batch_size, 1)
    return recipe.steps


def unused_parameters(recipe: Recipe) -> bool:
    """Whether an objective has no weight at some step, so that its head or the decoder gets no gradient there."""
    return any(0 in weights.values() for weights in recipe.stage_weights())


class Views:
    """From a raw batch to named views on the device: intensities to [0, 1], then the recipe's view graph."""

    def __init__(self, recipe: Recipe, store: Store, seed: int, device: torch.device, layout: torch.memory_format):
        self.seed, self.device, self.layout = seed, device, layout
        # What the network will see is known before the first step: the views of one blank scan tell.
        with usable("views"):
            self.graph = ViewGraph(recipe.views)
            blank = torch.zeros((1, store.channels, *(recipe.size or store.shape(0))))
            made = self.graph(blank, Draws([0]))
            self.input_size = tuple(next(view for name, view in made.items() if is_image(name)).shape[2:])

    def __call__(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Moves the batch to the device in place and returns the views, (N, C, *spatial) each."""
        for name, value in batch.items():
            if isinstance(value, Tensor):
                batch[name] = value.to(self.device, non_blocking=True)
        image = to_unit(batch["image"], batch["low"], batch["high"])
        draws = Draws.for_step(self.seed, batch["step"], batch["position"], self.device)
        mask = batch["mask"][:, None] if "mask" in batch else None
        views = self.graph(image, draws, mask, batch.get("boxes"))
        return {k: v.contiguous(memory_format=self.layout) if is_image(k) else v for k, v in views.items()}

    def pair(self, views: dict[str, Tensor]) -> tuple[Tensor, Tensor] | None:
        """Two views of the same scans, for alignment and uniformity."""
        names = [name for name in views if is_image(name)]
        return (views[names[0]], views[names[1]]) if len(names) > 1 else None


def look(
    monitor: Monitor,
    wrapped: Any,
    fabric: Fabric,
    log: MetricLog | None,
    progress: TrainingProgress,
    step: int,
    pair: Any,
) -> None:
    """Measure the features in evaluation mode; changes no queue, moving average or buffer."""
    begun = time.perf_counter()
    wrapped.eval()
    with torch.no_grad():
        values = monitor.measure(lambda images: wrapped(embed=images), fabric.device, pair)
    wrapped.train()
    reshard(wrapped)
    progress.pause(time.perf_counter() - begun)
    if log is not None:
        log.write(step, "monitor", values)
        progress.show_monitor(step, values)
