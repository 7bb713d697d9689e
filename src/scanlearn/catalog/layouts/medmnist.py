"""MedMNIST: eighteen sets of small images and volumes, each one .npz file with its three parts.

The labels in a file are numbers; here stands what they mean. Nobody says whose the images are.
https://doi.org/10.1038/s41597-022-01721-8
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from scanlearn.catalog.labels import NOTHING
from scanlearn.catalog.layouts.layout import Layout, Rows, Split, register
from scanlearn.errors import ScanlearnError

PAGE = "https://medmnist.com"
_LABELS = "labels"
_FINDINGS = "findings"  # the column of labels of which an image may have several
_ORGANS = (
    *("bladder", "femur-left", "femur-right", "heart", "kidney-left", "kidney-right", "liver", "lung-left"),
    *("lung-right", "pancreas", "spleen"),
)


@dataclass(frozen=True)
class Facts:
    """What the numbers 0, 1, ... of the labels mean, the images in all parts (0: versions differ), where they are from."""

    classes: tuple[str, ...]
    images: int = 0
    of: tuple[str, ...] = ()
    several: bool = False  # an image may show several classes


SETS = {
    "pathmnist": Facts(
        (
            *("adipose", "background", "debris", "lymphocytes", "mucus", "smooth muscle", "normal colon mucosa"),
            *("cancer-associated stroma", "colorectal adenocarcinoma epithelium"),
        ),
        107180,
    ),
    "chestmnist": Facts(
        (
            *("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax"),
            *("Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia"),
        ),
        112120,
        ("chestxray14",),
        several=True,
    ),
    "dermamnist": Facts(
        (
            *("actinic keratoses", "basal cell carcinoma", "benign keratosis-like lesions", "dermatofibroma"),
            *("melanoma", "melanocytic nevi", "vascular lesions"),
        ),
        10015,
    ),
    "octmnist": Facts(("choroidal neovascularization", "diabetic macular edema", "drusen", "normal"), 109309),
    "pneumoniamnist": Facts(("normal", "pneumonia"), 5856),
    "retinamnist": Facts(("0", "1", "2", "3", "4"), 1600),
    "breastmnist": Facts(("malignant", "normal or benign"), 780),
    "bloodmnist": Facts(
        (
            *("basophil", "eosinophil", "erythroblast", "immature granulocytes", "lymphocyte", "monocyte"),
            *("neutrophil", "platelet"),
        ),
        17092,
    ),
    "tissuemnist": Facts(
        (
            *("collecting duct or connecting tubule", "distal convoluted tubule", "glomerular endothelial cells"),
            *("interstitial endothelial cells", "leukocytes", "podocytes", "proximal tubule segments"),
            "thick ascending limb",
        ),
        236386,
    ),
    "organamnist": Facts(_ORGANS, of=("lits",)),
    "organcmnist": Facts(_ORGANS, of=("lits",)),
    "organsmnist": Facts(_ORGANS, of=("lits",)),
    "organmnist3d": Facts(
        (
            *("liver", "kidney-right", "kidney-left", "femur-right", "femur-left", "bladder", "heart", "lung-right"),
            *("lung-left", "spleen", "pancreas"),
        ),
        of=("lits",),
    ),
    "nodulemnist3d": Facts(("benign", "malignant"), 1633, ("lidc",)),
    "adrenalmnist3d": Facts(("normal", "hyperplasia"), 1584),
    "fracturemnist3d": Facts(("buckle", "nondisplaced", "displaced"), 1370),
    "vesselmnist3d": Facts(("vessel", "aneurysm")),
    "synapsemnist3d": Facts(("inhibitory synapse", "excitatory synapse"), 1759),
}


def set_of(stem: str) -> str | None:
    """The set in a file by its name without the ending ("chestmnist_64" is "chestmnist"), None for other files."""
    name = re.sub(r"_(28|64|128|224)$", "", stem.lower())
    return name if name in SETS else None


def named(name: str, columns: Mapping[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    """The columns of a set's file with its numbers as words: "labels", or "findings" where an image has several.

    Raises ScanlearnError for a file whose labels are not those of the set.
    """
    facts, found = SETS[name], dict(columns)
    numbers = found.pop(_LABELS, None)
    width = len(facts.classes) if facts.several else 1
    fits = numbers is not None and numbers.dtype.kind in "iu" and numbers.reshape(len(numbers), -1).shape[1] == width
    if numbers is None or not fits or (numbers.size and not 0 <= numbers.min() <= numbers.max() < _most(facts)):
        raise ScanlearnError(
            f"The labels in {path} are not those of {name}; get it again from {PAGE}, or rename the file."
        )
    classes = np.array(facts.classes)
    if facts.several:
        cells = ["|".join(classes[row > 0]) or NOTHING for row in numbers]
        return {**found, _FINDINGS: np.array(cells)}
    return {**found, _LABELS: classes[numbers.reshape(-1)]}


def _most(facts: Facts) -> int:
    return 2 if facts.several else len(facts.classes)


def _read(name: str, root: Path) -> Rows:
    raise ScanlearnError(
        f"{name} is one file: give {root / name}.npz itself (or its larger version) in place of the folder."
    )


for _name, _facts in SETS.items():
    register(
        Layout(
            name=_name,
            title=f"MedMNIST, {_name}",
            licence="CC BY-NC 4.0" if _name == "dermamnist" else "CC BY 4.0",
            citation="Yang et al., MedMNIST v2, Scientific Data 10 (2023)",
            page=PAGE,
            marks=(f"{_name}.npz|{_name}_[1-9]*.npz",),
            read=partial(_read, _name),
            splits={"official": Split(True, "of MedMNIST, fixed in its file.")},
            counts={"images": _facts.images} if _facts.images else {},
            contained_in=_facts.of,
        )
    )
