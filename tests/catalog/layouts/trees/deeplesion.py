"""A DeepLesion of eight lesions on seven key slices: 16 bit with an offset, boxes counted from 1, odd spacings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

COLUMNS = (
    *("File_name", "Patient_index", "Study_index", "Series_ID", "Key_slice_index", "Measurement_coordinates"),
    *("Bounding_boxes", "Lesion_diameters_Pixel_", "Normalized_lesion_location", "Coarse_lesion_type"),
    *("Possibly_noisy", "Slice_range", "Spacing_mm_px_", "Image_size", "DICOM_windows", "Patient_gender"),
    *("Patient_age", "Train_Val_Test"),
)
# name, patient, box, type, noisy, spacing, sex, age, part
LESIONS = (
    ("000001_01_01_109.png", 1, "5, 7, 15.5, 20", -1, 0, "0.8, 0.8, 5", "F", "62", 1),
    ("000001_01_01_109.png", 1, "25, 3, 33, 9", -1, 0, "0.8, 0.8, 5", "F", "62", 1),
    ("000001_02_01_014.png", 1, "2, 2, 12, 12", -1, 0, "0.8, 0.8, -1", "F", "62", 1),
    ("000002_01_02_162.png", 2, "1, 1, 11, 11", -1, 1, "0.7, 0.7, 5", "M", "NaN", 1),
    ("000002_01_02_170.png", 2, "10, 12, 21, 30", -1, 0, "0.7, 0.7, NaN", "M", "NaN", 1),
    ("000003_01_01_001.png", 3, "4, 4, 14, 14", 5, 0, "0.9, 0.9, 1.25", "M", "40", 2),
    ("000004_01_01_007.png", 4, "6, 6, 16, 16", 5, 0, "0.9, 0.9, 5", "F", "71", 3),
    ("000004_01_01_009.png", 4, "6, 8, 16, 18", 1, 0, "0.9, 0.9, 5", "F", "71", 3),
)
AIR, TISSUE = -1000, 40  # HU of the pixels outside and inside a disc


def make(folder: Path, *, without: tuple[str, ...] = (), renamed: dict[str, str] | None = None, parts: int = 1) -> Path:
    """Write the tree and return it.

    without: names below the folder to leave out; renamed: columns that another version calls otherwise; parts: folders
    Images_png_01, ... as each archive unpacked on its own makes them, instead of one Images_png.
    """
    names = list(dict.fromkeys(lesion[0] for lesion in LESIONS))
    for number, name in enumerate(names):
        series, _, slice_ = name.rpartition("_")
        place = "Images_png" if parts == 1 else f"Images_png_{number % parts + 1:02d}/Images_png"
        path = folder / place / series / slice_
        path.parent.mkdir(parents=True, exist_ok=True)
        y, x = np.mgrid[:48, :48]
        hounsfield = np.where((x - 24) ** 2 + (y - 24) ** 2 < 300 + number, TISSUE + number, AIR)
        Image.fromarray((hounsfield + 32768).astype(np.uint16)).save(path)
        (path.parent / f"{int(slice_[:3]) + 1:03d}.png").write_bytes(path.read_bytes())  # a slice beside it
    called = renamed or {}
    lines = [",".join(called.get(name, name) for name in COLUMNS)]
    for name, patient, box, kind, noisy, spacing, sex, age, part in LESIONS:
        study, series, index = name[7:9], name[10:12], int(name[13:16])
        cells = [name, patient, int(study), int(series), index, f'"{box}, 1, 1, 2, 2"', f'"{box}"', '"10, 5"']
        cells += ['"0.1, 0.2, 0.3"', kind, noisy, f'"{index - 1}, {index + 1}"', f'"{spacing}"', '"48, 48"']
        lines.append(",".join(map(str, [*cells, '"-175, 275"', sex, age, part])))
    (folder / "DL_info.csv").write_text("\n".join(lines) + "\n")
    for name in without:
        path = folder / name
        if path.is_dir():
            for inside in sorted(path.rglob("*"), reverse=True):
                inside.rmdir() if inside.is_dir() else inside.unlink()
            path.rmdir()
        else:
            path.unlink()
    return folder
