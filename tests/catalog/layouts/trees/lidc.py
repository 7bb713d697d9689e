"""An LIDC-IDRI of two patients: a CT series each, a radiograph, a localiser among the slices, the readings as XML."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from catalog.layouts.trees.parts import remove, write_dicom

CT, CR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.1"
SLICES = 5


XMLNS = 'xmlns="http://www.nih.gov" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
CHARACTERISTICS = ("subtlety", "internalStructure", "calcification", "sphericity", "margin", "lobulation")
CHARACTERISTICS = (*CHARACTERISTICS, "spiculation", "texture", "malignancy")
# Outlines of a reader's nodules: (malignancy or None for one below 3 mm, ((z in mm, inclusion, ((x, y), ...)), ...)).
SESSIONS = {
    1: [
        [(4, ((2.5, True, ((4, 6), (6, 6), (6, 8), (4, 8))), (5.0, True, ((5, 7),)), (2.5, False, ((0, 0), (1, 1)))))],
        [(2, ((2.5, True, ((4, 6), (6, 8))),)), (None, ((7.5, True, ((10, 10),)),))],
    ],
    2: [[], []],
}


def outline(z: float, inside: bool, points: Iterable[tuple[float, float]]) -> str:
    """One ROI as the readers' program wrote it."""
    edge = "".join(f"<edgeMap><xCoord>{x}</xCoord><yCoord>{y}</yCoord></edgeMap>" for x, y in points)
    told = f"<imageZposition>{z} </imageZposition><imageSOP_UID>1.2.3</imageSOP_UID>"
    return f"<roi>{told}<inclusion>{str(inside).upper()}</inclusion>{edge}</roi>"


def nodule(name: str, malignancy: int | None, rois: Iterable[tuple[float, bool, Iterable[tuple[float, float]]]]) -> str:
    """One nodule of one reader; those below 3 mm have no characteristics."""
    graded = "".join(f"<{word}>{malignancy if word == 'malignancy' else 1}</{word}>" for word in CHARACTERISTICS)
    told = f"<characteristics>{graded}</characteristics>" if malignancy else ""
    inside = "".join(outline(*roi) for roi in rois)
    return f"<unblindedReadNodule><noduleID>{name}</noduleID>{told}{inside}</unblindedReadNodule>"


def reading(series: str, sessions: Iterable[Iterable[str]]) -> str:
    """The XML of one series: sessions of readers, each its nodules as ``nodule`` writes them, and what is none."""
    other = "<nonNodule><nonNoduleID>7</nonNoduleID><imageZposition>0</imageZposition><locus><xCoord>3</xCoord>"
    other += "<yCoord>3</yCoord></locus></nonNodule>"
    read = "".join(f"<readingSession>{''.join(nodules)}{other}</readingSession>" for nodules in sessions)
    head = f"<ResponseHeader><Version>1.8.1</Version><SeriesInstanceUid>{series}</SeriesInstanceUid></ResponseHeader>"
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<LidcReadMessage uid="1" {XMLNS}>{head}{read}</LidcReadMessage>'


def make(folder: Path, *, without: tuple[str, ...] = (), within: str = "LIDC-IDRI", apart: str = "") -> Path:
    """Write the tree below a folder of the collection's name; ``apart``: the XML lies in this folder, not beside."""
    root = folder / within
    for patient in (1, 2):
        who = f"LIDC-IDRI-{patient:04d}"
        series = root / who / f"01-01-2000-{patient}" / "3000566.000000-03192"
        for z in range(SLICES):
            pixels = np.random.default_rng(10 * patient + z).integers(0, 2000, (16, 16)).astype(np.int16)
            _slice(series / f"1-{z + 1:03d}.dcm", pixels, who, f"1.2.3.{patient}", [0, 0, 2.5 * z])
        sessions = [[nodule(str(i), *one) for i, one in enumerate(of)] for of in SESSIONS[patient]]
        place = root / apart if apart else series
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{68 + patient:03d}.xml").write_text(reading(f"1.2.3.{patient}.1", sessions))
        pixels = np.random.default_rng(patient).integers(0, 2000, (16, 16)).astype(np.int16)
        tags = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
        _slice(series / "1-000.dcm", pixels, who, f"1.2.3.{patient}", [0, 0, 99], **tags)
        study = root / who / f"01-01-2000-9{patient}" / "1.000000-NA-12345"
        tags = {"PatientID": who, "Modality": "CR", "StudyInstanceUID": f"1.2.9.{patient}", "ViewPosition": "PA"}
        write_dicom(study / "1-1.dcm", pixels, SOPClassUID=CR, **tags)
        radiograph = f"<IdriReadMessage {XMLNS}><ResponseHeader/><CXRreadingSession/></IdriReadMessage>"
        (study / "070.xml").write_text(radiograph)
    remove(root, without)
    return folder


def _slice(path: Path, pixels: np.ndarray, who: str, study: str, position: list[float], **tags: object) -> None:
    said = {"PatientID": who, "Modality": "CT", "StudyInstanceUID": study, "SeriesInstanceUID": f"{study}.1"}
    said |= {
        "ImagePositionPatient": position,
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [0.7, 0.7],
    }
    said |= {"RescaleSlope": 1, "RescaleIntercept": -1024, "SeriesNumber": 1, "SliceThickness": 2.5}
    write_dicom(path, pixels, SOPClassUID=CT, **{**said, **tags})
