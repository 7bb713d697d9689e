"""What the guard against leaks costs, and the catalogue before it: a million simulated scans compared, listed and read.

    python bench/leaks.py                        # writes docs/results/leaks.json
    python bench/leaks.py --rows 20000 --out somewhere.json

Looks are drawn like radiographs: one common template and a spectrum that falls with the frequency, in files as those of
a store are. Among them 1,000 copies are planted with a little noise, every other one mirrored. The table names files in
folders of 10,000, whose listings are simulated. Each figure is of a process of its own: seconds on the clock and of
the processor (which others on the machine disturb less), and by how much resident memory grows at its peak, pages of
mapped files among it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np

PLANTED, PARTS = 1000, (0.6, 0.4)
IN_FOLDER = 10_000  # files
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


def make_table(path: Path, count: int) -> None:
    """A table of scans; nothing lies where it says."""
    with path.open("w") as file:
        file.write("image,patient,study,view,sex,age,findings\n")
        for i in range(count):
            view, sex, finding = ("PA", "AP")[i % 2], "MF"[i % 2], ("Edema|Effusion", "No Finding", "Mass")[i % 3]
            file.write(f"{_name(i)},P{i // 6:07d},S{i // 2:08d},{view},{sex},{i % 90},{finding}\n")


def _name(i: int) -> str:
    return f"images_{i // IN_FOLDER:04d}/{i:08d}_000.png"


# ---------------------------------------------------------------- measured, each in a process of its own


def check(folder: Path, rows: int) -> dict[str, float]:
    """Compare two sides of simulated scans; the looks lie in files."""
    import pyarrow as pa

    from scanlearn.catalog.duplicates import hashes
    from scanlearn.engine.sides import Side, compare

    looks = np.load(folder / "looks.npy", mmap_mode="r")
    taken = cost()
    prints = hashes(looks)
    hashed = taken()["processor_seconds"]
    sides, first = [], 0
    for number, share in enumerate(PARTS):
        rows_of = slice(first, first + round(rows * share))
        size = rows_of.stop - first
        patients = pa.array([f"patient-{n // 3:020x}" for n in range(first, rows_of.stop)])
        files = pa.array([n.to_bytes(32, "big") for n in range(first, rows_of.stop)], pa.binary(32))
        part = np.where(np.arange(size) % 10 == 0, "test", "train")
        own, pictures = np.arange(size), looks[rows_of]
        sides.append(Side(f"s{number}", patients, True, files, part, frozenset(), prints[rows_of], pictures, own))
        first = rows_of.stop
    _, pairs = compare(sides)
    return {**taken(), "of_them_hashing": hashed, "pairs_found": len(pairs)}


def read(folder: Path, rows: int) -> dict[str, float]:
    """Make a table of scans, whose files are looked up, into a catalogue."""
    from scanlearn.catalog.columns import read_table
    from scanlearn.catalog.locate import Locator
    from scanlearn.catalog.tabular import Asked, catalog_of_rows

    class Simulated(Locator):
        def _listing(self, where: str) -> dict[str, bool]:
            number = where.rpartition("_")[2]
            if where not in self._folders:
                first = int(number) * IN_FOLDER if number.isdigit() else rows
                self._folders[where] = {Path(_name(i)).name: False for i in range(first, min(first + IN_FOLDER, rows))}
            return self._folders[where]

    make_table(folder / "table.csv", rows)
    taken = cost()
    assert len(catalog_of_rows(read_table(folder / "table.csv"), Simulated(folder / "table.csv"), Asked())) == rows
    return taken()


def layout(folder: Path, rows: int) -> dict[str, float]:
    """Make the rows of a layout like MIMIC-CXR's into a catalogue."""
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
    taken = cost()
    _assembled(layout_named("mimic_cxr"), folder, Rows(columns), "none")
    return taken()


def listing(folder: Path, rows: int) -> dict[str, float]:
    """List a folder of up to 100,000 files."""
    from scanlearn.catalog.listing import list_folder

    below = folder / "one"
    below.mkdir()
    for i in range(min(rows, 100_000)):
        (below / f"{i:06d}.png").touch()
    taken = cost()
    found = list_folder(below)
    return {**taken(), "files": len(found.images)}


MEASURED = {"check": check, "read": read, "layout": layout, "listing": listing}


def cost() -> Callable[[], dict[str, float]]:
    """A function that tells what was taken since this call."""
    began, worked, before = time.monotonic(), time.process_time(), resident()

    def taken() -> dict[str, float]:
        figures = {"seconds": time.monotonic() - began, "processor_seconds": time.process_time() - worked}
        return {**figures, "peak_mb": peak() - before, "whole_process_mb": peak()}

    return taken


def resident() -> float:
    """MB of this process now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def peak() -> float:
    """MB of this process at its peak; what ``getrusage`` tells begins with that of the process that started it."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--only", choices=MEASURED)
    asked = parser.parse_args()
    if asked.only:
        print(json.dumps(MEASURED[asked.only](asked.folder, asked.rows)))
        return
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        make_looks(Path(folder) / "looks.npy", asked.rows)
        found = {"rows": asked.rows, "planted": min(PLANTED, asked.rows // 4), "date": str(date.today())}
        found |= {"python": platform.python_version(), "cores": os.cpu_count()}
        for what in MEASURED:
            command = [sys.executable, __file__, "--only", what, "--rows", str(asked.rows), "--folder", folder]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            found[what] = {name: round(value, 1) for name, value in json.loads(done).items()}
            print(what, found[what], flush=True)
    asked.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
