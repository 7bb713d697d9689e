"""MURA 1.1 (Stanford): radiographs of the upper limb, each study normal or abnormal; the test part was never published.

The tables have no header. The label is of a study, of whose images the mean is judged. One number of a patient may
stand under several parts of the body and is one patient. Archives hold files ``._*`` of a Mac.
https://arxiv.org/abs/1712.06957
"""

from __future__ import annotations

import re
from pathlib import Path

from scanlearn.catalog.columns import SPLIT_WORDS
from scanlearn.catalog.files import stem_of
from scanlearn.catalog.labels import NOTHING
from scanlearn.catalog.layouts.layout import Layout, Rows, Split, register
from scanlearn.catalog.layouts.radiographs import files_by_tail, with_files
from scanlearn.catalog.layouts.tools import must_have, read_lines
from scanlearn.errors import ScanlearnError

TITLE = "MURA"
PAGE = "https://stanfordmlgroup.github.io/competitions/mura/"
PARTS = ("train", "valid")
FINDINGS = {"0": NOTHING, "1": "Abnormal"}
_IMAGE = re.compile(
    r"MURA-v(?P<version>[\d.]+)/(?P<study>(?:train|valid)/XR_(?P<body>[A-Z]+)/(?P<patient>patient\d+)/\w+)/[^/]+"
)
_STUDY = re.compile(r"MURA-v[\d.]+/(?P<study>(?:train|valid)/XR_[A-Z]+/patient\d+/\w+)/?,(?P<label>[01])(?:\.0)?")


def _read(root: Path) -> Rows:
    keys: list[str] = []
    columns: dict[str, list[str]] = {name: [] for name in ("patient_id", "study_id", "findings", "body_part")}
    parts: list[str] = []
    unlabelled = contrary = 0
    for part in PARTS:
        images = _matched(must_have(root, f"{part}_image_paths.csv", TITLE, PAGE), _IMAGE)
        if any(found["version"] != "1.1" for found in images):
            raise ScanlearnError(
                f"{root} is {TITLE} {images[0]['version']}, whose studies are others; get 1.1 from {PAGE}."
            )
        studies = _matched(must_have(root, f"{part}_labeled_studies.csv", TITLE, PAGE), _STUDY)
        label_of = {found["study"]: found["label"] for found in studies}
        # The folder of a study says its label too: study1_positive.
        contrary += sum(_says(study) not in ("", label) for study, label in label_of.items())
        for found in images:
            study = found["study"]
            keys.append(stem_of(found[0].partition("/")[2]))
            columns["patient_id"].append(found["patient"])
            columns["study_id"].append(study)
            columns["findings"].append(FINDINGS[label_of[study]] if study in label_of else "")
            columns["body_part"].append(found["body"].lower())
            unlabelled += study not in label_of
        parts += [SPLIT_WORDS[part]] * len(images)
    notes = [f"{unlabelled:,} images are of studies without a label."] if unlabelled else []
    if contrary:
        notes.append(
            f"{contrary:,} studies have another label in the table than in their folder's name; the table's counts."
        )
    rows = Rows(columns, {"official": parts}, notes=notes)
    return with_files(rows, keys, files_by_tail(root, 5), root, TITLE, PAGE)


def _matched(path: Path, pattern: re.Pattern[str]) -> list[re.Match[str]]:
    """Every line of a table without header, those of the hidden files of a Mac left out."""
    lines = [line for line in read_lines(path) if "/._" not in line]
    found = [match for match in map(pattern.fullmatch, lines) if match]
    if len(found) < len(lines) or not lines:
        raise ScanlearnError(
            f"{len(lines) - len(found):,} of {len(lines):,} lines of {path} do not name files of {TITLE} as its tables do; "
            f"get it again from {PAGE}."
        )
    return found


def _says(study: str) -> str:
    return {"positive": "1", "negative": "0"}.get(study.rpartition("_")[2], "")


register(
    Layout(
        name="mura",
        title=TITLE,
        licence="Stanford University Dataset Research Use Agreement (research, not commercial)",
        citation="Rajpurkar P et al.: MURA. MIDL 2018, arXiv 1712.06957",
        page=PAGE,
        marks=("train_image_paths.csv|valid_image_paths.csv|train_labeled_studies.csv|train/XR_WRIST|valid/XR_WRIST",),
        read=_read,
        splits={"official": Split(True, "train and valid by patient; the test part (207 studies) is not public.")},
        counts={"images": 40_005, "split official train": 36_808, "split official val": 3_197},
    )
)
