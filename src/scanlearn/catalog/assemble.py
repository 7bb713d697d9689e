"""The last step of every source: what the user said, what headers say and what can be guessed, as a catalogue."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from scanlearn.catalog.dicom import Header
from scanlearn.catalog.files import scan_ids
from scanlearn.catalog.masks import with_mask_names
from scanlearn.catalog.modality import as_dicom
from scanlearn.catalog.table import FIXED, Catalog

_FROM_HEADER = {"patient_id": "patient", "study_id": "study", "modality": "modality", "view": "view"}


@dataclass
class Found:
    """The N scans of a source. ``headers`` are None for scans that are not DICOM."""

    names: list[str]  # distinct relative paths, from which the scan ids are made
    paths: Sequence[Sequence[str]] | pa.Array  # absolute
    masks: list[str]  # absolute, "" for none
    headers: list[Header | None]
    dataset: str
    said: dict[str, Sequence[str]] = field(default_factory=dict)  # fixed columns as the user gave them, "" for no word
    labels: Mapping[str, Any] = field(default_factory=dict)
    mask_names: Mapping[int, str] = field(default_factory=dict)  # what the values in the masks are called
    broken: Sequence[bool] = ()  # DICOM files whose header is damaged: nobody needs to know their patient


def assemble(found: Found) -> Catalog:
    """Build the catalogue. What the user said wins over the header.

    A scan whose patient nobody names shares a guessed one with the scans of its study, or under its mask (channels or
    sequences of one examination); ``patients_known`` is then False, except where only broken files are concerned, which
    nobody will be able to read. A label column called like a fixed one gets another name.
    """
    count = len(found.names)
    ids = scan_ids(found.names)
    blank = [""] * count
    told: dict[str, Sequence[str]] = {}
    for name, of_header in _FROM_HEADER.items():
        words = found.said.get(name, blank)
        if any(found.headers):
            words = [w or getattr(h, of_header, "") for w, h in zip(words, found.headers, strict=True)]
        told[name] = as_dicom(words) if name == "modality" else words
    broken = found.broken or [False] * count
    known = all(patient or bad for patient, bad in zip(told["patient_id"], broken, strict=True))
    if not known:
        under = Counter(mask for mask in found.masks if mask)
        name_of = dict(zip(reversed(found.masks), reversed(ids), strict=True))  # a mask goes by its first scan
        shared = [name_of[mask] if under[mask] > 1 else "" for mask in found.masks]
        guesses = zip(told["patient_id"], told["study_id"], shared, strict=True)
        told["patient_id"] = [patient or study or mask for patient, study, mask in guesses]
    columns: dict[str, Any] = {
        "scan_id": ids,
        "paths": found.paths,
        "dataset": found.said.get("dataset", [found.dataset] * count),
        **told,
        "split": found.said.get("split", blank),
        "mask_path": found.masks,
        "sha256": found.said.get("sha256", blank),
        **{f"{name}_in_table" if name in FIXED.names else name: cells for name, cells in found.labels.items()},
    }
    catalog = Catalog.from_columns(columns, patients_known=known)
    return Catalog(with_mask_names(catalog.table, found.mask_names), known) if found.mask_names else catalog
