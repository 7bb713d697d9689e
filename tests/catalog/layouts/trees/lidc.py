"""An LIDC-IDRI of two patients: a CT series each, a radiograph, a localiser among the slices, the readings as XML."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from catalog.layouts.trees.parts import remove, write_dicom

CT, CR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.1"
SLICES = 5


def make(folder: Path, *, without: tuple[str, ...] = (), within: str = "LIDC-IDRI") -> Path:
    """Write the tree below a folder of the collection's name."""
    root = folder / within
    for patient in (1, 2):
        who = f"LIDC-IDRI-{patient:04d}"
        series = root / who / f"01-01-2000-{patient}" / "3000566.000000-03192"
        for z in range(SLICES):
            pixels = np.random.default_rng(10 * patient + z).integers(0, 2000, (16, 16)).astype(np.int16)
            _slice(series / f"1-{z + 1:03d}.dcm", pixels, who, f"1.2.3.{patient}", [0, 0, 2.5 * z])
        (series / "069.xml").write_text("<LidcReadMessage/>")
        pixels = np.random.default_rng(patient).integers(0, 2000, (16, 16)).astype(np.int16)
        tags = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
        _slice(series / "1-000.dcm", pixels, who, f"1.2.3.{patient}", [0, 0, 99], **tags)
        study = root / who / f"01-01-2000-9{patient}" / "1.000000-NA-12345"
        tags = {"PatientID": who, "Modality": "CR", "StudyInstanceUID": f"1.2.9.{patient}", "ViewPosition": "PA"}
        write_dicom(study / "1-1.dcm", pixels, SOPClassUID=CR, **tags)
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
