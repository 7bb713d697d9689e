"""A CheXpert of eleven images: as the small copy, as the four archives, with and without the part for testing."""

from __future__ import annotations

from pathlib import Path

from catalog.layouts.trees.written import picture, table, take_away

FINDINGS = (
    *("No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema"),
    *("Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture"),
    "Support Devices",
)
HEADER = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *FINDINGS)
# image, sex, age, frontal or lateral, position, {finding: value}
TRAIN = (
    ("train/patient00001/study1/view1_frontal.jpg", "Female", "68", "Frontal", "AP", {0: "1.0", 9: "0.0", 13: "1.0"}),
    ("train/patient00002/study2/view1_frontal.jpg", "Female", "87", "Frontal", "AP", {2: "-1.0", 3: "1.0", 5: "-1.0"}),
    ("train/patient00002/study1/view1_frontal.jpg", "Female", "83", "Frontal", "AP", {3: "1.0", 6: "0.0", 11: "0.0"}),
    ("train/patient00002/study1/view2_lateral.jpg", "Female", "83", "Lateral", "", {3: "1.0", 6: "0.0", 11: "0.0"}),
    ("train/patient00003/study1/view1_frontal.jpg", "Unknown", "0", "Frontal", "PA", {0: "1.0", 9: "0.0"}),
    ("train/patient07958/study5/view2_frontal.jpg", "Male", "41", "Frontal", "LL", {5: "1.0"}),
    ("train/patient00004/study1/view1_frontal.jpg", "Male", "20", "Frontal", "PA", {}),
)
VALID = (
    ("valid/patient64541/study1/view1_frontal.jpg", "Male", "73", "Frontal", "AP", {1: "1.0", 3: "1.0"}),
    ("valid/patient64542/study1/view1_frontal.jpg", "Male", "70", "Frontal", "PA", {0: "1.0"}),
)
TEST = (
    ("test/patient64741/study1/view1_frontal.jpg", {5: "1"}),
    ("test/patient64741/study1/view2_lateral.jpg", {5: "1"}),
)
BATCHES = {
    "train/patient00001": "CheXpert-v1.0 batch 2 (train 1)/patient00001",
    "train/patient00002": "CheXpert-v1.0 batch 2 (train 1)/patient00002",
    "train/patient00003": "CheXpert-v1.0 batch 3 (train 2)/patient00003",
    "train/patient00004": "CheXpert-v1.0 batch 3 (train 2)/patient00004",
    "train/patient07958": "CheXpert-v1.0 batch 4 (train 3)/patient07958",
    "valid": "CheXpert-v1.0 batch 1 (validate & csv)/valid",
}


def make(
    folder: Path,
    *,
    batches: bool = False,
    test: str = "",
    without: tuple[str, ...] = (),
    renamed: dict[str, str] | None = None,
) -> Path:
    """Write the tree. batches: as the four archives unpack; test: labels of the test part by "image" or by "study";
    without: names to leave out; renamed: columns of train.csv."""
    tables = folder / ("CheXpert-v1.0 batch 1 (validate & csv)" if batches else "")
    prefix = "CheXpert-v1.0" if batches else "CheXpert-v1.0-small"
    for number, (name, *_) in enumerate((*TRAIN, *VALID)):
        place = name
        for before, after in BATCHES.items() if batches else ():
            place = place.replace(before, after)
        picture(folder / place, number)
    table(tables / "train.csv", [HEADER, *(_row(prefix, row, "") for row in TRAIN)], renamed)
    table(tables / "valid.csv", [HEADER, *(_row(prefix, row, "0.0") for row in VALID)])
    if test:
        for number, (name, _) in enumerate(TEST):
            picture(folder / "CheXpert" / name, 20 + number)
        of_study = {name.rpartition("/")[0]: values for name, values in TEST}
        labels = TEST if test == "image" else of_study.items()
        rows = [(name, *(values.get(i, "0") for i in range(1, 14))) for name, values in labels]
        table(folder / "CheXpert" / "test_labels.csv", [("Path", *FINDINGS[1:]), *rows])
    take_away(folder, without)
    return folder


def _row(prefix: str, row: tuple, blank: str) -> tuple[str, ...]:
    name, *about, values = row
    return (f"{prefix}/{name}", *about, *(values.get(i, blank) for i in range(14)))
