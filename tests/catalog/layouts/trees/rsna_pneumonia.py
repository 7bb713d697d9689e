"""An RSNA pneumonia challenge of six images: float boxes, rows repeated for each box, a patient of two images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from catalog.layouts.trees.parts import remove, write_dicom, write_lines

SIZE = 64  # pixels a side; 1024 in the real one
# image, boxes (x, y, width, height), class, view, name in ChestX-ray14
IMAGES = (
    ("0004cfab-14fd-4e49-80ba-63a80b6bddd6", (), "No Lung Opacity / Not Normal", "PA", "00000001_000.png"),
    (
        "00436515-870c-4b36-a041-de91049b9ab4",
        ("16.0,9.5,13.0,23.0", "35.0,9.0,15.0,28.0"),
        "Lung Opacity",
        "AP",
        "00000013_005.png",
    ),
    ("00569f44-917d-4c86-a842-81832af98c30", (), "Normal", "PA", "00000013_011.png"),
    ("006cec2e-6ce2-4549-bffa-eadfcd1e9970", (), "Normal", "AP", "00000100_000.png"),
    ("00704310-78a8-4b38-8475-49f4573b2dbb", ("20.0,36.0,10.0,6.0",), "Lung Opacity", "PA", "00020124_003.png"),
    ("008c19e8-a820-403a-930a-bc74a4053664", (), "No Lung Opacity / Not Normal", "AP", "00030805_000.png"),
)
TEST = "0000a175-0e68-4ca4-b1af-167204a7e0bc"


def make(
    folder: Path,
    *,
    without: tuple[str, ...] = (),
    renamed: dict[str, str] | None = None,
    mapping: bool = True,
    stage: int = 2,
) -> Path:
    """Write the tree. mapping: with the RSNA's file that names patients; stage 1 is the version before the revision."""
    called = renamed or {}
    for number, (name, *_, view, _) in enumerate(IMAGES):
        pixels = np.random.default_rng(number).integers(0, 256, (SIZE, SIZE), np.uint8)
        tags = {"PatientID": name, "Modality": "CR", "ViewPosition": view, "PatientAge": "155"}
        write_dicom(folder / f"stage_{stage}_train_images/{name}.dcm", pixels, **tags)
    write_dicom(folder / f"stage_{stage}_test_images/{TEST}.dcm", pixels, PatientID=TEST, Modality="CR")
    header = [called.get(name, name) for name in ("patientId", "x", "y", "width", "height", "Target")]
    rows = [f"{name},{box},1" for name, boxes, *_ in IMAGES for box in boxes]
    rows += [f"{name},,,,,0" for name, boxes, *_ in IMAGES if not boxes]
    write_lines(folder / f"stage_{stage}_train_labels.csv", [",".join(header), *rows])
    classes = [f"{name},{kind}" for name, boxes, kind, *_ in IMAGES for _ in (boxes or ("",))]
    write_lines(folder / f"stage_{stage}_detailed_class_info.csv", ["patientId,class", *classes])
    write_lines(
        folder / f"stage_{stage}_sample_submission.csv", ["patientId,PredictionString", f"{TEST},0.5 0 0 100 100"]
    )
    if mapping:
        entries = [{"subset_img_id": name, "img_id": nih, "orig_labels": []} for name, *_, nih in IMAGES]
        path = folder / "pneumonia-challenge-dataset-mappings_2018.json"
        path.write_text(json.dumps(entries))
    remove(folder, without)
    return folder
