"""What a store says about itself: side tables, intensity, splits, quarantine; written when all scans are in."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from scanlearn.catalog.mapped import WORDS, encode, write_mapped
from scanlearn.catalog.masks import mask_names
from scanlearn.catalog.pseudonyms import list_path, pseudonymise, write_list
from scanlearn.catalog.splits import make_splits
from scanlearn.catalog.table import SPLITS, Catalog
from scanlearn.console import say, warn
from scanlearn.errors import ScanlearnError
from scanlearn.files import write_json
from scanlearn.scans import arrays, intensity
from scanlearn.scans.conform import Conformed
from scanlearn.scans.foreground import Foreground
from scanlearn.scans.noted import lines, noted
from scanlearn.scans.store import digest, row_types

# With more classes in the masks only their number is said.
SHOWN_CLASSES = 8


def finish(part: Path, source: Catalog, items: list[Conformed], settings: dict[str, Any], head: dict[str, Any]) -> None:
    """Write everything beside the arrays into ``part`` and tell the person what was done.

    The catalogue ``source``, a row for each item, has the original ids: it is divided by them. What is written has
    pseudonyms in their place, unless the ``identifiers`` of the settings are "kept"; the arrays of volumes have the
    names of ``stored_names``.
    """
    good = [item for item in items if not item.reason]
    bad = [item for item in items if item.reason]
    if not good:
        raise ScanlearnError(f"None of the {len(items)} scans can be used; the first {bad[0].reason}")
    rows = np.array([item.row for item in good])
    original = source.take(rows).with_column("sha256", [item.digest for item in good])
    equal = equal_scans(original)
    splits = _split(original, equal, settings["target"], settings["seed"])
    identifiers = settings["identifiers"]
    hidden, private = pseudonymise(source, identifiers, keep=[settings["target"] or ""])
    catalog = hidden.take(rows).with_column("sha256", [item.digest for item in good])
    catalog.save_mapped(part / "catalog.arrow")
    all_8bit = all(item.array.dtype == np.uint8 for item in good)
    code = _codes(splits, len(good))
    windows = [intensity.window_of(settings["window"], name) for name in original.column("dataset")]
    write_mapped(part / "scans.arrow", _side_columns(good, code, settings["spatial_dims"], windows, all_8bit))
    Foreground.gather([item.voxels for item in good], settings["spatial_dims"]).save(part / "foreground.arrow")
    values = sorted({value for item in good for value in item.voxels})
    names = mask_names(source.table)
    if "origin" in settings and names and (odd := [value for value in values if value not in names]):
        warn(f"the masks hold the values {odd}, which those of this data set do not have: another release, or changed.")
    dtype = intensity.common_dtype({item.array.dtype for item in good})
    info = {
        **head,
        "identifiers": identifiers,
        "spatial_dims": settings["spatial_dims"],
        "channels": int(good[0].array.shape[0]),
        "dtype": dtype.name,
        "scans": len(good),
        "settings": settings,
        "intensity": _intensity(good, original, settings["window"], all_8bit),
        "mask_values": values,
        "mask_classes": _class_names(values, names),
        "splits": {"seed": settings["seed"], "parts": _sizes(catalog, splits), "sha256": digest(code)},
        "equal_scans": sum(len(rows) for rows in equal),
        "quarantine": _quarantine(hidden, bad, identifiers),
        "notes": noted(zip(catalog.array("scan_id").to_pylist(), (item.notes for item in good), strict=True)),
    }
    (part / "zarr.json").write_text(arrays.GROUP_METADATA)
    for kind in ("volumes", "masks"):
        if settings["spatial_dims"] == 3 and (part / kind).is_dir():
            (part / kind / "zarr.json").write_text(arrays.GROUP_METADATA)
    write_json(part / "store.json", info)
    _tell(info, catalog, good, bad, equal, splits)
    if identifiers == "hashed":
        _keep_names(private, source, hidden, items, list_path(head["name"], head["key"]))


def equal_scans(catalog: Catalog) -> list[np.ndarray]:
    """Rows of scans of different patients whose files are equal to the last byte, in groups."""
    file, patient = catalog.codes("sha256"), catalog.codes("patient_id")
    order = np.argsort(file, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(file[order])) + 1)
    return [rows for rows in groups if len(rows) > 1 and file[rows[0]] and len(np.unique(patient[rows])) > 1]


def _split(catalog: Catalog, equal: list[np.ndarray], target: str | None, seed: int) -> dict[str, np.ndarray]:
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
    if divided.count_patients(np.arange(len(divided))) >= len(SPLITS):
        parts = make_splits(divided, target=target, seed=seed)
    else:
        warn("fewer than three patients: there is nothing to divide, so all scans are for training.")
        parts = make_splits(divided, fractions=(1, 0, 0), target=target, seed=seed)
    return {name: rows[part] for name, part in parts.items()}


def _codes(splits: dict[str, np.ndarray], count: int) -> np.ndarray:
    """uint8 (count,): 0 for a scan in no part, k for one in the k-th."""
    code = np.zeros(count, np.uint8)
    for k, rows in enumerate(splits.values(), 1):
        code[rows] = k
    return code


def _sizes(catalog: Catalog, splits: dict[str, np.ndarray]) -> dict[str, dict[str, int]]:
    return {name: {"scans": len(rows), "patients": catalog.count_patients(rows)} for name, rows in splits.items()}


def _side_columns(
    good: list[Conformed], part: np.ndarray, dims: int, windows: list[intensity.Window], all_8bit: bool
) -> dict[str, pa.Array]:
    """The columns of scans.arrow, see ``row_types``."""
    ranges = [
        intensity.window_for(i.modality, i.stats, window, all_8bit=all_8bit)
        for i, window in zip(good, windows, strict=True)
    ]
    placements = [i.placement for i in good if i.placement is not None]
    columns: dict[str, Any] = {
        "part": part,
        "masked": [i.masked for i in good],
        "shape": [p.size for p in placements],
        "source_shape": [p.source for p in placements],
        "inner_shape": [p.inner for p in placements],
        "offset": [p.offset for p in placements],
        "affine": [i.affine.ravel() for i in good],
        "factor": [i.factor for i in good],
        "low": [low / i.factor for (low, _), i in zip(ranges, good, strict=True)],
        "high": [high / i.factor for (_, high), i in zip(ranges, good, strict=True)],
        **{key: [i.stats[key] for i in good] for key in ("minimum", "maximum", "p_low", "p_high")},
        "modality": [i.modality for i in good],
    }
    return {name: _column(columns[name], kind) for name, kind in row_types(dims).items()}


def _column(cells: Any, kind: pa.DataType) -> pa.Array:
    if kind == WORDS:
        return encode(pa.array(cells, pa.string()))
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(pa.array(np.ravel(cells), kind.value_type), kind.list_size)
    return pa.array(np.asarray(cells), kind)


def _intensity(good: list[Conformed], original: Catalog, windows: intensity.Windows, all_8bit: bool) -> dict[str, Any]:
    """How values become 0..1: the window asked for, or what was chosen by modality; by data set where each has its own."""
    modalities = [item.modality or "unknown" for item in good]
    chosen: dict[str, Any] = {}
    for modality, dataset in dict.fromkeys(zip(modalities, original.column("dataset"), strict=True)):
        usual = "genesis" if modality == "CT" else "0..255" if all_8bit else "percentiles"
        name = f"{modality} of {dataset}" if isinstance(windows, dict) else modality
        chosen[name] = intensity.window_of(windows, dataset) or usual
    return {"modalities": dict(Counter(modalities)), "window": chosen, "all_8bit": all_8bit}


def _class_names(values: list[int], names: dict[int, str]) -> list[str]:
    """What the values in the masks are called by the source; a value without a name, or with another's, is a number."""
    named = [names.get(value, str(value)) for value in values]
    often = Counter([*named, "background"])  # the name of 0
    return [name if often[name] == 1 else f"{name} {value}" for name, value in zip(named, values, strict=True)]


def _quarantine(catalog: Catalog, bad: list[Conformed], identifiers: str) -> list[dict[str, str]]:
    """What was left out and why; the files' names only where identifiers are kept."""
    names = catalog.array("scan_id", np.array([item.row for item in bad], np.int64)).to_pylist()
    listed = [{"scan_id": name, "reason": item.reason} for name, item in zip(names, bad, strict=True)]
    if identifiers == "kept":
        for entry, item in zip(listed, bad, strict=True):
            entry["file"] = item.file
    return listed


def _keep_names(private: pa.Table, catalog: Catalog, hidden: Catalog, items: list[Conformed], path: Path) -> None:
    """Write the list that leads from pseudonyms to names into the user's private folder, and say where it lies."""
    reasons = [""] * len(private)
    for item in items:
        reasons[item.row] = item.reason
    write_list(path, private.set_column(private.schema.get_field_index("reason"), "reason", [reasons]))
    say(f"names: the store holds pseudonyms only; the list that leads back lies in {path}, for your eyes.")
    dropped = [name for name in catalog.extra_columns if name not in hidden.extra_columns]
    if dropped:
        warn(
            f"left out, as they may lead to a person: the columns {', '.join(dropped)} (--target keeps the one that it "
            "names, --identifiers kept keeps all)."
        )


def _tell(
    info: dict[str, Any],
    catalog: Catalog,
    good: list[Conformed],
    bad: list[Conformed],
    equal: list[np.ndarray],
    splits: dict[str, np.ndarray],
) -> None:
    size, spacing = info["settings"]["size"], info["settings"]["spacing"]
    grid = " x ".join(map(str, size)) if size else "each on its own grid"
    if spacing:
        grid = " x ".join(f"{mm:g}" for mm in spacing) + " mm"
    masks = sum(item.masked for item in good)
    names = info["mask_classes"]
    classes = "1 class" if len(names) == 1 else f"{len(names)} classes"
    if len(names) <= SHOWN_CLASSES and not all(name.isdecimal() for name in names):
        classes = ", ".join(names)
    patients = catalog.count_patients(np.arange(len(catalog)))
    say(
        f"{len(good)} scans of {patients} patients, {info['spatial_dims']}D, {grid}, "
        f"{info['dtype']}" + (f", {masks} with masks of {classes}" if masks else "") + "."
    )
    windows = info["intensity"]["window"]
    shown = {name: w if isinstance(w, str) else "{:g}..{:g}".format(*w) for name, w in windows.items()}
    each = [chosen if [*shown] == ["unknown"] else f"{chosen} for {name}" for name, chosen in shown.items()]
    say("window: " + ", ".join(each))
    say("split by patient: " + ", ".join(f"{name} {len(rows)}" for name, rows in splits.items()))
    if equal:
        warn(f"{info['equal_scans']} scans are equal to the last byte to a scan of another patient.")
    if info["notes"]:
        say(f"worth knowing of some scans:\n{lines(info['notes'])}")
    if bad:
        say(f"scans left out: {len(bad)}, listed in store.json with the reason.")
