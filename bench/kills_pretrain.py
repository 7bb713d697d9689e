"""Kill a training at random moments until it is through, again and again: does it end as the one that nobody killed?

    python bench/kills_pretrain.py --kills 100

Each run is killed by SIGKILL (anywhere in time, in the middle of writing a checkpoint, of the export, of the log, before
pruning), resumed, killed again, and at last left to finish. Its weights, its optimiser and its export must be those of
the unbroken run bit for bit, and its log must tell each step once. Writes docs/results/kills_pretrain.json.
"""

# ruff: noqa: E402  (the trainer that can be killed lies with the tests)

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "engine"), str(ROOT / "tests")]

import torch
from killed import Trainer, random_death
from runs import RECIPES
from safetensors.torch import load_file

from scanlearn import __version__
from scanlearn.engine.checkpoint import checkpoints
from scanlearn.engine.run_folder import RunFolder

KILLS_OF_A_RUN = 4  # then it may finish


def end_of(out: Path) -> dict[str, Any]:
    """Everything in the last checkpoint, and the exported network, as one flat mapping."""
    state = torch.load(checkpoints(out / "checkpoints")[-1], weights_only=True)
    flat = {f"export.{name}": value for name, value in load_file(out / "encoder" / "model.safetensors").items()}
    waiting = [("", state)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, dict | list | tuple):
            items = value.items() if isinstance(value, dict) else enumerate(value)
            waiting += [(f"{path}/{key}", inner) for key, inner in items]
        else:
            flat[path] = value
    return flat


def differing(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """Names of what is not the same bit for bit."""
    names = sorted(first.keys() | second.keys())
    return [name for name in names if not _same(first.get(name), second.get(name))]


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    return type(a) is type(b) and a == b


def killed_run(
    train: Trainer, method: str, store: Path, out: Path, workers: int, dice: random.Random, seconds: float
) -> tuple[Counter[str], int]:
    """Run to the end through several kills: how often it died where, and how many runs it took."""
    died: Counter[str] = Counter()
    runs = 0
    while True:
        death = random_death(dice, seconds) if died.total() < KILLS_OF_A_RUN else {}
        status, said = train(method, store, out, resume=(out / "recipe.yaml").exists(), workers=workers, **death)
        runs += 1
        if status == -signal.SIGKILL:
            died[death["where"]] += 1
        elif status == 0:
            return died, runs
        else:
            raise SystemExit(f"{method} with {workers} workers ended with {status} at {death}:\n{said[-3000:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "kills_pretrain.json")
    options = parser.parse_args()
    dice, begun = random.Random(options.seed), time.monotonic()
    died: Counter[str] = Counter()
    of: Counter[str] = Counter()
    finished = same = told_once = 0
    with tempfile.TemporaryDirectory() as folder, Trainer() as train:
        ends: dict[str, tuple[Path, dict[str, Any], float]] = {}
        for method in ("moco", "genesis"):
            place = Path(folder) / method
            place.mkdir()
            RECIPES[method][1](place)
            train(method, place / "store", place / "first")  # the first run compiles and caches
            before = time.monotonic()
            train(method, place / "store", place / "unbroken")
            ends[method] = place, end_of(place / "unbroken"), time.monotonic() - before
        while died.total() < options.kills:
            method = ("moco", "genesis")[finished % 2]
            workers = 2 if finished % 6 >= 4 else 0
            place, expected, seconds = ends[method]
            out = place / f"run{finished}"
            here, _ = killed_run(train, method, place / "store", out, workers, dice, seconds * (3 if workers else 1))
            died += here
            of[f"{method}, {workers} workers"] += here.total()
            finished += 1
            wrong = differing(expected, end_of(out))
            steps = [line["step"] for line in RunFolder(out).read_metrics("train")]
            same += not wrong
            told_once += steps == list(range(2, 13, 2))
            said = f"{died.total()} kills, {finished} runs" + (f", DIFFERS: {wrong[:5]}" if wrong else "")
            print(said, file=sys.stderr, flush=True)
    facts = {
        "scanlearn": __version__,
        "torch": torch.__version__,
        "seed": options.seed,
        "kills": died.total(),
        "killed": dict(sorted(died.items())),
        "kills_of": dict(sorted(of.items())),
        "runs": finished,
        "runs_equal_bit_for_bit": same,
        "logs_with_each_step_once": told_once,
        "minutes": round((time.monotonic() - begun) / 60, 1),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(facts, indent=1) + "\n")
    print(json.dumps(facts, indent=1))
    if not finished == same == told_once:
        raise SystemExit("a killed run differs from the unbroken one")


if __name__ == "__main__":
    main()
