"""What a DICOM header says: whose scan it is, what kind of object, and where it lies. Pixels are not read."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from scanlearn.catalog.dicom_file import open_dicom, quiet
from scanlearn.catalog.dicom_planes import PLANE_TAGS, Plane, frames_of, plane_of
from scanlearn.catalog.dicom_tags import BadTag, tags_of, text, word
from scanlearn.catalog.files import short_hash
from scanlearn.console import track, warn

# What tells the volumes of one series apart, in the order in which they are tried.
VOLUME_TAGS = (
    *("AcquisitionNumber", "EchoNumbers", "TemporalPositionIdentifier", "TriggerTime", "FrameReferenceTime"),
    *("EchoTime", "DiffusionBValue", "ImageType", "AcquisitionTime"),
)
KIND_TAGS = ("SOPClassUID", "Modality", "ImageType", "Rows", "ImagePositionPatient", "ImageOrientationPatient")
_META_CLASS = "MediaStorageSOPClassUID"
_SIGNS = ("SOPClassUID", "Modality", "Rows", "PatientID", "StudyInstanceUID")
_TAGS = (
    *("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SOPInstanceUID", "ViewPosition"),
    *(*KIND_TAGS, *PLANE_TAGS, *VOLUME_TAGS),
)

LOCALISER = "localiser"
SCREENSHOT = "screenshot or secondary capture"
MOSAIC = "mosaic of slices"
# Objects that are no scans, by the beginning of their SOP class ...
_CLASSES = (
    ("1.2.840.10008.5.1.4.1.1.88.", "structured report"),
    ("1.2.840.10008.5.1.4.1.1.11.", "presentation state"),
    ("1.2.840.10008.5.1.4.1.1.66.4", "segmentation"),
    ("1.2.840.10008.5.1.4.1.1.66.5", "segmentation"),
    ("1.2.840.10008.5.1.4.1.1.66.7", "segmentation"),
    ("1.2.840.10008.5.1.4.1.1.66", "registration or raw data"),
    ("1.2.840.10008.5.1.4.1.1.104.", "document"),
    ("1.2.840.10008.5.1.4.1.1.9.", "waveform"),
    ("1.2.840.10008.5.1.4.1.1.481.2", "radiotherapy dose"),
    ("1.2.840.10008.5.1.4.1.1.481.3", "radiotherapy structure set"),
    ("1.2.840.10008.1.3.10", "directory"),
)
# ... or by their modality.
_MODALITIES = {
    **dict.fromkeys(("SR", "KO"), "structured report"),
    "PR": "presentation state",
    "SEG": "segmentation",
    "RTDOSE": "radiotherapy dose",
    "RTSTRUCT": "radiotherapy structure set",
    **dict.fromkeys(("RTPLAN", "RTRECORD"), "radiotherapy plan"),
    "REG": "registration or raw data",
    **dict.fromkeys(("DOC", "PLAN"), "document"),
    **dict.fromkeys(("ECG", "HD", "EPS", "AU", "RESP"), "waveform"),
}
# Pictures that reach an archive as secondary captures and are scans all the same: radiographs, ultrasound, photographs.
_PICTURES = frozenset(
    ("CR", "DX", "MG", "IO", "PX", "RG", "RF", "XA", "US", "BDUS", "ES", "GM", "SM", "XC", "OP", "OPT", "DM", "BMD")
)
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
# Words of ImageType by which vendors mark dose sheets, protocols and what was seen on a screen.
_SHEETS = frozenset(("SCREEN", "SCREENSHOT", "SCREENSAVE", "DOSE", "PROT", "PROTOCOL"))


@dataclass(frozen=True, slots=True)
class Header:
    """What the catalogue needs of one DICOM file. ``patient`` and ``study`` name somebody: a store has pseudonyms instead."""

    patient: str = field(repr=False)  # "" where the file has none, as with study
    study: str = field(repr=False)
    series: tuple[int, str]  # number and a hash of the UID: what tells the series of one folder apart
    modality: str
    view: str
    kind: str  # why it is no scan ("localiser", "structured report"), "" for a scan
    plane: Plane
    instance: str = ""  # hash of the image's UID: a file that was exported twice has it twice
    volume: tuple[str, ...] = ("",) * len(VOLUME_TAGS)  # the values of VOLUME_TAGS
    frames: int = 1

    @property
    def is_image(self) -> bool:
        """Whether the file holds a scan or a slice of one."""
        return not self.kind

    @property
    def is_slice(self) -> bool:
        """Whether it has a place in the patient, so that it belongs to a stack. Multi-frame files are stacks already."""
        return self.plane.position is not None and self.frames == 1


def says_nothing(data: Any) -> bool:
    """Nearly anything parses as DICOM without a preamble; then none of the tags is found that every object has."""
    return not any(word(data, keyword) for keyword in _SIGNS) and not word(data.file_meta, _META_CLASS)


def kind_of(data: Any, localised: bool) -> str:
    """Why an object is no scan, "" if it is one. localised: whether it has position and orientation.

    A secondary capture counts as a scan if it has a place in the patient, or is a radiograph, ultrasound or photograph
    by its modality; else it is a screenshot, a dose sheet or the like.
    """
    sop_class = word(data, "SOPClassUID") or word(data.file_meta, _META_CLASS)
    modality = word(data, "Modality")
    kind = next((kind for start, kind in _CLASSES if sop_class.startswith(start)), "") or _MODALITIES.get(modality, "")
    if kind:
        return kind
    words = {part for value in word(data, "ImageType").split("\\") for part in value.replace("_", " ").split()}
    if words & {"LOCALIZER", "SCOUT"}:
        return LOCALISER
    if "MOSAIC" in words:
        return MOSAIC
    captured = sop_class == _SECONDARY_CAPTURE or sop_class.startswith(_SECONDARY_CAPTURE + ".")
    if (words & _SHEETS or captured) and not localised and modality not in _PICTURES:
        return SCREENSHOT
    if word(data, "Rows") in ("", "0") and not _is_image_class(sop_class):
        return "object without pixels"
    return ""  # an image without Rows is damaged: whoever reads it says so


@cache
def _is_image_class(sop_class: str) -> bool:
    from pydicom.uid import UID_dictionary

    return "Image Storage" in UID_dictionary.get(sop_class, ("",))[0]


@cache
def _tags() -> list[Any]:
    return tags_of(*_TAGS)


def read_header(path: str | Path) -> Header | None:
    """The header of one file, or None if it cannot be read as DICOM."""
    with quiet():
        try:
            data = open_dicom(path, _tags())
            return None if says_nothing(data) else _header(data)
        except (MemoryError, ImportError):
            raise
        except Exception:  # converters raise nearly everything; whoever reads the file says what is wrong
            return None


def _header(data: Any) -> Header:
    try:
        plane, frames = plane_of(data), frames_of(data)
    except BadTag:  # the reader names it; until then the image stands alone
        plane, frames = Plane(0, 0), 1
    digits = word(data, "SeriesNumber").lstrip("+")
    number = int(digits) if digits.lstrip("-").isdecimal() and len(digits) < 12 else 0
    return Header(
        patient=text(data, "PatientID"),
        study=text(data, "StudyInstanceUID"),
        series=(number, uid_hash(text(data, "SeriesInstanceUID"))),
        modality=word(data, "Modality"),
        view=word(data, "ViewPosition"),
        kind=kind_of(data, plane.position is not None and plane.cosines is not None),
        plane=plane,
        instance=uid_hash(text(data, "SOPInstanceUID")),
        volume=tuple(sys.intern(word(data, keyword)) for keyword in VOLUME_TAGS),
        frames=frames,
    )


def uid_hash(uid: str) -> str:
    """A UID in little memory, as a million of them are compared; it leaves the catalogue in no form."""
    return short_hash(uid) if uid else ""


def read_headers(paths: Sequence[str]) -> list[Header | None]:
    """The headers of many files, in their order; it is said how many cannot be read."""
    # Threads wait for the disk together; the parsing itself is Python's and runs one at a time.
    with quiet(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        headers = list(track(pool.map(read_header, paths), len(paths), "reading DICOM headers"))
    broken = headers.count(None)
    if broken:
        warn(f"{broken} of {len(paths)} DICOM headers cannot be read; they stand as scans of their own until read.")
    return headers
