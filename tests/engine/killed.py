"""Train in a process of its own and die by SIGKILL: at a step, or in the middle of writing a checkpoint.

python killed.py METHOD STORE OUT RESUME WORKERS WHERE STEP [STRATEGY]
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import torch
from runs import RECIPES

from scanlearn.engine import checkpoint, pretrain
from scanlearn.engine.learner import Learner


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(where: str, step: int) -> None:
    """Die after the update of ``step``, or when its checkpoint is half-written."""
    if where == "step":
        update, count = Learner.after_update, iter(range(1, 10_000))

        def after_update(self: Learner) -> None:
            update(self)
            if next(count) == step:
                die()

        Learner.after_update = after_update  # type: ignore[method-assign]
    elif where == "checkpoint":

        def half_written(fabric: Any, folder: Path, at: int, state: dict[str, Any]) -> Path:
            if at >= step:
                temporary = checkpoint.checkpoint_path(folder, at).with_suffix(".tmp")
                fabric.save(temporary, {**state, "step": at})
                with temporary.open("r+b") as file:
                    file.truncate(temporary.stat().st_size // 2)
                die()
            return checkpoint.save_checkpoint(fabric, folder, at, state)

        from scanlearn.engine import train

        train.save_checkpoint = half_written  # type: ignore[assignment]


if __name__ == "__main__":
    method, store, out, resume, workers, where, step, *strategy = sys.argv[1:]
    torch.set_num_threads(1)
    arm(where, int(step))
    recipe, _ = RECIPES[method]
    options = {"strategy": strategy[0]} if strategy else {}
    pretrain.pretrain(store, recipe(), out, resume=resume == "yes", workers=int(workers), seed=3, **options)
