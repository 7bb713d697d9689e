"""BIDS data sets: ``sub-01/ses-02/anat/sub-01_ses-02_T1w.nii.gz`` with ``participants.tsv`` and ``derivatives/``.

https://bids-specification.readthedocs.io
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from scanlearn.catalog.assemble import Found, assemble
from scanlearn.catalog.columns import normal, read_table
from scanlearn.catalog.files import stem_of
from scanlearn.catalog.listing import counting
from scanlearn.catalog.masks import SEQUENCES
from scanlearn.catalog.nifti import grid_of
from scanlearn.catalog.patients import patients_by_pattern
from scanlearn.catalog.table import Catalog
from scanlearn.console import say, warn
from scanlearn.errors import ScanlearnError

_PLACE = re.compile(r"(?:^|/)(sub-[A-Za-z0-9]+)(?:/(ses-[A-Za-z0-9]+))?/")
_TABLES = ("participants.tsv", "samples.tsv")
_MODALITIES = {
    **dict.fromkeys(("anat", "dwi", "func", "perf", "mrs"), "MR"),
    "pet": "PT",
    "ct": "CT",
    "micr": "SM",
}
_MASKS = ("mask", "dseg")
_NO_SCANS = ("probseg", "defacemask", "dparc", "physio", "events")
# Entities that only a derived file has; the others it shares with the scan it was made from.
_DERIVED = ("desc", "label", "space", "res", "den", "seg", "atlas", "hemi", "scale")
_OWN_SPACES = ("orig", "individual", "native", "scanner", "subject")


@dataclass(frozen=True)
class _Name:
    """The file sub-01_ses-1_acq-mp_T1w.nii.gz: entities {"acq": "mp", ...}, suffix "T1w", words ("T1w",)."""

    file: str
    place: tuple[str, str]  # patient and session
    entities: dict[str, str]
    suffix: str
    words: tuple[str, ...]


def patient_and_session(file: str) -> tuple[str, str]:
    """("sub-01", "ses-02") of a path, "" for what its folders do not tell.

    Where sub-01 lies deeper (several data sets in one folder) the patient keeps the folders above it.
    """
    match = _PLACE.search(file)
    if match is None:
        return "", ""
    above = file[: match.start(1)].rstrip("/")
    return (f"{above}/{match[1]}" if above else match[1]), match[2] or ""


def is_bids(files: list[str]) -> bool:
    """Whether a file is called like the subject's folder at the top in which it lies: sub-01/anat/sub-01_T1w.nii.gz."""
    return any(map(_is_raw, files))


def _is_raw(file: str) -> bool:
    return file.startswith("sub-") and file.rpartition("/")[2].startswith(file.partition("/")[0] + "_")


def is_bids_table(name: str) -> bool:
    """Whether a table belongs to BIDS and names no scans."""
    return name in _TABLES


def catalog_of_bids(root: Path, files: list[str], patient: str | None = None) -> Catalog:
    """List the scans in the subjects' folders of a BIDS data set.

    Patients are the subjects, studies their sessions, ``view`` is the suffix (T1w) and ``modality`` follows from the
    folder (anat). The columns of participants.tsv become labels. A mask (``_mask``, ``_dseg``), raw or derived, belongs
    to the scans of its session that share its entities and its grid; of several kinds the one with most scans is
    taken. Left out and counted: field maps, files of several volumes over time, sourcedata and other derivatives.

    Raises ScanlearnError if nothing is left, or for a participants.tsv that is no table of participants.
    """
    raw = [_parse(file) for file in files if _is_raw(file)]
    derived = [_parse(file) for file in files if file.startswith("derivatives/") and _PLACE.search(file)]
    masks = [name for name in (*raw, *derived) if name.suffix in _MASKS]
    images = _images(root, raw, len(files) - len(raw) - sum(name.suffix in _MASKS for name in derived))
    if not images:
        raise ScanlearnError(f"There is no scan in the folders sub-... of {root} that could be used.")
    mask_of = _match(root, images, masks)
    labels = _participants(root, images)
    scans = [[name.file] for name in images]
    found = Found(
        names=[name.file for name in images],
        paths=[[f"{root}/{name.file}"] for name in images],
        masks=[f"{root}/{mask_of[name.file]}" if name.file in mask_of else "" for name in images],
        headers=[None] * len(images),
        dataset=root.name,
        said={
            "patient_id": [name.place[0] for name in images],
            "study_id": ["_".join(name.place) if name.place[1] else "" for name in images],
            "modality": [_MODALITIES.get(_datatype(name.file), "") for name in images],
            "view": [name.suffix for name in images],
            **patients_by_pattern(patient, scans),
        },
        labels=labels,
    )
    views = Counter(name.suffix or "other" for name in images).most_common(6)
    shown = ", ".join(f"{view} {count:,}" for view, count in views)
    people = len({name.place[0] for name in images})
    say(f"BIDS: {len(images):,} scans ({shown}) of {people:,} participants; labels: {', '.join(labels) or 'none'}.")
    return assemble(found)


def _parse(file: str) -> _Name:
    parts = stem_of(file.rpartition("/")[2]).split("_")
    entities = dict(part.split("-", 1) for part in parts if "-" in part)
    words = tuple(part for part in parts if "-" not in part) if "sub" in entities else ()
    patient, session = patient_and_session(file)
    return _Name(file, (patient.rpartition("/")[2], session), entities, words[-1] if words else "", words)


def _datatype(file: str) -> str:
    """The folder that says what kind of scan it is: anat, dwi, pet, ..."""
    return file.split("/")[-2]


def _images(root: Path, raw: list[_Name], elsewhere: int) -> list[_Name]:
    """The raw files that are scans; how many are not, and why, is said."""
    fieldmaps = {name.file for name in raw if _datatype(name.file) == "fmap"}
    kept = [name for name in raw if name.file not in fieldmaps and name.suffix not in (*_MASKS, *_NO_SCANS)]
    over_time = set()
    with counting("reading headers") as count:
        for name in kept:
            grid = grid_of(root / name.file) if _datatype(name.file) != "anat" or name.suffix == "bold" else None
            if grid is not None and len(grid[0]) > 3:
                over_time.add(name.file)
            count(1)
    left = (
        (len(over_time), "files of several volumes (bold, dwi, ...)"),
        (len(fieldmaps), "field maps"),
        (elsewhere, "files of derivatives, sourcedata or without a BIDS name"),
    )
    told = ", ".join(f"{number:,} {what}" for number, what in left if number)
    if told:
        say(f"Left out: {told}.")
    return [name for name in kept if name.file not in over_time]


def _match(root: Path, images: list[_Name], masks: list[_Name]) -> dict[str, str]:
    """{scan: mask}: of each session the scans that share the mask's entities and its grid."""
    of_place: dict[tuple[str, str], list[_Name]] = defaultdict(list)
    for image in images:
        of_place[image.place].append(image)
    by_kind: dict[str, dict[str, str]] = defaultdict(dict)
    ambiguous: set[str] = set()
    with counting("matching masks") as count:
        for mask in masks:
            kind = _kind(mask)
            grid = grid_of(root / mask.file)
            for image in _related(mask, of_place[mask.place]):
                if grid is not None and grid_of(root / image.file) == grid:
                    ambiguous |= {f"{kind} {image.file}"} if image.file in by_kind[kind] else set()
                    by_kind[kind][image.file] = mask.file
            count(1)
    for kind, pairs in by_kind.items():
        by_kind[kind] = {image: mask for image, mask in pairs.items() if f"{kind} {image}" not in ambiguous}
    kinds = sorted((kind for kind in by_kind if by_kind[kind]), key=lambda kind: (-len(by_kind[kind]), kind))
    chosen = by_kind[kinds[0]] if kinds else {}
    if chosen:
        others = f"; other masks are left out: {', '.join(kinds[1:7])}" if kinds[1:] else ""
        say(f"{len(chosen):,} of {len(images):,} scans have a mask ({kinds[0]}){others}.")
    lost = len(masks) - len({mask for pairs in by_kind.values() for mask in pairs.values()})
    if lost:
        warn(f"{lost:,} masks fit no scan of their session by name and grid, or not they alone; they are left out.")
    return chosen


def _kind(mask: _Name) -> str:
    """What masks of one purpose share: "derivatives/lesions desc-t1_mask"."""
    pipeline = "/".join(mask.file.split("/")[:2]) + " " if mask.file.startswith("derivatives/") else ""
    told = [f"{key}-{mask.entities[key]}" for key in ("seg", "atlas", "label", "desc") if key in mask.entities]
    return pipeline + "_".join([*told, mask.suffix])


def _related(mask: _Name, images: list[_Name]) -> list[_Name]:
    """The scans of a session that a mask may outline, by the entities and the space in their names."""
    space = mask.entities.get("space", "")
    shared = {key: value for key, value in mask.entities.items() if key not in _DERIVED}
    words = {word.lower() for word in (*mask.words[:-1], space)} & {*SEQUENCES, *(i.suffix.lower() for i in images)}
    return [
        image
        for image in images
        if all(image.entities.get(key) == value for key, value in shared.items())
        and (not words or image.suffix.lower() in words)
        and (not space or bool(words) or space.lower() in _OWN_SPACES or image.entities.get("space") == space)
    ]


def _participants(root: Path, images: list[_Name]) -> dict[str, Any]:
    """The columns of participants.tsv for each scan, "" for "n/a" and for subjects that it lacks."""
    path = root / "participants.tsv"
    if not path.is_file():
        return {}
    table = read_table(path)
    column = next((name for name in table.column_names if normal(name) == "participant_id"), None)
    if column is None:
        raise ScanlearnError(f"{path} has no column participant_id; add it, or take the file away.")
    ids = [cell if cell.startswith("sub-") else f"sub-{cell}" for cell in table[column].to_pylist()]
    if len({*ids}) < len(ids):
        raise ScanlearnError(f"{path} names {len(ids) - len({*ids})} participants twice; give each one row.")
    wanted = pa.array([name.place[0] for name in images], pa.string())
    rows = pc.index_in(wanted, value_set=pa.array(ids, pa.string()))
    lacking = len({*wanted.filter(pc.is_null(rows)).to_pylist()})
    if lacking:
        warn(f"{lacking:,} participants with scans are not in participants.tsv; their labels are blank.")
    labels = {}
    for name in table.column_names:
        if name != column:
            cells = pc.fill_null(table[name].combine_chunks().take(rows), "")
            labels[name] = pc.if_else(pc.is_in(pc.utf8_lower(cells), pa.array(["n/a", "na"])), "", cells)
    return labels
