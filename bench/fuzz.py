"""Damaged files of every format through the readers: how each ended, how long the slowest took, how much memory.

python bench/fuzz.py [--files 1000] [--seed 0]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from scans.damaged import Outcome, read_damaged, write_damaged


def main() -> None:
    """Write, read, and print one line for each kind of file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_damaged(Path(folder) / "fuzz", options.files, options.seed)
        outcomes = read_damaged(Path(folder) / "fuzz")
    kinds = ("read", "named", "raised", "killed")
    print(f"{'file':14}" + "".join(f"{kind:>8}" for kind in kinds) + f"{'slowest, s':>12}")
    for name in [*sorted({o.path.name for o in outcomes}), ""]:
        group = [o for o in outcomes if name in ("", o.path.name)]
        counts = Counter(ending(o) for o in group)
        cells = "".join(f"{counts[kind]:8}" for kind in kinds)
        print(f"{name or 'all':14}{cells}{max(o.seconds for o in group):12.3f}")
    print(f"memory: {max(o.grown for o in outcomes) / 2**20:.0f} MiB over the loaded libraries")
    for o in outcomes:
        if ending(o) in ("raised", "killed") or o.printed:
            print(o.path.relative_to(Path(folder) / "fuzz"), o.killed, o.ends, o.printed)


def ending(outcome: Outcome) -> str:
    """The worst of a file's ends, with read_scan's before read_mask's."""
    kinds = [end.partition(":")[0] for end in outcome.ends]
    return "killed" if outcome.killed else "raised" if "raised" in kinds else kinds[1]


if __name__ == "__main__":
    main()
