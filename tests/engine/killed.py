"""Train in processes that die by SIGKILL: at a step, in the middle of writing something, or after a time.

``Trainer`` starts one process that imports everything and forks for each run, so that a run costs what it computes.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


class Trainer:
    """Runs of small recipes in processes of their own: ``with Trainer() as train: train("moco", store, out, ...)``."""

    def __enter__(self) -> Trainer:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "killed.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"},
        )
        return self

    def __exit__(self, *_: Any) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def __call__(
        self,
        method: str,
        store: Path,
        out: Path,
        *,
        resume: bool = False,
        workers: int = 0,
        where: str = "nowhere",
        step: float = 0,
        strategy: str = "auto",
    ) -> tuple[int, str]:
        """(exit status, minus the signal it died of, what it said); ``where`` and ``step`` as ``arm`` takes them."""
        log = out.with_name(f"{out.name}.log")
        order = {"method": method, "store": str(store), "out": str(out), "resume": resume, "workers": workers}
        order |= {"where": where, "step": step, "strategy": strategy, "log": str(log)}
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline()), log.read_text()


def serve() -> None:
    """Fork once for each order on stdin, and say how the child ended."""
    import torch
    import torch.utils.tensorboard

    import scanlearn.engine.pretrain  # noqa: F401  (imported before the first fork, while there is one thread)

    torch.set_num_threads(1)
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            with Path(order["log"]).open("w") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            os._exit(run(order))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def run(order: dict[str, Any]) -> int:
    """Train as ordered; 0, 2 after an error in one sentence, 1 after any other."""
    import traceback

    from runs import MASKS_SEEN, RECIPES, train_validated

    from scanlearn.engine.pretrain import pretrain
    from scanlearn.errors import ScanlearnError

    arm(order["where"], order["step"])
    how = {name: order[name] for name in ("resume", "workers", "strategy")}
    try:
        if order["method"] == "validated":
            train_validated(order["store"], order["out"], seed=3, **how)
        else:
            how |= {"labels": MASKS_SEEN} if order["method"] == "masks" else {}
            pretrain(order["store"], RECIPES[order["method"]][0](), order["out"], seed=3, **how)
    except ScanlearnError as error:
        print(error, file=sys.stderr, flush=True)
        return 2
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stderr.flush()
    return 0


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(where: str, step: float) -> None:
    """Be killed after the update of ``step``; when its checkpoint is half-written; before its pruning; between the two
    files of the export; before the log is put in its place; or ``step`` seconds from now."""
    from scanlearn.engine import checkpoint
    from scanlearn.engine.learner import Learner

    if where == "time":
        threading.Timer(step, die).start()
    elif where == "step":
        update, count = Learner.after_update, iter(range(1, 10_000))

        def after_update(self: Learner) -> None:
            update(self)
            if next(count) == step:
                die()

        Learner.after_update = after_update  # type: ignore[method-assign]
    elif where == "checkpoint":
        save = checkpoint.CheckedIO.save_checkpoint

        def half_written(self: Any, checkpoint: dict[str, Any], path: Path, storage_options: Any = None) -> None:
            save(self, checkpoint, path)
            if checkpoint["step"] >= step:
                os.truncate(path, path.stat().st_size // 2)
                die()

        checkpoint.CheckedIO.save_checkpoint = half_written  # type: ignore[method-assign]
    elif where in ("prune", "export", "log"):
        last = {"prune": f"step_{step:09.0f}.ckpt", "export": "model.safetensors", "log": "metrics.jsonl"}[where]
        replace, times = Path.replace, iter(range(10_000))

        def replaced(self: Path, target: Any) -> Path:
            if Path(target).name != last:
                return replace(self, target)
            time = next(times)
            if where == "log":
                die()
            done = replace(self, target)
            if where == "prune" or time == step:
                die()
            return done

        Path.replace = replaced  # type: ignore[method-assign]


def random_death(generator: random.Random, seconds: float) -> dict[str, Any]:
    """A moment to die: anywhere in time, or in the middle of writing something."""
    where = generator.choice(["time", "time", "time", "step", "checkpoint", "prune", "export", "log"])
    if where == "time":
        return {"where": where, "step": generator.uniform(0, seconds)}
    step = {"step": generator.randint(1, 12), "checkpoint": 3 * generator.randint(1, 4), "prune": 3, "log": 0}
    return {"where": where, "step": step.get(where, generator.randint(0, 1))}


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    if len(sys.argv) > 1:  # one rank of several, as torchrun starts them: METHOD STORE OUT STRATEGY
        names = ("method", "store", "out", "strategy")
        order = dict(zip(names, sys.argv[1:], strict=True))
        sys.exit(run({**order, "where": "nowhere", "step": 0, "resume": False, "workers": 0}))
    serve()
