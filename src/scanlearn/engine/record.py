"""What a run keeps of its data: which rows of which store, whose they are, and the digests of their files."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from scanlearn.catalog.splits import save_splits
from scanlearn.engine.run_folder import RunFolder
from scanlearn.scans.store import Store


def write_record(run: RunFolder, store: Store, parts: Mapping[str, np.ndarray], seed: int) -> None:
    """Write who is in which part of the run."""
    blank: list[list[str]] = [[]] * len(store.catalog)  # a run tells nobody where the files lie or what they are called
    store.catalog.with_column("paths", blank).with_column("mask_path", [""] * len(blank)).save(run.catalog)
    save_splits(run.splits, store.catalog, parts, seed=seed, how="parts of this run")
