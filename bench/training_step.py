"""A whole pre-training step (reading, views, losses, optimiser, moving average, log) against the bare forward and
backward passes of the same networks on the same batches. Losses are compared first.

    python bench/training_step.py [--steps 12] [--rounds 3]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scanlearn.console import console
from scanlearn.engine.device import auto_precision
from scanlearn.engine.learner import Learner, build_learner, weights_at
from scanlearn.engine.recipe import Recipe, load_recipe
from scanlearn.engine.run_folder import RunFolder
from scanlearn.engine.train import Training, Views, train
from scanlearn.scans.loader import Loader
from scanlearn.scans.prepare import prepare
from scanlearn.scans.store import Store

CASES = ("moco_v2_small", "models_genesis_3d_small")
LOG_EVERY = 4  # steps; the first line, which warms up, is not counted


def random_store(folder: Path, spatial_dims: int) -> Store:
    """Smooth random scans: speed does not depend on what they show."""
    rng = np.random.default_rng(0)
    shape = (512, 96, 96) if spatial_dims == 2 else (32, 48, 64, 48)
    file = folder / "scans.npz"
    np.savez(file, image=rng.integers(0, 256, shape, dtype=np.uint8), patient=np.arange(shape[0]))
    return prepare(file, folder / "store", workers=1)


def batches_of(recipe: Recipe, store: Store, rows: np.ndarray, steps: int) -> list[tuple[Any, Any]]:
    """The views and batches that the engine makes for these steps."""
    views = Views(recipe, store, 0, torch.device("cpu"), layout_of(recipe))
    size = tuple(recipe.size) if recipe.size else None
    loader = Loader(store, rows, batch_size=recipe.batch_size, size=size, seed=0, start=0, stop=steps)
    return [(views(batch), batch) for batch in loader]


def layout_of(recipe: Recipe) -> torch.memory_format:
    return torch.channels_last if recipe.spatial_dims == 2 else torch.channels_last_3d


def bare_pass(learner: Learner, views: Any) -> None:
    """Forward and backward of every network that the method has, and nothing else."""
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=auto_precision() == "bf16-mixed"):
        if "momentum_contrast" in learner.objectives:
            objective: Any = learner.objectives["momentum_contrast"]
            with torch.no_grad():
                objective.key_projector(objective.key_encoder(views["key"])[-1].flatten(2).mean(2))
            output = objective.projector(learner.network.pooled(views["query"]))
        else:
            output = learner.network.restored(views["distorted"])
        loss = output.float().square().mean()
    loss.backward()


def engine_seconds(recipe: Recipe, store: Store, rows: np.ndarray, folder: Path) -> tuple[float, float]:
    """(median seconds of a step after warming up, loss of the first log line) of the engine's own loop."""
    with contextlib.redirect_stderr(io.StringIO()):
        train(recipe, store, Training(rows), folder)
    lines = RunFolder(folder).read_metrics("train")
    speed = statistics.median(line["images_per_second"] for line in lines[1:] or lines)
    return recipe.batch_size / speed, lines[0]["loss"]


def compare(name: str, steps: int, rounds: int) -> None:
    """Print one line: both times and their ratio."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        settings = {"steps": steps, "log_every": LOG_EVERY, "checkpoint_every": 10_000, "monitor.every": -1}
        recipe = load_recipe(name, settings)
        store = random_store(folder, recipe.spatial_dims)
        rows = np.arange(len(store))
        ready = batches_of(recipe, store, rows, 4)
        whole, bare = [], []
        for number in range(rounds):
            learner = build_learner(recipe, 0, 1).to(memory_format=layout_of(recipe))
            loss = first_loss(learner, recipe, ready)
            _, engine_loss = engine_seconds(replace(recipe, steps=1), store, rows, folder / f"first{number}")
            seconds, _ = engine_seconds(recipe, store, rows, folder / f"run{number}")
            if abs(engine_loss - loss) > 0.002 * abs(loss):
                raise SystemExit(
                    f"{name}: the engine's loss {engine_loss} is not the {loss} of the same batches by hand"
                )
            whole.append(seconds)
            bare.append(bare_seconds(learner, ready, steps))
        ratio = statistics.median(w / b for w, b in zip(whole, bare, strict=True))
        print(
            f"{name:26} whole step {statistics.median(whole) * 1e3:7.1f} ms   bare forward + backward "
            f"{statistics.median(bare) * 1e3:7.1f} ms   ratio {ratio:.2f}   (loss {loss:.4f} both ways)"
        )


def first_loss(learner: Learner, recipe: Recipe, ready: list[tuple[Any, Any]]) -> float:
    """The loss of the first step by hand, on the same views."""
    views, batch = ready[0]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=auto_precision() == "bf16-mixed"):
        loss, _ = learner(views, batch, weights_at(recipe, 0))
    return float(loss.detach())


def bare_seconds(learner: Learner, ready: list[tuple[Any, Any]], steps: int) -> float:
    """Median seconds of one bare pass."""
    times = []
    for step in range(steps):
        begun = time.perf_counter()
        bare_pass(learner, ready[step % len(ready)][0])
        times.append(time.perf_counter() - begun)
    return statistics.median(times[2:])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    console.quiet = True
    print(f"torch {torch.__version__}, {torch.get_num_threads()} thread(s), {auto_precision()}")
    for method in CASES:
        compare(method, options.steps, options.rounds)
