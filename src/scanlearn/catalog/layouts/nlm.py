"""What the two sets of the National Library of Medicine share: names that end in the label, a text for each image."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from scanlearn.catalog.labels import NOTHING
from scanlearn.catalog.layouts.radiographs import age_in_years
from scanlearn.catalog.layouts.tools import files_in, must_have, some_names
from scanlearn.errors import ScanlearnError

IMAGES, READINGS = "CXR_png", "ClinicalReadings"
FINDINGS = {"0": NOTHING, "1": "Tuberculosis"}
_SEX = re.compile(r"\b(?:sex:\s*)?(male|female|m|f)\b", re.IGNORECASE)
_AGE = re.compile(r"(\d+)\s*(y|m|w|d)\w*", re.IGNORECASE)  # "027Y", "45yrs", "8 months"


def knows_by(prefix: str) -> Callable[[Path], bool]:
    """Whether files of the set, which all begin with the prefix, are in one of its folders."""
    folders = (IMAGES, READINGS, "ManualMask/leftMask")
    return lambda root: any(name.startswith(prefix) for folder in folders for name in some_names(root / folder))


def columns_of_names(root: Path, prefix: str, title: str, page: str) -> dict[str, list[str]]:
    """``paths`` and ``findings`` of all images, told by their names (MCUCXR_0001_0.png); others are left out."""
    must_have(root, IMAGES, title, page)
    label = re.compile(rf"{prefix}\d{{4}}_(\d)\.png")
    found = [(path, m[1]) for name, path in files_in(root, [IMAGES], (".png",)).items() if (m := label.fullmatch(name))]
    if not found:
        raise ScanlearnError(f"{root / IMAGES} holds no image of {title} ({prefix}0001_0.png); get it from {page}.")
    return {"paths": [p for p, _ in found], "findings": [FINDINGS.get(digit, "") for _, digit in found]}


def readings(root: Path, paths: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """(columns sex, age in years and reading, notes) of the images' texts; blank where there is none."""
    there = files_in(root, [READINGS], (".txt",))
    texts = [there.get(f"{path.rpartition('/')[2].removesuffix('.png')}.txt", "") for path in paths]
    found = [parsed((root / text).read_bytes().decode("utf-8", "replace")) if text else ("", "", "") for text in texts]
    columns = {name: [of[i] for of in found] for i, name in enumerate(("sex", "age", "reading"))}
    missing = texts.count("")
    return columns, [f"{missing:,} images have no text in {READINGS}: sex and age are blank."] if missing else []


def parsed(text: str) -> tuple[str, str, str]:
    """(sex, age, what was read) of a text; what precedes the reading is on one or two lines.

    >>> parsed("Patient's Sex: F\\nPatient's Age: 027Y\\nnormal\\n"), parsed("Male  45yrs\\nbilateral PTB")
    (('F', '27', 'normal'), ('M', '45', 'bilateral PTB'))
    """
    lines = [line.strip() for line in text.lstrip("\ufeff").splitlines() if line.strip()]
    about = 2 if lines and "sex" in lines[0].lower() else 1
    head = " ".join(lines[:about]).replace("Patient's", "")
    sex, age = _SEX.search(head), _AGE.search(head)
    return (
        sex[1][0].upper() if sex else "",
        age_in_years(f"{age[1]}{age[2]}") if age else "",
        " ".join(lines[about:]),
    )
