"""What self-discovery costs: time and peak memory for 100, 1,000 and 10,000 patients, and a million descriptors.

    python bench/discovery.py                        # writes docs/results/discovery.json
    python bench/discovery.py --patients 50 --descriptors 2000 --out somewhere.json

Made-up volumes of 40x40x24 voxels, one of each patient, and simulated descriptors of 512 numbers in a file. Each figure
is of a process of its own: how much its resident memory grows from the opened store to the written table, at its peak.
The released code keeps every crop in memory, 3 K C + K_val C MiB in float64 at 64x64x32 (spec_genesis §6, measured).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np

SHAPE, CROP, WIDTH = (40, 40, 24), (16, 16, 12), 512
CLASSES, NEIGHBOURS, NEIGHBOURS_VAL = 44, 200, 30
QUERIES = 100
OUT = Path(__file__).parent.parent / "docs" / "results" / "discovery.json"


def make_store(folder: Path, patients: int) -> Path:
    """A store of smooth random volumes; equal ones for every 100th patient, as nobody looks at them."""
    from scanlearn.scans.prepare import prepare

    rng = np.random.default_rng(0)
    coarse = rng.random((min(patients, 100), *(n // 8 for n in SHAPE)), dtype=np.float32)
    few = coarse.repeat(8, 1).repeat(8, 2).repeat(8, 3)
    image = np.lib.format.open_memmap(folder / "image.npy", "w+", np.uint8, (patients, *SHAPE))
    for i in range(patients):
        noise = rng.integers(0, 40, SHAPE, dtype=np.uint8)
        image[i] = (few[i % len(few)] * 200).astype(np.uint8) + noise
    np.savez(folder / "scans.npz", image=image, patient=np.arange(patients))
    prepare(folder / "scans.npz", folder / "store", workers=0)
    return folder / "store"


def make_descriptors(file: Path, count: int) -> Path:
    """(count, 512) random numbers, raw float32."""
    rng = np.random.default_rng(1)
    with file.open("wb") as sink:
        for first in range(0, count, 20_000):
            sink.write(rng.random((min(20_000, count - first), WIDTH), dtype=np.float32).tobytes())
    return file


def resident(name: str) -> float:
    """MiB of this process: VmRSS now, VmHWM at its peak since ``forget``."""
    text = Path("/proc/self/status").read_text()
    return int(re.search(rf"{name}:\s+(\d+)", text)[1]) / 1024  # type: ignore[index]


def forget() -> None:
    """Let the peak begin anew at what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")


def measured(work: Any) -> dict[str, float]:
    """Seconds, processor seconds and MiB that resident memory grows by, at its peak."""
    forget()
    before, wall, processor = resident("VmRSS"), time.perf_counter(), time.process_time()
    work()
    return {
        "seconds": round(time.perf_counter() - wall, 2),
        "processor_seconds": round(time.process_time() - processor, 2),
        "peak_growth_mib": round(resident("VmHWM") - before, 1),
    }


def discovery(store: str, descriptors: str, out: str, neighbours: int, classes: int) -> dict[str, Any]:
    """One discovery, in this process."""
    from scanlearn.discovery.discover import discover
    from scanlearn.scans.store import open_store

    opened = open_store(store)
    values = np.memmap(descriptors, np.float32, "r", shape=(len(opened), WIDTH))
    val = min(NEIGHBOURS_VAL, len(opened.splits["val"]))
    how = {"neighbours_val": val, "size": CROP, "apart": 2.0, "seed": 0}
    discover(opened, f"{out}-first", descriptors=values, neighbours=2, classes=2, **how)  # what loads on first use
    figures = measured(lambda: discover(opened, out, descriptors=values, neighbours=neighbours, classes=classes, **how))
    table = (Path(out) / "words.arrow").stat().st_size / 2**20
    original = (3 * neighbours + val) * classes
    sizes = {"patients": len(opened), "neighbours": neighbours, "neighbours_val": val, "classes": classes}
    return {**sizes, **figures, "table_mib": round(table, 2), "original_mib": original}


def search(descriptors: str, count: int, neighbours: int) -> dict[str, Any]:
    """The neighbours of a hundred references among so many patients, in this process."""
    from scanlearn.discovery.neighbours import nearest

    values = np.memmap(descriptors, np.float32, "r", shape=(count, WIDTH))
    everybody = np.arange(count)
    references = np.sort(np.random.default_rng(2).choice(count, min(QUERIES, count // 4), replace=False))
    nearest(values, references[:2], everybody[:100], everybody[:100], 2)
    figures = measured(lambda: nearest(values, references, everybody, everybody, neighbours))
    return {"descriptors": count, "references": len(references), "neighbours": neighbours, **figures}


def in_a_process(*arguments: Any) -> dict[str, Any]:
    """One figure, from a process of its own."""
    command = [sys.executable, __file__, "--one", json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    found = json.loads(done.stdout.splitlines()[-1])
    print(" ".join(f"{key} {value}" for key, value in found.items()), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patients", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--descriptors", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        name, *arguments = json.loads(options.one)
        print(json.dumps({"discovery": discovery, "search": search}[name](*arguments)))
        return
    found: dict[str, Any] = {"command": "bench/discovery.py", "date": date.today().isoformat()}
    found |= {"processor": platform.machine(), "threads": 1, "volume": SHAPE, "crop": CROP, "width": WIDTH}
    found |= {"discovery": [], "search": []}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for patients in options.patients:
            here = folder / str(patients)
            here.mkdir()
            store, values = make_store(here, patients), make_descriptors(here / "descriptors", patients)
            few = round(0.45 * 0.7 * patients)  # of the train part
            # The published numbers; then a table of twice the size, to see what memory grows with.
            sizes = {(min(NEIGHBOURS * n, few), min(CLASSES * n, few)) for n in (1, 2)}
            for k, c in sorted(sizes):
                arguments = (str(store), str(values), str(here / f"words-{k}-{c}"), k, c)
                found["discovery"].append(in_a_process("discovery", *arguments))
        for count in options.descriptors:
            values = make_descriptors(folder / "many", count)
            found["search"].append(in_a_process("search", str(values), count, min(NEIGHBOURS, count // 4)))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
