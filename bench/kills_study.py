"""Kill a small study at random moments, let the same command go on, and compare its tables with the unbroken ones.

    python bench/kills_study.py --kills 20 --out docs/results/kills_study.json

Made-up 2D scans, two pre-trainings' worth of methods, 12 cells of a second or two. The command (`scanlearn study`) is
killed with SIGKILL, with its children, between 0.2 and 8 seconds after it began to work, until it was killed as often as
asked; whenever it ends before its kill, the study is begun anew in another folder. Then every figure of results.csv and
every mean, comparison and verdict of study.json must be that of an unbroken study.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1] / "tests" / part) for part in ("", "engine")]

from scanlearn.engine.run_folder import write_json  # noqa: E402
from scanlearn.study.plan import load_plan  # noqa: E402
from study.studies import image_study  # noqa: E402

COMPARED = ("cells", "means", "comparisons", "verdicts", "worth", "missing", "failed")
FAST = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}


def start(plan: Path, out: Path) -> subprocess.Popen[bytes]:
    """The command in a process group of its own."""
    command = [sys.executable, "-m", "scanlearn.cli", "study", str(plan), "--out", str(out)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env={**os.environ, **FAST}, start_new_session=True, **quiet)  # type: ignore[call-overload]


def tables(out: Path) -> dict[str, Any]:
    """What must be equal."""
    facts = json.loads((out / "study.json").read_text())
    return {**{name: facts[name] for name in COMPARED}, "csv": (out / "results.csv").read_text()}


def run_to_end(plan: Path, out: Path) -> None:
    """Let the study finish."""
    process = start(plan, out)
    error = process.communicate()[1].decode()
    if process.returncode:
        raise SystemExit(f"the study did not end: {error[-2000:]}")


def kill_once(plan: Path, out: Path, moments: random.Random) -> tuple[bool, str]:
    """(whether it was killed before its end, what it was at)."""
    process = start(plan, out)
    before = sum(1 for _ in out.rglob("*")) if out.exists() else 0
    while process.poll() is None and (sum(1 for _ in out.rglob("*")) if out.exists() else 0) <= before:
        time.sleep(0.05)  # imports take seconds in which nothing can be lost
    time.sleep(moments.uniform(0.2, 8.0))
    if process.poll() is not None:
        return False, "end"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    cells = len(list(out.glob("cells/*/results.json")))
    return True, f"{cells} cells done"


def main() -> None:
    """Run the trial and write its record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        load_plan(image_study(folder, labels=[8, 16], seeds=2)).save(folder / "plan.yaml")
        run_to_end(folder / "plan.yaml", folder / "whole")
        expected, killed, studies, at = tables(folder / "whole"), 0, 0, []
        while killed < options.kills:
            out = folder / f"killed{studies}"
            studies += 1
            while killed < options.kills:
                hit, where = kill_once(folder / "plan.yaml", out, moments)
                killed += hit
                if not hit:
                    break
                at.append(where)
                print(f"kill {killed}: {where}", flush=True)
            run_to_end(folder / "plan.yaml", out)
            if tables(out) != expected:
                raise SystemExit(f"after {killed} kills the tables differ from the unbroken study's")
    record = {"kills": killed, "studies": studies, "equal": True, "killed_at": at, "seed": options.seed}
    print(json.dumps({k: record[k] for k in ("kills", "studies", "equal")}))
    if options.out:
        write_json(options.out, {"command": f"python bench/kills_study.py --kills {options.kills}", **record})


if __name__ == "__main__":
    main()
