"""What makes a run go on as the run it was: its facts on disk, what must not change, what to say when a disk is full."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from lightning_fabric import Fabric

from scanlearn.catalog.table import Catalog
from scanlearn.engine.checkpoint import checkpoints, state_bytes
from scanlearn.engine.device import environment
from scanlearn.engine.recipe import Recipe, parse_recipe
from scanlearn.engine.recipe_file import read_yaml
from scanlearn.engine.run_folder import RunFolder, run_of
from scanlearn.errors import ScanlearnError
from scanlearn.files import WriteError, size
from scanlearn.scans.store import Store


def facts_of(
    store: Store,
    rows: np.ndarray,
    fabric: Fabric,
    seed: int,
    init: Path | str | None,
    labelled: np.ndarray | None = None,
) -> dict[str, Any]:
    """What environment.json says of a run on these rows of a store, of which some masks are seen (all: None)."""
    catalog: Catalog = store.catalog
    return {
        **environment(fabric),
        "seed": seed,
        "store": store.info["key"],
        "scans": len(rows),
        "patients": catalog.count_patients(rows),
        "init": run_of(init).name if init is not None else "none",
        **({} if labelled is None else {"labelled": int(labelled.sum())}),
    }


def refuse_changes(run: RunFolder, recipe: Recipe, now: dict[str, Any]) -> None:
    """A resumed run must be the run that was begun: same settings, data and seed."""
    before = run.read_environment()
    # Parsed, so that a run from before there was some setting has its default.
    saved = parse_recipe(read_yaml(run.recipe, f"{run.path.name}/{run.recipe.name}")).to_dict()
    changed = [key for key, value in recipe.to_dict().items() if saved.get(key) != value]
    changed += [key for key in ("seed", "store", "scans", "labelled", "precision") if before.get(key) != now.get(key)]
    if changed:
        raise ScanlearnError(
            f"--resume continues a run unchanged, but {', '.join(changed)} differ(s) from the run folder: "
            "start a new run with --init instead."
        )


def refuse_lost_weights(run: RunFolder, init: Path | str | None) -> None:
    """A run that was begun from weights and has no checkpoint yet cannot go on without them."""
    before = run.read_environment().get("init", "none")
    if before != "none" and init is None:
        raise ScanlearnError(
            f"{run.path} was begun from {before} and stopped before its first checkpoint: delete the folder and start "
            "the run again with --init."
        )


@contextmanager
def resumable(run: RunFolder, state: dict[str, Any] | None = None) -> Iterator[None]:
    """A disk that takes no more ends the run with one sentence: what is kept, how much is needed, how to go on."""
    try:
        yield
    except WriteError as error:
        if not run.recipe.exists():  # the run had not begun: the same command starts it
            raise
        kept = checkpoints(run.checkpoints)
        whole = f"the checkpoint of step {int(kept[-1].stem[5:])} is whole" if kept else "it had saved no step yet"
        room = f"room for {size(2 * state_bytes(state))}" if state else "room"
        raise error.advising(f"{whole}: make {room} and go on with the same command and --resume") from error
