"""What a store says about itself: side table, intensity, splits, quarantine; written when all scans are in."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scanlearn.catalog.splits import make_splits, save_splits
from scanlearn.catalog.table import SPLITS, Catalog
from scanlearn.console import say, warn
from scanlearn.errors import ScanlearnError
from scanlearn.scans import arrays, intensity
from scanlearn.scans.conform import Conformed
from scanlearn.scans.foreground import Foreground
from scanlearn.scans.sources import ArraySource, FileSource


def finish(
    part: Path, reader: FileSource | ArraySource, items: list[Conformed], settings: dict[str, Any], head: dict[str, Any]
) -> None:
    """Write everything beside the arrays into ``part`` and tell the person what was done."""
    good = [item for item in items if not item.reason]
    bad = [item for item in items if item.reason]
    if not good:
        raise ScanlearnError(f"None of the {len(items)} scans can be used. The first: {bad[0].reason}")
    catalog = reader.catalog.take([item.row for item in good]).with_column("sha256", [item.digest for item in good])
    all_8bit = all(item.array.dtype == np.uint8 for item in good)
    names = catalog.column("scan_id")
    pq.write_table(_side_table(good, names, settings["window"], all_8bit), part / "scans.parquet")
    catalog.save(part / "catalog.parquet")
    equal = equal_scans(catalog)
    splits = _split(catalog, equal, settings["target"], settings["seed"])
    save_splits(part / "splits.json", catalog, splits, seed=settings["seed"], target=settings["target"])
    Foreground.gather([item.voxels for item in good], settings["spatial_dims"]).save(part / "foreground.npz")
    values = sorted({value for item in good for value in item.voxels})
    dtype = intensity.common_dtype({item.array.dtype for item in good})
    info = {
        **head,
        "spatial_dims": settings["spatial_dims"],
        "channels": int(good[0].array.shape[0]),
        "dtype": dtype.name,
        "scans": len(good),
        "settings": settings,
        "intensity": _intensity(good, settings["window"], all_8bit),
        "mask_values": values,
        "mask_classes": [str(value) for value in values],
        "equal_scans": sum(len(rows) for rows in equal),
        "quarantine": [{"scan_id": s, "file": f, "reason": r} for s, f, r in _refused(reader, bad)],
    }
    (part / "zarr.json").write_text(arrays.GROUP_METADATA)
    for kind in ("volumes", "masks"):
        if settings["spatial_dims"] == 3 and (part / kind).is_dir():
            (part / kind / "zarr.json").write_text(arrays.GROUP_METADATA)
    (part / "store.json").write_text(json.dumps(info, indent=1) + "\n")
    _tell(info, catalog, good, bad, equal, splits)


def equal_scans(catalog: Catalog) -> list[list[int]]:
    """Rows of scans of different patients whose files are equal to the last byte, in groups."""
    groups: dict[str, list[int]] = defaultdict(list)
    for row, digest in enumerate(catalog.column("sha256")):
        groups[digest].append(row)
    patients = catalog.patients
    return [rows for rows in groups.values() if len(set(patients[rows])) > 1]


def _split(catalog: Catalog, equal: list[list[int]], target: str | None, seed: int) -> dict[str, np.ndarray]:
    """The splits by patient; one or two patients cannot be divided and are all for training.

    Where the split is given and parts equal scans of different patients, those of the training side (then of the
    validation side) are in no part.
    """
    rank = {name: place for place, name in enumerate(SPLITS)}
    given = [rank.get(name, 0) for name in catalog.column("split")]
    out = [row for rows in equal for row in rows if given[row] < max(given[r] for r in rows)]
    if out:
        warn(
            f"{len(out)} scans are equal to one of another patient in a later part of the given split; no part has it."
        )
    rows = np.setdiff1d(np.arange(len(catalog)), out)
    divided = catalog.take(rows)
    if len(np.unique(divided.patients)) >= len(SPLITS):
        parts = make_splits(divided, target=target, seed=seed)
    else:
        warn("fewer than three patients: there is nothing to divide, so all scans are for training.")
        parts = make_splits(divided, fractions=(1, 0, 0), target=target, seed=seed)
    return {name: rows[part] for name, part in parts.items()}


def _side_table(good: list[Conformed], names: list[str], window: intensity.Window, all_8bit: bool) -> pa.Table:
    ranges = [intensity.window_for(i.modality, i.stats, window, all_8bit=all_8bit) for i in good]
    placements = [i.placement for i in good if i.placement is not None]
    columns: dict[str, Any] = {
        "scan_id": names,
        "shape": [p.size for p in placements],
        "source_shape": [p.source for p in placements],
        "inner_shape": [p.inner for p in placements],
        "offset": [p.offset for p in placements],
        "affine": [i.affine.ravel().tolist() for i in good],
        "factor": [i.factor for i in good],
        "low": [low / i.factor for (low, _), i in zip(ranges, good, strict=True)],
        "high": [high / i.factor for (_, high), i in zip(ranges, good, strict=True)],
        **{key: [i.stats[key] for i in good] for key in ("minimum", "maximum", "p_low", "p_high")},
        "modality": [i.modality for i in good],
        "masked": [i.masked for i in good],
    }
    return pa.table(columns)


def _intensity(good: list[Conformed], window: intensity.Window, all_8bit: bool) -> dict[str, Any]:
    """How values become 0..1: the window asked for, or what was chosen by modality."""
    by_modality = Counter(item.modality or "unknown" for item in good)
    other = window or ("0..255" if all_8bit else "percentiles")
    chosen = {name: "genesis" if name == "CT" and window is None else other for name in by_modality}
    return {"modalities": dict(by_modality), "window": chosen, "all_8bit": all_8bit}


def _refused(reader: FileSource | ArraySource, bad: list[Conformed]) -> list[tuple[str, str, str]]:
    names = reader.catalog.column("scan_id")
    return [(names[item.row], reader.file(item.row), item.reason) for item in bad]


def _tell(
    info: dict[str, Any],
    catalog: Catalog,
    good: list[Conformed],
    bad: list[Conformed],
    equal: list[list[int]],
    splits: dict[str, np.ndarray],
) -> None:
    size = info["settings"]["size"]
    grid = " x ".join(map(str, size)) if size else "each on its own grid"
    masks = sum(item.masked for item in good)
    classes = "1 class" if len(info["mask_classes"]) == 1 else f"{len(info['mask_classes'])} classes"
    say(
        f"{len(good)} scans of {len(np.unique(catalog.patients))} patients, {info['spatial_dims']}D, {grid}, "
        f"{info['dtype']}" + (f", {masks} with masks of {classes}" if masks else "") + "."
    )
    windows = info["intensity"]["window"]
    each = [f"{chosen}" if len(windows) == 1 else f"{chosen} for {name}" for name, chosen in windows.items()]
    say("window: " + ", ".join(each))
    say("split by patient: " + ", ".join(f"{name} {len(rows)}" for name, rows in splits.items()))
    if equal:
        warn(f"{info['equal_scans']} scans are equal to the last byte to a scan of another patient.")
    if bad:
        warn(f"{len(bad)} of {len(bad) + len(good)} scans were left out; store.json lists them with the reason.")
