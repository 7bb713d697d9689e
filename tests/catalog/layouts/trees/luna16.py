"""A LUNA16 of one or two scans in some subsets, with nodules, candidates of two versions and lung masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from catalog.layouts.trees.parts import ct, remove, write_lines, write_meta

UID = "1.3.6.1.4.1.14519.5.2.1.6279.6001."
SCANS = {
    UID + "100225287222365663678666836860": 0,
    UID + "105756658031515062000744821260": 0,
    UID + "2": 5,
    UID + "3": 9,
}


def make(
    folder: Path, *, without: tuple[str, ...] = (), renamed: dict[str, str] | None = None, nested: bool = False
) -> Path:
    """Write the tree; nested: subset0/subset0/*.mhd, as some programs unpack the archives."""
    for number, (uid, subset) in enumerate(SCANS.items()):
        place = folder / f"subset{subset}" / (f"subset{subset}" if nested else "")
        write_meta(place / f"{uid}.mhd", ct(number, (6, 10, 12)))
        write_meta(folder / "seg-lungs-LUNA16" / f"{uid}.mhd", (ct(number, (6, 10, 12)) > 0).astype(np.uint8) * 3)
    called = renamed or {}
    place = [called.get(name, name) for name in ("seriesuid", "coordX", "coordY", "coordZ")]
    first, second, *_ = SCANS
    rows = [
        f"{first},-128.69,-175.31,-298.38,5.65",
        f"{first},103.78,-211.92,-227.12,4.22",
        f"{second},2.0,-3.0,4.5,8.14",
    ]
    write_lines(folder / "annotations.csv", [",".join([*place, "diameter_mm"]), *rows])
    lines = [f"{uid},{-10 - n}.5,20,{n},{int(n == 0)}" for n, uid in enumerate(SCANS)]
    write_lines(folder / "candidates.csv", [",".join([*place, "class"]), *lines])
    write_lines(folder / "candidates_V2.csv", [",".join([*place, "class"]), *lines, f"{UID}3,1,2,3,0"])
    remove(folder, without)
    return folder
