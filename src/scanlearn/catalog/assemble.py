"""The last step of every source: what the user said, what headers say and what can be guessed, as a catalogue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scanlearn.catalog.dicom import Header
from scanlearn.catalog.files import scan_ids
from scanlearn.catalog.mapped import codes_of, encode
from scanlearn.catalog.masks import with_mask_names
from scanlearn.catalog.modality import as_dicom
from scanlearn.catalog.table import FIXED, Catalog

_FROM_HEADER = {"patient_id": "patient", "study_id": "study", "modality": "modality", "view": "view"}
Cells: TypeAlias = Sequence[str] | pa.Array  # sources of a million scans give Arrow


@dataclass
class Found:
    """The N scans of a source. ``headers`` are None for scans that are not DICOM, or there are none at all."""

    names: Cells  # distinct relative paths, from which the scan ids are made
    paths: Sequence[Sequence[str]] | pa.Array  # absolute
    masks: Cells  # absolute, "" for none
    headers: Sequence[Header | None]
    dataset: str
    said: dict[str, Cells] = field(default_factory=dict)  # fixed columns as the user gave them, "" for no word
    labels: Mapping[str, Any] = field(default_factory=dict)
    mask_names: Mapping[int, str] = field(default_factory=dict)  # what the values in the masks are called
    broken: Sequence[bool] = ()  # DICOM files whose header is damaged: nobody needs to know their patient


def assemble(found: Found) -> Catalog:
    """Build the catalogue. What the user said wins over the header.

    A scan whose patient nobody names shares a guessed one with the scans of its study, or under its mask (channels or
    sequences of one examination); ``patients_known`` is then False, except where only broken files are concerned, which
    nobody will be able to read. A label column called like a fixed one gets another name.
    """
    ids = scan_ids(_words(found.names))
    masks = _words(found.masks)
    told = {name: _told(found, name, len(ids)) for name in _FROM_HEADER}
    told["modality"] = as_dicom(told["modality"])
    nameless = pc.equal(told["patient_id"], "")
    known = not pc.any(pc.and_not(nameless, pa.array(found.broken)) if found.broken else nameless).as_py()
    if not known:
        for guess in (told["study_id"], _first_of_several(masks, ids)):
            told["patient_id"] = pc.if_else(pc.equal(told["patient_id"], ""), guess, told["patient_id"])
    blank = _same("", len(ids))
    columns: dict[str, Any] = {
        "scan_id": ids,
        "paths": found.paths,
        "dataset": found.said.get("dataset", _same(found.dataset, len(ids))),
        **told,
        "split": found.said.get("split", blank),
        "mask_path": masks,
        "sha256": found.said.get("sha256", blank),
        **{f"{name}_in_table" if name in FIXED.names else name: cells for name, cells in found.labels.items()},
    }
    catalog = Catalog.from_columns(columns, patients_known=known)
    return Catalog(with_mask_names(catalog.table, found.mask_names), known) if found.mask_names else catalog


def _told(found: Found, name: str, count: int) -> pa.Array:
    """A fixed column by what the user said, else by the headers."""
    words = _words(found.said[name]) if name in found.said else _same("", count)
    if not any(found.headers):
        return words
    of_headers = pa.array([getattr(header, _FROM_HEADER[name], "") for header in found.headers], pa.string())
    return pc.if_else(pc.equal(words, ""), of_headers, words)


def _first_of_several(masks: pa.Array, ids: pa.Array) -> pa.Array:
    """The id of the first scan under each scan's mask, "" where it has no mask or one of its own."""
    mask = codes_of(encode(masks))
    _, first, of_mask, often = np.unique(mask, return_index=True, return_inverse=True, return_counts=True)
    several = pa.array((often[of_mask] > 1) & (mask > 0))
    return pc.if_else(several, ids.take(pa.array(first[of_mask])), "")


def _words(cells: Cells) -> pa.Array:
    return cells if isinstance(cells, pa.Array) else pa.array(cells, pa.string())


def _same(word: str, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(word, pa.string()), count)
