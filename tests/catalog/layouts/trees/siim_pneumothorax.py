"""A SIIM-ACR Pneumothorax of six DICOM files, masks as run lengths: two rows of one image that overlap, -1, a stray file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from catalog.layouts.trees.written import take_away
from scans.dicoms import dicom, save

PREFIX = "1.2.276.0.7230010.3.1.4.8323329."
# Down the first column (a pixel is left out each time): rows 1-3 and 5, then rows 3-6 in a row of its own.
ROWS = (
    ("6904.1517875201.850819", " -1"),
    ("13666.1517875247.117800", "1 3 1 1"),
    ("13666.1517875247.117800", "3 4"),
    ("11028.1517875229.983789", "1048575 1"),
    ("10366.1517875224.309151", "-1"),
    ("10000.1517875220.000001", "-1"),
)
STRAY = "5555.1517875555.555555"  # a file without a row


def make(
    folder: Path,
    *,
    stage_2: bool = False,
    side: int = 8,
    without: tuple[str, ...] = (),
    renamed: dict[str, str] | None = None,
) -> Path:
    """Write the tree. stage_2: the later table, whose header has no blank before the second name; side: pixels of the
    images, 1024 as published where masks are to lie on them; without: names to leave out; renamed: columns of the table.
    """
    for number, name in enumerate([*dict.fromkeys(name for name, _ in ROWS), STRAY]):
        part = "dicom-images-test" if number == 4 else "dicom-images-train"
        pixels = np.full((side, side), number, np.uint8)
        pixels[: side // 2] += 100
        file = dicom(pixels, Modality="CR", ViewPosition="AP" if number % 2 else "PA")
        save(file, folder / part / f"1.2.3.{number}" / f"1.2.4.{number}" / f"{PREFIX}{name}.dcm")
    header = ["ImageId", "EncodedPixels" if stage_2 else " EncodedPixels"]
    lines = [",".join((renamed or {}).get(name.strip(), name) for name in header)]
    lines += [f"{PREFIX}{name},{runs}" for name, runs in ROWS]
    (folder / ("stage_2_train.csv" if stage_2 else "train-rle.csv")).write_text("\n".join(lines) + "\n")
    take_away(folder, without)
    return folder
