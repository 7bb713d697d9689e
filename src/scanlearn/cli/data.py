"""Verbs that turn files into stores, and stores into words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from scanlearn.cli.words import POSITIONAL
from scanlearn.errors import ScanlearnError


def prepare(
    source: str,
    out: str,
    size: list[int] | None = None,
    spacing: list[float] | None = None,
    window: str | None = None,
    fit: Literal["pad", "stretch"] = "pad",
    target: str | None = None,
    patient: str | None = None,
    mask: str | None = None,
    layout: str | None = None,
    split: str | None = None,
    boxes: str | None = None,
    also: list[str] | None = None,
    slices: Literal["axial", "coronal", "sagittal"] | None = None,
    slice_every: int = 1,
    slice_body: float = 0.0,
    slice_label: str | None = None,
    slice_turned: Literal["patient", "file"] = "patient",
    seed: int = 0,
    workers: int | None = None,
    overwrite: bool = False,
    strict: bool = False,
    dry_run: bool = False,
    identifiers: Literal["hashed", "kept"] = "hashed",
    max_scan_bytes: str | None = None,
    max_scan_seconds: float = 600.0,
) -> None:
    """Turn a folder or table of scans into a store that training reads fast.

    Look first: --dry-run says how many scans, patients and labels there are, what would be left out, and how large the
    store becomes. What was interrupted, even by a kill or a full disk, goes on when the same command is given again.
    Scans that cannot be used are left out, counted by reason, and listed in OUT/store.json.

    Args:
        source: a folder of scans or mixed DICOM, nnU-Net, Decathlon or BIDS, a table (CSV), a dataset.json, or an .npz.
        out: the store to write; one that was made from the same files and settings is kept.
        size: pixels of 2D scans, e.g. --size '[256, 256]'; 3D scans keep their grid unless --spacing is given.
        spacing: voxel size in mm to resample 3D scans to, e.g. --spacing '[1, 1, 2]'.
        window: HU window by name (lung, soft_tissue, bone, brain, genesis, ...) or 'low,high'; with --also one for each
            data set, '{deeplesion: soft_tissue, lidc: lung}'.
        fit: how 2D scans of other shapes are brought to size: pad keeps the proportions, stretch does not.
        target: label column by which the split into train/val/test is stratified.
        patient: column that says whose scan it is, folder (each sub-folder is a patient) or e.g. 'regex:(P[0-9]+)_'.
        mask: column with the path of the segmentation mask (guessed from the usual names).
        layout: the public data set that the folder holds (covid_ct, ...), where it is not recognised; none for a plain folder.
        boxes: a table of boxes around findings (patientId,x,y,width,height) for `finetune --task detect`.
        split: a published split of that data set by name, none for a random one, or a file that `catalog split` wrote.
        also: other sources for the same store, each a data set of its own; patient, mask, layout, split, boxes are of the first.
        slices: take volumes apart into 2D scans, each volume decoded once; 2D scans stay as they are.
        slice-every: each n-th slice.
        slice-body: leave out slices of which less than this share shows the patient, e.g. 0.1.
        slice-label: label column from the mask of a slice, e.g. lesion=1,2 for present where 1 or 2 is in it.
        slice-turned: patient shows slices as radiologists see them, by the affine; file goes by the order of the voxels.
        seed: of the split.
        workers: processes that read (one for each core by default); 0 reads in this process.
        overwrite: replace a store that was made from other files or settings.
        strict: stop at the first scan that cannot be used instead of leaving it out; the private list names its file.
        dry-run: write nothing; look at the headers and a few scans, and say what would be written.
        identifiers: hashed puts pseudonyms of scans and patients into the store; kept puts their names there.
        max-scan-bytes: scans larger than this once decoded are left out, e.g. 8GB (4 GiB by default).
        max-scan-seconds: scans that take longer to read are left out.
    """
    given = dict(locals())
    from scanlearn.console import next_command
    from scanlearn.scans.prepare import prepare as run
    from scanlearn.scans.slices import slicing_of

    found = run(
        source,
        out,
        size=tuple(size) if size else None,
        spacing=tuple(spacing) if spacing else None,
        window=_windows(window),
        fit=fit,
        target=target,
        patient=patient,
        mask=mask,
        layout=layout,
        split=split,
        boxes=boxes,
        also=also or (),
        slices=slicing_of(slices, slice_every, slice_body, slice_label, slice_turned),
        seed=seed,
        workers=workers,
        overwrite=overwrite,
        strict=strict,
        dry_run=dry_run,
        identifiers=identifiers,
        max_scan_bytes=_bytes(max_scan_bytes),
        max_scan_seconds=max_scan_seconds,
    )
    if dry_run:
        print(found)
        next_command(_again(prepare, given, without="dry_run"))
        return
    recipe = "moco_v2_small" if found.spatial_dims == 2 else "models_genesis_3d_small"
    next_command(f"scanlearn pretrain {out} --recipe {recipe} --out runs/{recipe}")


def _again(verb: Callable[..., None], given: dict[str, Any], without: str) -> str:
    """The command that was given, without one of its options."""
    import inspect
    import shlex

    words = ["scanlearn", verb.__name__]
    for name, parameter in inspect.signature(verb).parameters.items():
        if name in POSITIONAL.get(verb.__name__, ()):
            words.append(str(given[name]))
        elif given[name] != parameter.default and name != without:
            words += ["--" + name.replace("_", "-"), *([] if given[name] is True else [str(given[name])])]
    return shlex.join(words)


def _bytes(text: str | None) -> int | None:
    import re

    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kMGT]?)i?B?", text, re.IGNORECASE)
    if found is None or float(found[1]) == 0:
        raise ScanlearnError(f"--max-scan-bytes takes a size such as 500MB or 8GB, not {text!r}.")
    return int(float(found[1]) * 1024 ** " KMGT".index(found[2].upper() or " "))


def _windows(text: str | None) -> Any:
    """One window, or one for each data set that '{NAME: window, ...}' names."""
    import yaml

    if text is None or not text.startswith("{"):
        return None if text is None else _window(text)
    try:
        named = yaml.safe_load(text)
        return {name: _window(given) if isinstance(given, str) else given for name, given in named.items()}
    except yaml.YAMLError as error:
        raise ScanlearnError(f"--window takes '{{NAME: window, ...}}' for several data sets, not {text!r}.") from error


def _window(text: str) -> str | tuple[float, float]:
    if "," not in text:
        return text
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise ScanlearnError(f"--window takes a name or 'low,high' in HU, not {text!r}.") from error
    return low, high


def names(store: str, out: str | None = None) -> None:
    """Lead back from the pseudonyms of a store or of predictions to names and files, and say why scans were left out.

    Only who made them can: the list lies in that user's private folder (SCANLEARN_PRIVATE).

    Args:
        store: what `prepare` or `predict` wrote.
        out: a CSV file to write, for its owner's eyes only; without it the table is printed.
    """
    from scanlearn.console import next_command
    from scanlearn.scans.names import names_of, write_csv
    from scanlearn.scans.store import open_store

    sink = Path(out) if out else None
    if (Path(store) / "predictions.json").is_file():
        from scanlearn.tasks.way_back import names_of_predictions

        write_csv(names_of_predictions(Path(store)), sink)
        return
    write_csv(names_of(open_store(store)), sink)
    next_command(f"scanlearn pretrain {store} --recipe moco_v2_small --out runs/moco_v2_small")


def discover(
    store: str,
    out: str,
    neighbours: float | None = None,
    neighbours_val: float | None = None,
    classes: int | None = None,
    size: list[float] | None = None,
    extra_crops: int = 2,
    reference: Literal["per_class", "shared"] = "per_class",
    coordinate_space: Literal["normalised", "voxel", "mm"] = "normalised",
    small: Literal["pad", "skip"] = "pad",
    tissue: Literal["general", "lung", "none"] = "general",
    margins: list[float] | None = None,
    apart: float = 5.0,
    tries: int = 200,
    per_patient: int = 1,
    autoencoder: str | None = None,
    skips: bool = False,
    encoder: str | None = None,
    seed: int = 0,
    workers: int = 0,
) -> None:
    """Find places that recur in similar patients: the words that Semantic Genesis and TransVW learn from.

    OUT gets a table of crops by word, a few MB; no voxel is copied. What was interrupted goes on when the same command
    is given again. Validation patients get words of their own crops; the test part is never read.

    Args:
        store: what `prepare` wrote.
        out: the folder to write.
        neighbours: scans of a word, a number or a share of the patients below 1 (200 in 3D, 1000 in 2D, or 45 %).
        neighbours-val: the same for validation patients (30).
        classes: words (44 in 3D, 100 in 2D, half of the patients at most).
        size: of a crop, voxels or shares of a scan up to 1, e.g. --size 64 64 32 (the default, where it fits).
        extra-crops: crops of each training scan at other scales, beside the one at base scale.
        reference: per_class takes another reference patient for each word, shared one for all.
        coordinate-space: the same place is the same share of the scan (normalised), the same voxel, or the same mm.
        small: scans that a crop would reach out of are padded (pad) or passed over (skip).
        tissue: what a crop must show; lung is the published test, for CT in the window genesis.
        margins: between the edge of a reference and a crop, voxels or shares of the scan below 1.
        apart: voxels, at least, between two places.
        tries: places looked at on one reference before another is taken.
        per-patient: scans of one patient in a word, at most; 0 takes rows, such as slices, as they are.
        autoencoder: recipe of the auto-encoder (autoencoder_3d_small or autoencoder_2d_small) or a YAML file.
        skips: give the auto-encoder skips, as the released code has them.
        encoder: a run, encoder folder or .safetensors file whose features are taken instead of an auto-encoder's.
        seed: of everything that is drawn.
        workers: processes that read while the auto-encoder is trained.
    """
    from scanlearn.console import next_command, say
    from scanlearn.discovery.discover import discover as run

    words = run(
        store,
        out,
        neighbours=neighbours,
        neighbours_val=neighbours_val,
        classes=classes,
        size=size,
        extra_crops=extra_crops,
        reference=reference,
        coordinate_space=coordinate_space,
        small=small,
        tissue=tissue,
        margins=margins,
        apart=apart,
        tries=tries,
        per_patient=per_patient or None,
        autoencoder=autoencoder,
        skips=skips,
        encoder=encoder,
        seed=seed,
        workers=workers,
    )
    say(f"Look at them: scanlearn report {out} --store {store}")
    recipe = f"semantic_genesis_{len(words.size)}d_small"
    next_command(f"scanlearn pretrain {store} --recipe {recipe} --words {out} --out runs/{recipe}")
