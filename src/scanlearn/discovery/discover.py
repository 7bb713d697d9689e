"""Self-discovery: similar patients, places on them, and the table of crops that show the same place.

Source: Haghighi et al., "Semantic Genesis", MICCAI 2020; spec_genesis §1.2-§1.4. A volume is opened for its thumbnail,
as a reference, and for the sample that the recurrence is measured on; no crop is copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from scanlearn.console import say
from scanlearn.discovery.coordinates import Places, Search, find_places
from scanlearn.discovery.crops import Layout, table_of
from scanlearn.discovery.descriptors import Source
from scanlearn.discovery.folder import AUTOENCODER, tidy, words_there, working
from scanlearn.discovery.frame import Frame
from scanlearn.discovery.plan import (
    NEIGHBOURS,
    NEIGHBOURS_VAL,
    Part,
    check_options,
    classes_of,
    margin_of,
    median_spacing,
    neighbours_of,
    part_of,
    size_of,
    warn_of_axes,
)
from scanlearn.discovery.recurrence import recurrence, recurrence_line
from scanlearn.discovery.tissue import tissue_of
from scanlearn.engine.leaks import keep_apart, not_seen
from scanlearn.errors import unknown
from scanlearn.files import size as readable
from scanlearn.scans.store import Store, open_store
from scanlearn.scans.words import TABLE, Words, open_words, write_words

SMALL = ("pad", "skip")


def discover(
    store: str | Path | Store,
    out: str | Path,
    *,
    neighbours: float | None = None,
    neighbours_val: float | None = None,
    classes: int | None = None,
    size: Sequence[float] | float | None = None,
    extra_crops: int = 2,
    reference: str = "per_class",
    coordinate_space: str = "normalised",
    small: str = "pad",
    tissue: str = "general",
    margins: Sequence[float] | float | None = None,
    apart: float = 5.0,
    tries: int = 200,
    per_patient: int | None = 1,
    autoencoder: str | Path | None = None,
    skips: bool = False,
    settings: dict[str, Any] | None = None,
    encoder: str | Path | None = None,
    descriptors: Any = None,
    seed: int = 0,
    workers: int = 0,
) -> Words:
    """Discover words in the train part of a store and write them to the folder ``out``; the test part is never read.

    Interrupted, the same call goes on with the thumbnails, the training and the descriptors that are there.

    Args:
        store: what ``prepare`` wrote.
        out: folder of the table; one that was made from the same store and settings is kept.
        neighbours: K, scans of a word, the reference among them: a number, or a share of the patients (below 1).
            By default 200 (3D) or 1000 (2D), or 45 % of the patients where these are fewer.
        neighbours_val: the same for validation patients, by default 30.
        classes: C, by default 44 (3D) or 100 (2D); with a reference for each, at most half of the patients.
        size: of a crop, in voxels or in shares (at most 1) of the median scan; one number stands for all axes. By
            default 64x64x32 or 224x224, or about half of the median scan where that does not fit.
        extra_crops: crops of each training scan at other scales, beside the base crop.
        reference: ``per_class``, another reference patient for each word (as released), or ``shared`` (as in the paper).
        coordinate_space: ``normalised``, ``voxel`` or ``mm``; see ``Frame``.
        small: what becomes of scans in which a crop would reach over the edge: ``pad`` or ``skip``.
        tissue: what a crop must show: ``general``, ``lung`` (as released, for CT in the window genesis) or ``none``.
        margins: between the edge of a reference and a crop, voxels (from 1 on) or shares of its side.
        apart: voxels, at least, between two places.
        tries: places that are looked at on one reference.
        per_patient: scans of one patient in a word, at most; None where rows, such as slices, are units of their own.
        autoencoder: recipe of the auto-encoder, by default autoencoder_3d_small or autoencoder_2d_small.
        skips: give it the skips of the released code.
        settings: other settings of that recipe, ``{"steps": 100}``.
        encoder: a run, encoder folder or .safetensors file whose features are taken instead.
        descriptors: or an array (scans of the store, d); a ``np.memmap`` is not read whole.
        seed: of everything that is drawn.
        workers: reading processes while the auto-encoder is trained.

    Raises:
        ScanlearnError: too few patients, scans too small, no crop that passes the test, another window than the test
            is for, a folder that holds other words, an encoder that was trained on the test part.
    """
    store = store if isinstance(store, Store) else open_store(store)
    out, dims = Path(out), store.spatial_dims
    train, val = (part_of(store, name, per_patient) for name in ("train", "val"))
    check_options(store, train, extra_crops, per_patient, apart, tries)
    if small not in SMALL:
        raise unknown("way with small scans", small, SMALL)
    source = Source(store, autoencoder, skips, settings, encoder, descriptors)
    test = tissue_of(tissue, store, train.rows)
    crop = size_of(size, store, train.rows)
    margin = margin_of(margins, test.margin, dims)
    search = Search(Frame(coordinate_space, crop, median_spacing(store, train.rows)), test, margin, apart, tries, seed)
    count = classes_of(classes, dims, train, reference)
    k = neighbours_of(neighbours, NEIGHBOURS[dims], train, per_patient, "--neighbours")
    k_val = neighbours_of(neighbours_val, NEIGHBOURS_VAL, val, per_patient, "--neighbours-val")
    told = {
        **{"neighbours": k, "neighbours_val": k_val, "classes": count, "extra_crops": extra_crops, "size": list(crop)},
        **{"reference": reference, "coordinate_space": coordinate_space, "small": small, "tissue": test.told()},
        **{"margins": list(margin), "apart": float(apart), "tries": tries, "per_patient": per_patient, "seed": seed},
        "descriptors": source.told,
    }
    there = words_there(out, store, told)
    if there is not None:
        return there
    checked = keep_apart(store, {name: part.rows for name, part in (("train", train), ("val", val))})
    checked.add(not_seen(encoder, store))  # words carry what their encoder knows
    warn_of_axes(store, train.rows)
    layout = Layout(store, coordinate_space == "mm")
    places = find_places(store, train.rows, train.patients, count, search, reference)  # may fail, so before training
    with working(out, {"store": store.info["key"], "seed": seed, "descriptors": source.told}) as work:
        rows = np.sort(np.concatenate([train.rows, val.rows]))
        described = source.describe(rows, out / AUTOENCODER, work, seed, workers)
        columns = table_of(
            described,
            places,
            search.frame,
            layout,
            [(train, k, extra_crops), (val, k_val, 0)],
            per_patient=per_patient,
            skip_small=small == "skip",
            seed=seed,
        )
        found = {**_measured((train, val), places), "descriptor_width": int(described.values.shape[1])}
        found["checked"] = asdict(checked)
        found["recurrence"] = recurrence(store, columns, crop)
        write_words(out, store=store.info["key"], size=crop, settings={**told, **found}, **columns)
    tidy(out)
    table = readable((out / TABLE).stat().st_size)
    say(f"{count} words of {k} + {k_val} scans: {len(columns['word']):,} crops in a table of {table}.")
    say(recurrence_line(found["recurrence"]))
    return open_words(out, store)


def _measured(parts: tuple[Part, Part], places: Places) -> dict[str, Any]:
    """For the table: who was there, where the places are, how many references failed."""
    return {
        "scans": {part.name: len(part.rows) for part in parts},
        "patients": {part.name: len(np.unique(part.patients)) for part in parts},
        "points": [[round(float(x), 6) for x in point] for point in places.points],
        "references_too_small": places.small,
        "references_without_a_place": places.failed + places.crowded,
    }
