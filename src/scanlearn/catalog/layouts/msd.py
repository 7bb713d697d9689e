"""The ten tasks of the Medical Segmentation Decathlon: ``TaskXX_Name`` with its ``dataset.json``.

What the values in the masks mean stands here, not in ``dataset.json``: 1 of the brain tumours is oedema and 2 the
non-enhancing core, the other way round than in BraTS, whose regions are therefore other sums of values (whole {1, 2, 3},
core {2, 3}, enhancing {3}). https://arxiv.org/abs/1902.09063
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from scanlearn.catalog.dataset_json import read_dataset_json, view_of
from scanlearn.catalog.layouts.layout import Layout, Rows, register
from scanlearn.catalog.layouts.msd_folds import NAME, SPLIT, fold0
from scanlearn.catalog.layouts.tools import files_in, lacking, must_have, some_names
from scanlearn.errors import ScanlearnError

PAGE = "http://medicaldecathlon.com"


@dataclass(frozen=True)
class Task:
    """One task: its layout, how its cases are called, its channels, masks and numbers of cases."""

    number: int
    name: str
    case: str  # what the names of its cases begin with
    modality: str
    channels: tuple[str, ...]
    mask_names: dict[int, str]
    train: int
    test: int
    within: tuple[str, ...] = ()
    patients_known: bool = True

    @property
    def title(self) -> str:
        return f"Medical Segmentation Decathlon, task {self.number}"


TASKS = (
    Task(
        *(1, "brain", "BRATS", "MR", ("FLAIR", "T1w", "T1gd", "T2w")),
        *({1: "oedema", 2: "non-enhancing tumour", 3: "enhancing tumour"}, 484, 266),
        within=("brats2017", "brats2018", "brats2019", "brats2020", "brats2021", "brats2023_gli"),
    ),
    Task(2, "heart", "la", "MR", ("MRI",), {1: "left atrium"}, 20, 10),
    Task(3, "liver", "liver", "CT", ("CT",), {1: "liver", 2: "tumour"}, 131, 70, within=("lits",)),
    # Left and right hippocampus of one person are cases of their own, and nothing says which belong together.
    Task(4, "hippocampus", "hippocampus", "MR", ("MRI",), {1: "anterior", 2: "posterior"}, 260, 130, (), False),
    Task(5, "prostate", "prostate", "MR", ("T2", "ADC"), {1: "peripheral zone", 2: "transition zone"}, 32, 16),
    Task(6, "lung", "lung", "CT", ("CT",), {1: "cancer"}, 63, 32),
    Task(7, "pancreas", "pancreas", "CT", ("CT",), {1: "pancreas", 2: "cancer"}, 281, 139),
    Task(8, "hepatic_vessel", "hepaticvessel", "CT", ("CT",), {1: "vessel", 2: "tumour"}, 303, 140),
    Task(9, "spleen", "spleen", "CT", ("CT",), {1: "spleen"}, 41, 20),
    Task(10, "colon", "colon", "CT", ("CT",), {1: "colon cancer primaries"}, 126, 64),
)


def _read(task: Task, root: Path) -> Rows:
    content = read_dataset_json(must_have(root, "dataset.json", task.title, PAGE))
    entries = _entries(content, task, root)
    images, masks = ({**files_in(root, ["imagesTr", "imagesTs"], (".nii", ".nii.gz"))}, files_in(root, ["labelsTr"]))
    there = [(name, mask, test) for name, mask, test in entries if name in images]
    notes = lacking(len(entries) - len(there), len(entries), "images", root, task.title, PAGE)
    if bare := sum(not test and mask not in masks for _, mask, test in there):
        notes.append(f"{bare:,} training cases have no mask in labelsTr.")
    columns = {
        "paths": [images[name] for name, _, _ in there],
        "patient_id": [name.partition(".")[0] for name, _, _ in there],
        "mask_path": ["" if test else masks.get(mask, "") for _, mask, test in there],
        "modality": [task.modality] * len(there),
        "view": [view_of(task.channels)] * len(there),
    }
    rows = Rows(columns, {}, task.patients_known, notes, task.mask_names)
    if task.number == 1:
        folds = [fold0(name, test) for name, _, test in there]
        rows.splits[NAME], rows.orders[NAME] = [part for part, _ in folds], [place for _, place in folds]
    return rows


def _entries(content: dict[str, Any], task: Task, root: Path) -> list[tuple[str, str, bool]]:
    """(image, mask, is it a test case) by the names of the files, as dataset.json lists them."""
    found = []
    try:
        for entry in content["training"]:
            found.append((Path(entry["image"]).name, Path(entry["label"]).name, False))
        for entry in content.get("test", ()):
            found.append((Path(entry).name, "", True))
    except (KeyError, TypeError) as error:
        raise ScanlearnError(
            f"The dataset.json in {root} lists no training images and labels as that of {task.title} does; get it again "
            f"from {PAGE}."
        ) from error
    return found


def _knows(task: Task, root: Path) -> bool:
    """Whether the first images are called as the task's, and none is a channel of nnU-Net (_0000).

    Without images the masks tell, so that a copy that lacks its images is called what it is.
    """
    case = re.compile(rf"{task.case}_\d+\.nii(\.gz)?")
    names = some_names(root / "imagesTr", 16) or some_names(root / "labelsTr", 16)
    return bool(names) and all(case.fullmatch(name) for name in names)


for _task in TASKS:
    register(
        Layout(
            name=f"msd_{_task.name}",
            title=_task.title,
            licence="CC BY-SA 4.0",
            citation="Antonelli et al., The Medical Segmentation Decathlon, Nature Communications 13 (2022)",
            page=PAGE,
            marks=("imagesTr|labelsTr",),
            knows=partial(_knows, _task),
            read=partial(_read, _task),
            splits={NAME: SPLIT} if _task.number == 1 else {},
            counts={"images": _task.train + _task.test, "masks": _task.train},
            contained_in=_task.within,
        )
    )
