"""The modality of a scan as DICOM writes it (CT, MR, PT, US), from what people call it and from the words in paths."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from scanlearn.catalog.cells import per_cell, per_word

# Names of modalities, however they are written; a column of them keeps every other word, which may be a label.
_NAMES = {"ct": "CT", "mr": "MR", "mri": "MR", "pet": "PT", "pt": "PT", "us": "US", "ultrasound": "US"}
# What a channel may be called besides.
_CHANNELS = {
    **_NAMES,
    **dict.fromkeys(("cta", "cect", "nect", "ncct"), "CT"),
    **dict.fromkeys(("t1", "t1w", "t1ce", "t1gd", "t1c", "t2", "t2w", "flair", "adc", "dwi", "pd"), "MR"),
}
# In paths, where T1 is also a point in time, PT a patient and US a country.
_PATHS = {word: found for word, found in _CHANNELS.items() if word not in ("t1", "t1c", "t2", "pd", "pt", "us")}
_IN_PATH = re.compile(rf"(?<![a-z0-9])(?:{'|'.join(_PATHS)})(?![a-z0-9])")
_SOMEWHERE = rf"(?i)(?:^|[^a-z0-9])(?:{'|'.join(_PATHS)})(?:[^a-z0-9]|$)"  # the same for Arrow


def modality_of(channels: Iterable[str]) -> str:
    """The modality that all channels of a scan share, "" if they differ or say nothing of it."""
    found = {_CHANNELS.get(_letters(name), "") for name in channels}
    return found.pop() if len(found) == 1 else ""


def as_dicom(words: pa.Array) -> pa.Array:
    """A column of modalities in DICOM's words: "ct" and "Ct" are "CT", "MRI" is "MR", other words stay."""
    return per_word(words, lambda word: _NAMES.get(_letters(word), word))


def modality_in(path: str) -> str:
    """What the words in a path say of the modality: the file's name, else the folder next to it that says anything.

    >>> modality_in("a/CT_image.nii.gz"), modality_in("MR/p1/x.nii"), modality_in("pet_ct/x.nii"), modality_in("act.nii")
    ('CT', 'MR', '', '')
    """
    path = path.lower()
    if not _IN_PATH.search(path):
        return ""
    for part in reversed(path.split("/")):
        found = {_PATHS[word] for word in _IN_PATH.findall(part)}
        if found:
            return found.pop() if len(found) == 1 else ""
    return ""


def modalities_in(paths: pa.Array) -> pa.Array:
    """``modality_in`` of each path."""
    some = pc.match_substring_regex(paths, _SOMEWHERE)
    return pc.if_else(some, per_cell(paths, some, modality_in), "")


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", name.lower())
