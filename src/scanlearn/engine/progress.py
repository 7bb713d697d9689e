"""What one sees of a running training: loss, images/s, ETA and the share of time spent waiting for data."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from scanlearn.console import progress, say, warn
from scanlearn.engine.recipe import Recipe
from scanlearn.engine.run_folder import MetricLog
from scanlearn.engine.stages import scans_in
from scanlearn.errors import ScanlearnError
from scanlearn.scans.store import Store


class TrainingProgress:
    """Collects losses on the device and speaks at every ``log_every`` steps; nothing here synchronises a GPU between."""

    def __init__(self, recipe: Recipe, steps: int, first: int, fabric: Fabric, log: MetricLog | None, store: Store):
        self._recipe, self._steps, self._fabric, self._log, self._store = recipe, steps, fabric, log, store
        self._first = first
        self._bar = progress() if log is not None else None
        self._said = 0.0
        self._flat = False  # whether the collapse of a decoder was said
        self._fresh()
        self._losses: list[Tensor] = []
        self._rows: list[tuple[int, Tensor]] = []

    def _fresh(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._images = 0
        self._waited = 0.0
        self._since = time.perf_counter()

    def __enter__(self) -> TrainingProgress:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task(self._recipe.name, total=self._steps, completed=self._first, info="")
        return self

    def __exit__(self, *_: Any) -> None:
        if self._bar is not None:
            self._bar.stop()

    def wait(self, batches: Iterator[dict[str, Any]]) -> dict[str, Any]:
        """The next batch; the time until it is there counts as data wait."""
        begun = time.perf_counter()
        batch = next(batches)
        self._waited += time.perf_counter() - begun
        return batch

    def pause(self, seconds: float) -> None:
        """Time that was not training (monitor, validation)."""
        self._since += seconds

    def add(self, batch: dict[str, Any], loss: Tensor, values: dict[str, Tensor]) -> None:
        """Remember one part of a step."""
        self._losses.append(loss)
        self._rows.append((int(batch["step"]), batch["row"]))
        self._images += len(batch["row"]) * self._fabric.world_size
        for name, value in {"loss": loss, **values}.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
            self._counts[name] = self._counts.get(name, 0) + 1

    def check_finite(self, step: int) -> None:
        """A loss that is not a number stops the run, with the step and the scans, before anything is saved."""
        if not self._losses:
            return
        bad = ~torch.isfinite(torch.stack(self._losses))
        if bool(bad.any()):
            first = int(bad.int().argmax())
            at, rows = self._rows[first]
            raise ScanlearnError(
                f"The loss is not finite at step {at // self._recipe.accumulate + 1}, on {self._told(rows.cpu().numpy())}; the "
                "last checkpoint is from before it: look at these scans, or lower --optimizer.lr."
            )
        self._losses.clear()
        self._rows.clear()

    def _told(self, rows: np.ndarray) -> str:
        """How many scans, and which: by pseudonym, or by row of a store that keeps names."""
        rows = np.unique(rows)  # a batch across two passes may hold a scan twice
        if self._store.info.get("identifiers") == "hashed":
            which = [str(scan) for scan in self._store.catalog.take(rows).column("scan_id")]
        else:
            which = [f"row {row}" for row in rows]
        shown = ", ".join(which[:8]) + (f" and {len(which) - 8} more" if len(which) > 8 else "")
        return f"{len(which)} scans ({shown})"

    def report(self, step: int, rate: float, stage: str = "") -> None:
        """One line in the log, the numbers in the bar; with the name of the stage where the recipe has stages."""
        spent = max(time.perf_counter() - self._since, 1e-9)
        means: Any = torch.stack([total.float() / self._counts[name] for name, total in self._sums.items()])
        means = self._fabric.all_reduce(means, reduce_op="mean")  # of all ranks: the global batch
        values = dict(zip(self._sums, means.tolist(), strict=True))
        speed, wait = self._images / spent, self._waited / spent
        self._fresh()
        if self._log is None or self._bar is None:
            return
        if values.get("restored_std", 1.0) < 0.005 and not self._flat:
            self._flat = True
            warn(
                "the restored images are almost constant: the decoder has collapsed; lower --optimizer.lr or start again."
            )
        extra = {"learning_rate": rate, "images_per_second": speed, "data_wait": wait}
        self._log.write(step, "train", {**values, **extra, **({"stage": stage} if stage else {})})
        what = f"{self._recipe.name}, {stage}" if stage else self._recipe.name
        info = f"loss {values['loss']:.4f} · {speed:,.0f} images/s · waiting for data {wait:.0%}"
        self._bar.update(self._task, description=what, completed=step, info=info)
        if not sys.stderr.isatty() and (time.monotonic() - self._said > 15 or step == self._steps):
            self._said = time.monotonic()
            left = scans_in(self._recipe.to_dict(), step, self._steps) / max(speed, 1e-9)
            say(f"{what}, step {step:,}/{self._steps:,} · {info} · ETA {left / 60:.1f} min")

    def show_validation(self, step: int, figure: float, best: int) -> None:
        """The figure in one line."""
        say(
            f"step {step:,}: validation {figure:.4f}" + (", the best so far" if best == step else f", best at {best:,}")
        )

    def show_monitor(self, step: int, values: dict[str, Any]) -> None:
        """The features in one line; a collapse in plain words."""
        numbers = " · ".join(f"{name} {value:.3f}" for name, value in values.items() if isinstance(value, float))
        say(f"step {step:,}: {numbers}")
        if "warning" in values:
            warn(str(values["warning"]))
