"""What the guard against leaks costs: a million simulated scans compared, and a catalogue of a million rows read.

    python bench/leaks.py                        # writes docs/results/leaks.json
    python bench/leaks.py --rows 20000 --out somewhere.json

Looks are drawn like radiographs: one common template and a spectrum that falls with the frequency, in files as those of
a store are. Among them 1,000 copies are planted with a little noise, every other one mirrored. Each figure is of a
process of its own: seconds, and by how much resident memory grows at its peak.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np

PLANTED, PARTS = 1000, (0.6, 0.4)
OUT = Path(__file__).parent.parent / "docs" / "results" / "leaks.json"


def make_looks(file: Path, count: int) -> np.ndarray:
    """uint8 (count, 32, 32) in a file."""
    rng = np.random.default_rng(0)
    u, v = np.mgrid[:20, :20]
    fall = (1 / (1 + np.hypot(u, v)) ** 1.5).astype(np.float32)
    template = (
        rng.normal(size=(20, 20)).astype(np.float32) * fall * 0.5
    )  # two looks differ in 119 bits on average, as radiographs of children do
    wave = np.cos(np.pi * np.arange(20)[:, None] * (2 * np.arange(32) + 1) / 64).astype(np.float32)
    looks = np.lib.format.open_memmap(file, "w+", np.uint8, (count, 32, 32))
    for first in range(0, count, 20_000):
        block = template + rng.standard_normal((min(20_000, count - first), 20, 20), np.float32) * fall
        image = wave.T @ block @ wave
        low, high = image.min((1, 2), keepdims=True), image.max((1, 2), keepdims=True)
        looks[first : first + len(block)] = np.rint((image - low) / (high - low) * 255)
    at = rng.permutation(count)[: 2 * min(PLANTED, count // 4)].reshape(2, -1)
    for number, (a, b) in enumerate(at.T):
        copy = np.clip(looks[a] + rng.normal(0, 1, (32, 32)), 0, 255).astype(np.uint8)
        looks[b] = copy[:, ::-1] if number % 2 else copy
    looks.flush()
    return looks


def check(folder: Path, rows: int) -> dict[str, float]:
    """Compare two sides of simulated scans; the looks lie in files."""
    import pyarrow as pa

    from scanlearn.catalog.duplicates import hashes
    from scanlearn.engine.sides import Side, compare

    looks = np.load(folder / "looks.npy", mmap_mode="r")
    began, before = time.monotonic(), resident()
    prints = hashes(looks)
    hashed = time.monotonic() - began
    sides, first = [], 0
    for number, share in enumerate(PARTS):
        rows_of = slice(first, first + round(rows * share))
        size = rows_of.stop - first
        patients = pa.array([f"patient-{n // 3:020x}" for n in range(first, rows_of.stop)])
        files = pa.array([n.to_bytes(32, "big") for n in range(first, rows_of.stop)], pa.binary(32))
        part = np.where(np.arange(size) % 10 == 0, "test", "train")
        sides.append(Side(f"s{number}", patients, True, files, part, frozenset(), prints[rows_of], looks[rows_of]))
        first = rows_of.stop
    _, pairs = compare(sides)
    seconds = time.monotonic() - began
    return {"seconds": seconds, "of_them_hashing": hashed, "peak_mb": peak() - before, "pairs_found": len(pairs)}


def read(folder: Path, rows: int) -> dict[str, float]:
    """Read a table of scans like MIMIC-CXR's into a catalogue, as a layout does."""
    from scanlearn.catalog.layouts.known import _assembled
    from scanlearn.catalog.layouts.layout import Rows, layout_named

    def path(i: int) -> str:
        h = hashlib.md5(str(i).encode()).hexdigest()
        return (
            f"files/p1{i % 10}/p{10_000_000 + i // 6}/s{50_000_000 + i // 2}/{h[:8]}-{h[8:16]}-{h[16:24]}-{h[24:]}.jpg"
        )

    columns = {
        "paths": [path(i) for i in range(rows)],
        "patient_id": [str(10_000_000 + i // 6) for i in range(rows)],
        "study_id": [str(50_000_000 + i // 2) for i in range(rows)],
        "modality": ["DX"] * rows,
        "view": ["PA"] * rows,
        "findings": ["Edema|-Effusion"] * rows,
    }
    began, before = time.monotonic(), resident()
    _assembled(layout_named("mimic_cxr"), folder, Rows(columns), "none")
    return {"seconds": time.monotonic() - began, "peak_mb": peak() - before, "whole_process_mb": peak()}


def resident() -> float:
    """MB of this process now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def peak() -> float:
    """MB of this process at its peak."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--only", choices=("check", "read"))
    asked = parser.parse_args()
    if asked.only:
        print(json.dumps({"check": check, "read": read}[asked.only](asked.folder, asked.rows)))
        return
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        make_looks(Path(folder) / "looks.npy", asked.rows)
        found = {"rows": asked.rows, "planted": min(PLANTED, asked.rows // 4), "date": str(date.today())}
        found |= {"python": platform.python_version(), "cores": os.cpu_count()}
        for what in ("check", "read"):
            command = [sys.executable, __file__, "--only", what, "--rows", str(asked.rows), "--folder", folder]
            done = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found[what] = {name: round(value, 1) for name, value in json.loads(done).items()}
            print(what, found[what], flush=True)
    asked.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
