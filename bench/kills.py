"""Kill ``prepare`` at random moments, let the same command go on, and compare the store with the unbroken one.

    python bench/kills.py --kills 100 --out docs/results/kills_prepare.json

Made-up data, 2D and 3D in turn: 8-bit and then 16-bit pictures (what was written has to be converted on the way), and
volumes with masks; some files are broken. A run is killed (SIGKILL) at a moment drawn evenly from the time that an
unbroken run takes once its processes are started; one in two is killed again while it goes on. Then it may finish, and every file
of its store must hold the same bytes as that of the unbroken run.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

KINDS = ("2D", "3D")
SHARD_BYTES = 1 << 15  # small shards, written often, so that kills meet every step
FLUSH_SECONDS = 0.05


def make_slices(folder: Path, count: int = 36) -> None:
    """PNG images, the first half of 8 bits, the rest of 16, every second with a mask; two cannot be used."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for n in range(count):
        high, dtype = (255, np.uint8) if n < count // 2 else (60000, np.uint16)
        picture = (rng.random((64, 48)) * high).astype(dtype)
        Image.fromarray(picture * (n != 5)).save(folder / f"images/s{n:02d}.png")
        if n % 2:
            mask = np.zeros((64, 48), np.uint8)
            mask[n : n + 9, 5:20] = 255
            Image.fromarray(mask).save(folder / f"masks/s{n:02d}.png")
    (folder / "images/s20.png").write_bytes(b"no picture")


def make_volumes(folder: Path, count: int = 24) -> None:
    """NIfTI volumes of several shapes, most with a mask; one cannot be used."""
    import nibabel as nib

    rng = np.random.default_rng(1)
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for n in range(count):
        shape = (40 + n, 36, 20 + n % 5)
        volume = (rng.random(shape) * 2000 - 1000).astype(np.int16) * (n != 7)
        nib.save(nib.Nifti1Image(volume, np.diag([1, 1, 2, 1])), folder / f"imagesTr/v{n:02d}.nii.gz")
        if n % 4:
            mask = (rng.random(shape) > 0.99).astype(np.uint8)
            nib.save(nib.Nifti1Image(mask, np.diag([1, 1, 2, 1])), folder / f"labelsTr/v{n:02d}.nii.gz")


def child(source: str, out: str) -> None:
    """What is killed: one ``prepare``, in small shards. Says when it begins, with its processes started."""
    from scanlearn.scans import arrays, writers
    from scanlearn.scans.prepare import prepare
    from scanlearn.scans.workers import run_in_order

    arrays.STACK_SHARD_BYTES, writers.FLUSH_SECONDS = SHARD_BYTES, FLUSH_SECONDS
    list(run_in_order(abs, [[n] for n in range(8)], 2, seconds=600))
    print("begins", flush=True)
    prepare(source, out, workers=2)


def run(source: Path, out: Path, kill_after: float | None = None) -> tuple[float, bool, str]:
    """(seconds after the start, killed, what it said) of one try; a failure is an error here."""
    command = [sys.executable, __file__, "--child", str(source), str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    begun = time.monotonic()
    killed = False
    try:
        _, said = process.communicate(timeout=kill_after)
    except subprocess.TimeoutExpired:
        killed = True
        process.send_signal(signal.SIGKILL)
        _, said = process.communicate()
    if not killed and process.returncode != 0:
        raise RuntimeError(f"prepare failed with {process.returncode}:\n{said}")
    return time.monotonic() - begun, killed, said


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of every file of a store."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def measure(kills: int, folder: Path, seed: int) -> dict[str, Any]:
    """Kill until there were so many kills; returns the counts."""
    draw = random.Random(seed)
    make_slices(folder / "2D")
    make_volumes(folder / "3D")
    whole, lasts = {}, {}
    for kind in KINDS:
        out = folder / "unbroken" / kind / "store"
        run(folder / kind, out)
        shutil.rmtree(out)  # the first try also compiled and cached what it imported
        lasts[kind] = run(folder / kind, out)[0]
        whole[kind] = contents(out)
    counts = {"kills": 0, "stores": 0, "equal": 0, "went_on": 0, "began_anew": 0, "left_behind": 0}
    different: list[str] = []
    while counts["kills"] < kills:
        kind = KINDS[counts["stores"] % 2]
        out = folder / "killed" / str(counts["stores"]) / "store"
        tries = 1 + draw.randrange(2)
        for _ in range(min(tries, kills - counts["kills"])):
            counts["kills"] += run(folder / kind, out, draw.random() * lasts[kind])[1]
        _, _, said = run(folder / kind, out)
        counts["stores"] += 1
        counts["went_on"] += "going on" in said or "nothing to do" in said
        counts["began_anew"] += "beginning again" in said
        found = contents(out)
        counts["equal"] += found == whole[kind]
        different += [
            f"{kind} {name}" for name in found.keys() | whole[kind].keys() if found.get(name) != whole[kind].get(name)
        ]
        counts["left_behind"] += len(list(out.parent.iterdir())) - 1
        shutil.rmtree(out.parent)
        print(f"{counts['kills']} kills, {counts['equal']} of {counts['stores']} stores equal", flush=True)
    return {
        **counts,
        "different": sorted(set(different)),
        "seconds_unbroken": {k: round(v, 2) for k, v in lasts.items()},
    }


def main() -> int:
    """Returns 0 if every store equals the unbroken one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child)
        return 0
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        os.environ["SCANLEARN_PRIVATE"] = f"{name}/private"
        result = measure(options.kills, Path(name), options.seed)
    print(json.dumps(result, indent=1))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if result["equal"] == result["stores"] and not result["left_behind"] else 1


if __name__ == "__main__":
    sys.exit(main())
