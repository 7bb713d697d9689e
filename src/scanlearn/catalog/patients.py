"""Whose scan a file is, by a pattern over its name: ``patient="regex:(P[0-9]+)_"``."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pyarrow as pa

from scanlearn.catalog.cells import blocks
from scanlearn.errors import ScanlearnError

FOLDER = "folder"  # patient="folder": each sub-folder is a patient
PREFIX = "regex:"


def is_column(patient: str | None) -> bool:
    """Whether ``patient`` names a column, and is no pattern and not the word "folder"."""
    return patient is not None and patient != FOLDER and not patient.startswith(PREFIX)


def patients_by_pattern(patient: str | None, scans: Sequence[Sequence[str]] | pa.Array) -> dict[str, list[str]]:
    """``{"patient_id": [...], "study_id": [...]}`` for N scans, or {} if ``patient`` is no pattern.

    ``scans`` holds the files of each scan, relative to the source with "/" between folders. The pattern is searched
    anywhere in them. The patient is the group called ``(?P<patient>...)``, or else the first group that took part in
    the match, so that ``(person[0-9]+)_|(IM-[0-9]+)`` works; a group called ``study`` tells the study.

    Raises ScanlearnError for an invalid pattern, one without a group, files it does not match (how many), or a scan
    whose files name several patients.
    """
    if patient is None or not patient.startswith(PREFIX):
        return {}
    pattern = _compiled(patient.removeprefix(PREFIX))
    people, studies, unmatched, several = list[str](), list[str](), 0, 0
    rows = scans if isinstance(scans, pa.Array) else pa.array(scans, pa.list_(pa.string()))
    for found in ({_read(pattern, file) for file in files} for block in blocks(rows) for files in block):
        unmatched += ("", "") in found
        several += len({person for person, _ in found}) > 1
        person, study = min(found)
        people.append(person)
        studies.append(f"{person}_{study}" if study else "")
    if unmatched:
        raise ScanlearnError(
            f"The pattern {patient!r} finds no patient in the names of {unmatched:,} of {len(scans):,} scans; it must "
            "match every one (several spellings are written with | between them)."
        )
    if several:
        raise ScanlearnError(
            f"The pattern {patient!r} finds several patients in the files of one scan, {several:,} times; let it look "
            "at the folder."
        )
    return {"patient_id": people, **({"study_id": studies} if "study" in pattern.groupindex else {})}


def _compiled(text: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise ScanlearnError(f"The pattern {text!r} is no regular expression ({error}).") from error
    if "patient" not in pattern.groupindex and pattern.groups == len({"study"} & {*pattern.groupindex}):
        raise ScanlearnError(
            f"The pattern {text!r} does not say which part is the patient; put it in parentheses: 'regex:(P[0-9]+)_'."
        )
    return pattern


def _read(pattern: re.Pattern[str], file: str) -> tuple[str, str]:
    """(patient, study) in a file's name; ("", "") where there is no patient."""
    match = pattern.search(file)
    if match is None:
        return "", ""
    named = pattern.groupindex
    study = (match["study"] or "") if "study" in named else ""
    if "patient" in named:
        person = match["patient"] or ""
    else:
        groups = (match[i] for i in range(1, pattern.groups + 1) if i != named.get("study"))
        person = next((group for group in groups if group), "")
    return (person.strip(), study.strip()) if person.strip() else ("", "")
