"""One feature vector for each scan of a store, in a file that other tools read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scanlearn.errors import ScanlearnError
from scanlearn.files import make_folder, replacing
from scanlearn.scans.store import Store, open_store
from scanlearn.tasks.probe import features_of


def embed(run: str | Path, store: str | Path | Store, out: str | Path, *, batch_size: int = 64) -> np.ndarray:
    """Write the pooled features of every scan of a store to ``out`` and return them, float32 (n, num_features).

    ``.parquet`` has the columns ``scan_id``, ``split`` and ``features`` (lists of one length), ``.npz`` has arrays of
    these names; rows are in the order of the store. A 2D scan is seen whole, a 3D scan is the mean over a fixed grid of
    patches, each of the size that the network was trained on.

    Args:
        run: a run folder, its encoder folder or a .safetensors file.
        store: a prepared data set.
        batch_size: images or patches in one forward pass.
    """
    out = Path(out)
    if out.suffix not in (".parquet", ".npz"):
        raise ScanlearnError(f"Features are written as .parquet or .npz, not {out.name!r}: choose another ending.")
    store = store if isinstance(store, Store) else open_store(store)
    features = features_of(run, store, np.arange(len(store)), batch_size)
    split = np.full(len(store), "", dtype="<U5")
    for part, rows in store.splits.items():
        split[rows] = part
    write_features(out, np.asarray(store.catalog.column("scan_id"), dtype=str), split, features)
    return features


def write_features(out: Path, scan_ids: np.ndarray, split: np.ndarray, features: np.ndarray) -> None:
    """Write one row for each scan to ``out`` (.parquet or .npz); a reader sees the whole file or none."""
    make_folder(out.parent)
    with replacing(out, features.nbytes) as temporary:
        if out.suffix == ".npz":
            np.savez(temporary, scan_id=scan_ids, split=split, features=features)
        else:
            values = pa.array(np.ascontiguousarray(features, dtype=np.float32).ravel())
            vectors = pa.FixedSizeListArray.from_arrays(values, features.shape[1])
            pq.write_table(pa.table({"scan_id": scan_ids, "split": split, "features": vectors}), temporary)
