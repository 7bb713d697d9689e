"""COVID-CT (UCSD-AI4H): 746 slices of CT cut out of journals and web pages, as PNG and JPEG.

The names in the tables have "%" where many copies of the images have "_"; some files called PNG are JPEG, some have an
alpha channel. What stands after "p" in a name is the page of a journal and no patient. https://arxiv.org/abs/2003.13865
"""

from __future__ import annotations

from pathlib import Path

from scanlearn.catalog.layouts.layout import Layout, Rows, Split, register
from scanlearn.catalog.layouts.sheet import read_sheet
from scanlearn.catalog.layouts.tools import columns_of, files_in, first_of, lacking, must_have, read_columns, read_lines

TITLE = "COVID-CT"
PAGE = "https://github.com/UCSD-AI4H/COVID-CT"
# class: (folder of its images, its lists of names by part)
CLASSES = {
    "COVID": ("CT_COVID", {part: f"Data-split/COVID/{part}CT_COVID.txt" for part in ("train", "val", "test")}),
    "NonCOVID": (
        "CT_NonCOVID",
        {part: f"Data-split/NonCOVID/{part}CT_NonCOVID.txt" for part in ("train", "val", "test")},
    ),
}


def _read(root: Path) -> Rows:
    patients = {"COVID": _covid_patients(root), "NonCOVID": _other_patients(root)}
    columns: dict[str, list[str]] = {"paths": [], "patient_id": [], "diagnosis": []}
    official: list[str] = []
    missing = strangers = listed = 0
    for diagnosis, (folder, lists) in CLASSES.items():
        images, patient_of, part_of = _images(root, folder), patients[diagnosis], _parts(root, lists)
        missing += len(patient_of.keys() - images.keys())
        strangers += len(images.keys() - patient_of.keys())
        listed += len(part_of.keys() - patient_of.keys())
        for name in sorted(patient_of.keys() & images.keys()):
            columns["paths"].append(images[name])
            columns["patient_id"].append(patient_of[name])
            columns["diagnosis"].append(diagnosis)
            official.append(part_of.get(name, ""))
    notes = lacking(missing, sum(map(len, patients.values())), "images", root, TITLE, PAGE)
    if strangers:
        notes.append(
            f"{strangers:,} images are in no table of {TITLE} and are left out; copies hold those of other sets."
        )
    if listed:
        notes.append(
            f"{listed:,} names in Data-split are in no table of {TITLE} and count for nothing; forks add such."
        )
    return Rows(columns, {"official": official}, notes=notes)


def _plain(name: str) -> str:
    """A name as tables and files are compared. Nothing is cut off: "14.png" and "14%0.jpg" are two images."""
    return name.strip().replace("%", "_")


def _images(root: Path, folder: str) -> dict[str, str]:
    place = first_of(root, f"Images-processed/{folder}/{folder}|Images-processed/{folder}|{folder}/{folder}|{folder}")
    inside = files_in(root, [place.relative_to(root).as_posix()], (".png", ".jpg", ".jpeg")) if place else {}
    return {_plain(name): path for name, path in inside.items()}


def _covid_patients(root: Path) -> dict[str, str]:
    path = must_have(root, "COVID-CT-MetaInfo.xlsx", TITLE, PAGE)
    names, *rows = read_sheet(path, "positive_captions") or [[]]
    table = columns_of(names, rows, ("File name", "Patient ID"), path, TITLE, PAGE)
    return {_plain(name): who for name, who in zip(table["File name"], table["Patient ID"], strict=True) if name}


def _other_patients(root: Path) -> dict[str, str]:
    path = must_have(root, "NonCOVID-CT-MetaInfo.csv", TITLE, PAGE)
    table = read_columns(path, ("image name", "patient id"), TITLE, PAGE)
    return {_plain(name): who for name, who in zip(table["image name"], table["patient id"], strict=True) if name}


def _parts(root: Path, lists: dict[str, str]) -> dict[str, str]:
    """{image: train, val or test}."""
    return {_plain(n): part for part, name in lists.items() for n in read_lines(must_have(root, name, TITLE, PAGE))}


register(
    Layout(
        name="covid_ct",
        title=TITLE,
        licence="see the page; the images are from publications, whose terms hold",
        citation="Yang et al., COVID-CT-Dataset: a CT scan dataset about COVID-19, arXiv 2003.13865 (2020)",
        page=PAGE,
        marks=(
            "Images-processed/CT_COVID*|CT_COVID*",
            "Images-processed/CT_NonCOVID*|CT_NonCOVID*",
            "COVID-CT-MetaInfo.xlsx|NonCOVID-CT-MetaInfo.csv|Data-split",
        ),
        read=_read,
        splits={"official": Split(True, "of the owners, by patient; COVID patients 1-130, 131-162 and 163-216.")},
        counts={
            "images": 746,
            "patients": 384,
            "COVID": 349,
            "NonCOVID": 397,
            "split official train": 425,
            "split official val": 118,
            "split official test": 203,
        },
    )
)
