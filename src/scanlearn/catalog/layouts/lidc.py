"""LIDC-IDRI as the Cancer Imaging Archive gives it out: ``LIDC-IDRI-0001/<study>/<series>/*.dcm``.

Beside the 1,018 CT there are radiographs (CR, DX) and localisers, which are left out. The readings of the radiologists
(XML) are not read. https://doi.org/10.7937/K9/TCIA.2015.LO9QL9SX
"""

from __future__ import annotations

import re
from pathlib import Path

from scanlearn.catalog.folder import find_series
from scanlearn.catalog.layouts.layout import Layout, Rows, register
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
    columns: dict[str, list] = {"paths": [], "patient_id": [], "study_id": [], "modality": []}
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
    if not columns["paths"]:
        raise ScanlearnError(f"The folders of patients in {root} hold no CT (*.dcm); get the images from {PAGE}.")
    notes = [f"{others:,} radiographs, single images and unreadable files are left out."] if others else []
    slices = sum(map(len, columns["paths"]))
    return Rows(columns, notes=notes, counted={"slices": slices})


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
