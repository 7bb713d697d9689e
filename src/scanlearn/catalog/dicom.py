"""What a DICOM header says about whose scan it is; identifiers leave this file only as hashes."""

from __future__ import annotations

import os
import warnings
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from scanlearn.catalog.files import short_hash
from scanlearn.console import track, warn

_TAGS = (
    *("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber", "Modality", "ViewPosition"),
    *("Rows", "ImagePositionPatient"),
)
_NO_SCANS = ("SEG", "RTDOSE")  # they have rows of pixels, but lie over another scan


@dataclass(frozen=True)
class Header:
    """What the catalogue needs of one DICOM file. ``patient`` and ``study`` are hashes, "" where the file has none."""

    patient: str
    study: str
    series: tuple[int, str]  # number and hashed UID: what tells the series of one folder apart
    modality: str
    view: str
    is_image: bool
    is_slice: bool  # has a place in the patient, so it belongs to a stack


def hashed(kind: str, identifier: str) -> str:
    """``p_<12 hex>`` for an identifier: the same everywhere, so that one patient is found again in another folder.

    Not anonymisation: whoever knows the possible identifiers can hash them too.
    """
    identifier = identifier.strip()
    return f"{kind}_{short_hash(identifier)}" if identifier else ""


def read_header(path: str | Path) -> Header | None:
    """The header of one file (pixels are not read), or None if it cannot be read as DICOM."""
    import pydicom

    try:
        data = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS))
        modality = str(data.get("Modality") or "").strip().upper()
        return Header(
            patient=hashed("p", str(data.get("PatientID") or "")),
            study=hashed("s", str(data.get("StudyInstanceUID") or "")),
            series=(int(data.get("SeriesNumber") or 0), hashed("u", str(data.get("SeriesInstanceUID") or ""))),
            modality=modality,
            view=str(data.get("ViewPosition") or "").strip().upper(),
            is_image=bool(data.get("Rows")) and modality not in _NO_SCANS,
            is_slice=bool(data.get("ImagePositionPatient")),
        )
    except Exception:  # pydicom raises nearly everything on damaged files; the caller counts and names them
        return None


def read_headers(paths: Sequence[str]) -> list[Header | None]:
    """The headers of many files, in their order; it is said how many cannot be read."""
    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        warnings.simplefilter("ignore")  # pydicom quotes odd values, and so identifiers
        headers = list(track(pool.map(read_header, paths), len(paths), "reading DICOM headers"))
    broken = [path for path, header in zip(paths, headers, strict=True) if header is None]
    if broken:
        warn(f"{len(broken)} of {len(paths)} DICOM headers cannot be read, the first is {broken[0]}.")
    return headers


def group_series(paths: Sequence[str], headers: Sequence[Header | None]) -> list[list[int]]:
    """Indices of the files of each series, in the order of folder, series number and file name.

    Files are one series if they lie in one folder, have one series UID and each has a place in the patient. Radiographs
    have no such place, and front and side views often share a UID; like unreadable files they stand alone.
    """
    groups: dict[tuple, list[int]] = defaultdict(list)
    for index, (path, header) in enumerate(zip(paths, headers, strict=True)):
        folder = path.rpartition("/")[0]
        if header is None or not header.is_slice:
            groups[(folder, (0, ""), path)].append(index)
        else:
            groups[(folder, header.series, "")].append(index)
    first = {key: min(paths[i] for i in members) for key, members in groups.items()}
    ordered = sorted(groups, key=lambda key: (key[0], key[1][0], first[key]))
    return [sorted(groups[key], key=lambda i: paths[i]) for key in ordered]
