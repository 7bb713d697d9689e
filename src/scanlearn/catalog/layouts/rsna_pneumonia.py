"""RSNA Pneumonia Detection Challenge, stage 2 (Kaggle): radiographs of ChestX-ray14 as DICOM, with boxes and classes.

What the tables call patientId is an image. Whose it is says the RSNA's own mapping to ChestX-ray14, a file beside the
Kaggle download; without it nobody can tell. The 3,000 test images have no public labels here.
https://doi.org/10.1148/ryai.2019180041
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from scanlearn.catalog.boxes import NO_BOX
from scanlearn.catalog.dicom import read_headers
from scanlearn.catalog.layouts.layout import Layout, Rows, register
from scanlearn.catalog.layouts.tools import files_in, first_of, lacking, must_have, read_columns
from scanlearn.errors import ScanlearnError

TITLE = "RSNA Pneumonia Detection Challenge, stage 2"
PAGE = "https://www.kaggle.com/competitions/rsna-pneumonia-detection-challenge"
MAPPING = "pneumonia-challenge-dataset-mappings_2018.json|pneumonia-challenge-dataset-mappings*.json"
_MOST_BYTES = 64 << 20
_BOX = ("x", "y", "width", "height")


def _read(root: Path) -> Rows:
    if first_of(root, "stage_2_train_labels.csv|stage_2_train_images") is None:
        raise ScanlearnError(
            f"{root} holds stage 1 of the challenge, whose boxes were revised; get stage 2 from {PAGE}."
        )
    labels = must_have(root, "stage_2_train_labels.csv", TITLE, PAGE)
    boxes = _boxes(labels)
    classes = _classes(must_have(root, "stage_2_detailed_class_info.csv", TITLE, PAGE))
    files = files_in(root, ["stage_2_train_images/stage_2_train_images", "stage_2_train_images"], (".dcm",))
    images = {name[: -len(".dcm")]: path for name, path in files.items()}
    names = [name for name in boxes if name in images]
    notes = lacking(len(boxes) - len(names), len(boxes), "images", root, TITLE, PAGE)
    if strangers := len(images) - len(names):
        notes.append(f"{strangers:,} images have no row in stage_2_train_labels.csv and are left out.")
    if (root / "stage_2_test_images").is_dir():
        notes.append("The images in stage_2_test_images have no labels and are left out.")
    paths = [images[name] for name in names]
    patients, told = _patients(root, names)
    columns = {
        "paths": paths,
        **({"patient_id": patients} if patients else {}),
        "modality": ["CR"] * len(names),
        "view": [header.view if header else "" for header in read_headers([f"{root}/{path}" for path in paths])],
        "boxes": [";".join(boxes[name]) or NO_BOX for name in names],
        "class": [classes.get(name, "") for name in names],
        "lung_opacity": ["1" if boxes[name] else "0" for name in names],
    }
    return Rows(columns, patients_known=bool(patients), notes=[*notes, *told])


def _boxes(path: Path) -> dict[str, list[str]]:
    """{image: its boxes as the catalogue writes them}; one row for each box, one without numbers for an image without."""
    table = read_columns(path, ("patientId", *_BOX, "Target"), TITLE, PAGE)
    found: dict[str, list[str]] = {}
    for name, target, *box in zip(table["patientId"], table["Target"], *(table[of] for of in _BOX), strict=True):
        of_image = found.setdefault(name, [])
        if target == "1":
            of_image.append(" ".join(f"{number:.10g}" for number in _numbers(box, path)))
    return found


def _numbers(cells: Sequence[str], path: Path) -> list[float]:
    try:
        numbers = [float(cell) for cell in cells]
    except ValueError:
        numbers = []
    if not numbers or not all(map(math.isfinite, numbers)) or min(numbers[2:]) <= 0:
        raise ScanlearnError(f"A row of {path} with Target 1 has no box; get the table again from {PAGE}.")
    return numbers


def _classes(path: Path) -> dict[str, str]:
    """{image: class}; the table repeats a row for every box."""
    table = read_columns(path, ("patientId", "class"), TITLE, PAGE)
    return dict(zip(table["patientId"], table["class"], strict=True))


def _patients(root: Path, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """(patient of each image as ChestX-ray14 numbers them, notes); no patients without a mapping of every image."""
    path = first_of(root, MAPPING)
    if path is None:
        return [], [f"Whose images these are says the RSNA's {MAPPING.partition('|')[0]}, which is not in {root}."]
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError
        entries = json.loads(path.read_bytes())
        patient_of = {str(entry["subset_img_id"]): _number(entry["img_id"]) for entry in entries}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ScanlearnError(
            f"{path} is not the RSNA's mapping to ChestX-ray14; get it again or take it away."
        ) from error
    if lost := sum(name not in patient_of for name in names):
        return [], [
            f"The mapping to ChestX-ray14 lacks {lost:,} of {len(names):,} images, so their patients are not known."
        ]
    return [patient_of[name] for name in names], []


def _number(name: str) -> str:
    """The patient in the name of an image of ChestX-ray14: "00000013_005.png" -> "00000013"."""
    number = name.partition("_")[0]
    if not (number.isascii() and number.isdigit()):
        raise ValueError
    return number.zfill(8)


register(
    Layout(
        name="rsna_pneumonia",
        title=TITLE,
        licence="of the competition: non-commercial research and education",
        citation="Shih et al., Augmenting the NIH chest radiograph dataset with expert annotations, Radiology: AI 1(1) (2019)",
        page=PAGE,
        marks=(
            "stage_2_train_images|stage_2_train_labels.csv|stage_2_detailed_class_info.csv"
            "|stage_1_train_images|stage_1_train_labels.csv",
        ),
        read=_read,
        counts={
            "images": 26684,
            "boxes": 9555,
            "Lung Opacity": 6012,
            "No Lung Opacity / Not Normal": 11821,
            "Normal": 8851,
            "PA": 14511,
            "AP": 12173,
        },
        contained_in=("chestxray14",),
        patients_of="chestxray14",
    )
)
