"""LIDC-IDRI as the Cancer Imaging Archive gives it out: ``LIDC-IDRI-0001/<study>/<series>/*.dcm``.

Beside the 1,018 CT there are radiographs (CR, DX) and localisers, which are left out. Where the readings of the four
radiologists are there (XML, beside the slices or in a folder of their own), ``nodules`` has a point for each nodule of
each reader: its centre in mm and the malignancy that the reader gave it. https://doi.org/10.7937/K9/TCIA.2015.LO9QL9SX
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from scanlearn.catalog.candidates import NO_POINT
from scanlearn.catalog.dicom_header import Header, uid_hash
from scanlearn.catalog.folder import find_series
from scanlearn.catalog.layouts.layout import Layout, Rows, register
from scanlearn.catalog.layouts.lidc_readings import Reading, read_reading
from scanlearn.catalog.layouts.tools import folders_below
from scanlearn.catalog.listing import list_folder
from scanlearn.errors import ScanlearnError

TITLE = "LIDC-IDRI"
PAGE = "https://www.cancerimagingarchive.net/collection/lidc-idri/"
_PATIENT = re.compile(r"LIDC-IDRI-\d{4}")


def _read(root: Path) -> Rows:
    patients = [name for name in folders_below(root) if _PATIENT.fullmatch(name)]
    files = [f"{name}/{file}" for name in patients for file in list_folder(root / name).images]
    series, headers = find_series(root, [file for file in files if file.endswith(".dcm")])
    readings = _readings(root)
    columns: dict[str, list] = {name: [] for name in ("paths", "patient_id", "study_id", "modality", "nodules")}
    others = 0
    for members in series:
        header = headers.get(members[0])
        if header is None or header.modality != "CT" or len(members) == 1:
            others += 1
            continue
        columns["paths"].append(members)
        columns["patient_id"].append(members[0].partition("/")[0])
        columns["study_id"].append(header.study)
        columns["modality"].append("CT")
        columns["nodules"].append(_points(readings.get(header.series[1]), header))
    if not columns["paths"]:
        raise ScanlearnError(f"The folders of patients in {root} hold no CT (*.dcm); get the images from {PAGE}.")
    notes = [f"{others:,} radiographs, single images and unreadable files are left out."] if others else []
    unread = columns["nodules"].count("")
    if unread == len(columns["paths"]):
        del columns["nodules"]
        notes.append(
            "No reading (XML) of a radiologist is there, so nodules are not known; the archive gives them apart."
        )
    elif unread:
        notes.append(f"{unread:,} CT have no reading (XML), so their nodules are not known.")
    return Rows(columns, notes=notes, counted={"slices": sum(map(len, columns["paths"]))})


def _readings(root: Path) -> dict[str, Reading]:
    """{hash of the UID of a series: what was marked on it} of all XML below the root."""
    found: dict[str, Reading] = {}
    for path in sorted(root.rglob("*.xml")):
        reading = None if path.name.startswith(".") else read_reading(path)
        if reading is not None and reading.series:
            found.setdefault(uid_hash(reading.series), reading)
    return found


def _points(reading: Reading | None, header: Header) -> str:
    """The marks as the catalogue has points: mm in RAS+ and a word. Blank where nobody read, or the slices lie otherwise.

    All CT of the collection are axial: columns run to the patient's left, rows to the back.
    """
    plane = header.plane
    if reading is None or plane.position is None or plane.spacing is None or plane.cosines is None:
        return ""
    if not np.allclose(plane.cosines, (1, 0, 0, 0, 1, 0), atol=1e-3):
        return ""
    points = []
    for mark in reading.marks:
        column, row, z = mark.centre
        x, y = plane.position[0] + column * plane.spacing[1], plane.position[1] + row * plane.spacing[0]
        points.append(f"{-x:.10g} {-y:.10g} {z:.10g} {mark.malignancy}")
    return ";".join(points) or NO_POINT


register(
    Layout(
        name="lidc",
        title=TITLE,
        licence="CC BY 3.0",
        citation="Armato et al., The Lung Image Database Consortium (LIDC-IDRI), Medical Physics 38(2) (2011)",
        page=PAGE,
        marks=("LIDC-IDRI-0*|LIDC-IDRI-1*",),
        read=_read,
        counts={"images": 1018, "patients": 1010},
    )
)
