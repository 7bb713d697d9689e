"""Does a store of a million scans start a training as fast, and as small, as one of a thousand?

    .venv/bin/python bench/startup.py --repeat 3 --out docs/results/startup.json

Stores of 2D scans are simulated: side tables in full (hashed ids, three scans for each patient, sha256, five label
columns, parts), images of 64 x 64 bytes that are all zero and take no room. Each measurement is a process of its own:
the seconds from its start until the first training step is in its log, on the clock and of the processor (which others
on the machine disturb less), and the most memory it had by its end. Sizes take turns, medians count.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa

from scanlearn.catalog.mapped import encode, write_mapped
from scanlearn.catalog.table import Catalog
from scanlearn.scans import arrays
from scanlearn.scans.foreground import Foreground
from scanlearn.scans.store import VERSION, digest, row_types

SIDE = 64
SHARD = 4096
FIGURES = ("first_step_seconds", "first_step_processor_seconds", "peak_memory_mb")
SETTINGS = {"batch_size": 16, "steps": 3, "log_every": 1, "precision": "32-true", "monitor.scans": 100}

TRAIN = """
import sys
from scanlearn.engine.pretrain import pretrain
pretrain(sys.argv[1], "moco_v2_small", sys.argv[2], settings=eval(sys.argv[3]))
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 1_000_000])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="startup-") as folder:
        stores = {rows: simulated_store(Path(folder) / str(rows), rows) for rows in options.rows}
        start_once(stores[min(stores)], Path(folder) / "warm")  # files into the page cache
        found: dict[int, list[tuple[float, float, float]]] = {rows: [] for rows in stores}
        for turn in range(options.repeat):
            for rows, store in stores.items():
                found[rows].append(start_once(store, Path(folder) / f"run-{rows}-{turn}"))
        sizes = {rows: sum(path.stat().st_size for path in store.glob("*.arrow")) for rows, store in stores.items()}
    result = {
        "command": "bench/startup.py",
        "date": date.today().isoformat(),
        "repeat": options.repeat,
        "settings": SETTINGS,
        "stores": [
            {
                "rows": rows,
                "side_tables_mb": round(sizes[rows] / 1e6, 1),
                **{name: round(statistics.median(run[i] for run in runs), 2) for i, name in enumerate(FIGURES)},
                "each": [[round(figure, 2) for figure in run] for run in runs],
            }
            for rows, runs in found.items()
        ],
    }
    show(result)
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


def show(result: dict) -> None:
    """The table, and what a million rows cost beyond a thousand."""
    head = ("scans", "side tables, MB", "first step after, s", "of the processor, s", "peak memory, MB")
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for one in result["stores"]:
        figures = (one["rows"], one["side_tables_mb"], *(one[name] for name in FIGURES))
        print("| {:,} | {:.1f} | {:.2f} | {:.2f} | {:,.0f} |".format(*figures))
    small, large = result["stores"][0], result["stores"][-1]
    clock, processor = (large[name] / small[name] for name in FIGURES[:2])
    more = large["peak_memory_mb"] - small["peak_memory_mb"]
    print(f"time x {clock:.2f} (of the processor x {processor:.2f}), memory {more:+.0f} MB")


def start_once(store: Path, run: Path) -> tuple[float, float, float]:
    """(seconds and processor seconds until the first step is in the log, peak memory in MB) of one process."""
    arguments = [sys.executable, "-c", TRAIN, str(store), str(run), repr(SETTINGS)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    began = time.perf_counter()
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as child:
        log = run / "metrics.jsonl"
        while not (log.is_file() and log.stat().st_size):
            if child.poll() is not None:
                raise SystemExit(child.communicate()[1])
            time.sleep(0.005)
        seconds = time.perf_counter() - began
        ticks = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        out, errors = child.communicate()
    if child.returncode:
        raise SystemExit(errors)
    shutil.rmtree(run)
    return seconds, sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"), int(out) / 1e3 * 1.024


def simulated_store(folder: Path, rows: int) -> Path:
    """A store of so many scans as ``prepare`` would write it, but for the voxels."""
    folder.mkdir(parents=True)
    patient = np.arange(rows) // 3
    part = np.random.default_rng(0).choice(3, patient[-1] + 1, p=(0.7, 0.1, 0.2))[patient].astype(np.uint8) + 1
    catalog = simulated_catalog(rows, patient)
    catalog.save_mapped(folder / "catalog.arrow")
    write_mapped(folder / "scans.arrow", simulated_rows(rows, part))
    Foreground.gather([], 2).save(folder / "foreground.arrow")
    sizes = {
        name: {"scans": int((part == k).sum()), "patients": catalog.count_patients(part == k)}
        for k, name in enumerate(("train", "val", "test"), 1)
    }
    info = {
        "version": VERSION,
        "key": hashlib.sha256(str(rows).encode()).hexdigest(),
        "name": folder.name,
        "identifiers": "hashed",
        "spatial_dims": 2,
        "channels": 1,
        "dtype": "uint8",
        "scans": rows,
        "settings": {"size": [SIDE, SIDE]},
        "intensity": {"all_8bit": True},
        "mask_values": [],
        "mask_classes": [],
        "splits": {"seed": 0, "parts": sizes, "sha256": digest(part)},
        "quarantine": [],
    }
    (folder / "store.json").write_text(json.dumps(info))
    (folder / "zarr.json").write_text(arrays.GROUP_METADATA)
    shard = (min(SHARD, rows), 1, SIDE, SIDE)
    images = arrays.create_array(
        str(folder), "images", (rows, 1, SIDE, SIDE), (1, 1, SIDE, SIDE), shard, np.dtype("uint8")
    )
    grey = np.full(shard, 100, np.uint8)  # packs into next to nothing, but every chunk is there
    for start in range(0, rows, len(grey)):
        images[start : min(start + len(grey), rows)].write(grey[: rows - start]).result()
    return folder


def simulated_catalog(rows: int, patient: np.ndarray) -> Catalog:
    """Hashed ids, digests, and labels of the usual kinds: classes, findings, an age, a measurement."""
    generator = np.random.default_rng(1)
    study = [f"study-{_hash(f'study{n // 2}')}" for n in range(rows)]
    columns = {
        "scan_id": [f"scan-{_hash(f'scan{n}')}" for n in range(rows)],
        "patient_id": [f"patient-{_hash(f'patient{n}')}" for n in patient],
        "study_id": study,
        "dataset": ["chest"] * rows,
        "modality": ["CR"] * rows,
        "view": generator.choice(["PA", "AP", "LL"], rows),
        "sha256": [hashlib.sha256(str(n).encode()).hexdigest() for n in range(rows)],
        "finding": generator.choice(["normal", "bacteria", "virus"], rows),
        "sex": generator.choice(["F", "M"], rows),
        "findings": generator.choice(["", "Mass", "Mass|Edema", "Edema|Nodule", "Nodule"], rows),
        "age": generator.integers(18, 95, rows),
        "score": generator.normal(0, 1, rows).round(4),
    }
    return Catalog.from_columns(columns)


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()[:15]


def simulated_rows(rows: int, part: np.ndarray) -> dict[str, pa.Array]:
    """The columns of scans.arrow for 8-bit images of one size."""
    numbers = {"part": part, "masked": 0, "factor": 1, "low": 0, "high": 255}
    numbers |= {"minimum": 0, "maximum": 255, "p_low": 2, "p_high": 250}
    columns = {}
    for name, kind in row_types(2).items():
        if name == "modality":
            columns[name] = encode(pa.array(["CR"] * rows))
        elif pa.types.is_fixed_size_list(kind):
            one = np.eye(4).ravel() if name == "affine" else (0, 0) if name == "offset" else (SIDE, SIDE)
            columns[name] = pa.FixedSizeListArray.from_arrays(
                pa.array(np.tile(one, rows), kind.value_type), kind.list_size
            )
        else:
            columns[name] = pa.array(np.broadcast_to(numbers[name], rows).astype(kind.to_pandas_dtype()))
    return columns


if __name__ == "__main__":
    main()
