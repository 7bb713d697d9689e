"""BraTS 2017 to 2024: four sequences of MR for each brain, one scan of four channels, and a mask of the tumour.

What the values in the masks mean differs between the years, and 2023 and 2024 name their cases alike: nothing is
guessed from the values, and where the names do not tell the year it must be said. https://arxiv.org/abs/1811.02629
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from scanlearn.catalog.layouts.layout import Layout, Rows, register
from scanlearn.catalog.layouts.tools import files_in, folders_below, some_names
from scanlearn.errors import ScanlearnError

CHANNELS = ("T1", "T1ce", "T2", "FLAIR")  # the order of the channels, whatever the files are called
OLD, NEW = ("_t1", "_t1ce", "_t2", "_flair"), ("-t1n", "-t1c", "-t2w", "-t2f")
_GLIOMA = {
    1: "necrotic core",
    2: "oedema",
    4: "enhancing tumour",
}  # regions: whole {1, 2, 4}, core {1, 4}, enhancing {4}
_2023 = {1: "necrotic core", 2: "oedema", 3: "enhancing tumour"}  # regions: whole {1, 2, 3}, core {1, 3}, enhancing {3}
_2024 = {1: "non-enhancing core", 2: "surrounding FLAIR hyperintensity", 3: "enhancing tumour", 4: "resection cavity"}
_2024_PED = {1: "enhancing tumour", 2: "non-enhancing tumour", 3: "cystic component", 4: "oedema"}
_PARTS = 4  # folders (HGG, LGG; training, validation) that are looked into in order to recognise a release
_GRADES = ("HGG", "LGG")
_MISNAMED = "W39_1998.09.19_Segm.nii"  # the mask of case 355 of 2020


@dataclass(frozen=True)
class Release:
    """One edition: how its cases are called, how its files end, what its masks say, what it counts."""

    name: str
    title: str
    case: str  # pattern of a case's folder; its first group is the patient
    endings: tuple[str, ...]
    mask_names: dict[int, str]
    counts: dict[str, int]
    year: str = ""  # what a folder above is called where cases of two years are called alike
    within: tuple[str, ...] = ()  # layouts that hold its images as well


RELEASES = (
    Release(
        *("brats2017", "BraTS 2017", r"(Brats17_\w+)", OLD, _GLIOMA, {"images": 331, "masks": 285}),
        within=("brats2018", "brats2019", "brats2020", "brats2021"),
    ),
    Release(
        *("brats2018", "BraTS 2018", r"(Brats18_\w+)", OLD, _GLIOMA, {"images": 351, "masks": 285}),
        within=("brats2019", "brats2020", "brats2021"),
    ),
    Release(
        *("brats2019", "BraTS 2019", r"(BraTS19_\w+)", OLD, _GLIOMA, {"images": 460, "masks": 335}),
        within=("brats2020", "brats2021"),
    ),
    Release(
        *("brats2020", "BraTS 2020", r"(BraTS20_(?:Training|Validation)_\d{3})", OLD, _GLIOMA),
        {"images": 494, "masks": 369},
        within=("brats2021",),
    ),
    Release(
        *("brats2021", "BraTS 2021 and 2022", r"(BraTS2021_\d{5})", OLD, _GLIOMA, {"images": 1470, "masks": 1251}),
        within=("brats2023_gli",),
    ),
    Release("brats2023_gli", "BraTS 2023 glioma", r"(BraTS-GLI-\d{5})-\d{3}", NEW, _2023, {"masks": 1251}, "2023"),
    Release("brats2023_ssa", "BraTS 2023 Africa", r"(BraTS-SSA-\d{5})-\d{3}", NEW, _2023, {}, "2023"),
    Release("brats2023_men", "BraTS 2023 meningioma", r"(BraTS-MEN-\d{5})-\d{3}", NEW, _2023, {}, "2023"),
    Release("brats2023_met", "BraTS 2023 metastases", r"(BraTS-MET-\d{5})-\d{3}", NEW, _2023, {}, "2023"),
    Release("brats2023_ped", "BraTS 2023 paediatric", r"(BraTS-PED-\d{5})-\d{3}", NEW, _2023, {}, "2023"),
    Release("brats2024_gli", "BraTS 2024 glioma after treatment", r"(BraTS-GLI-\d{5})-\d{3}", NEW, _2024, {}, "2024"),
    Release("brats2024_ped", "BraTS 2024 paediatric", r"(BraTS-PED-\d{5})-\d{3}", NEW, _2024_PED, {}, "2024"),
)


def _read(release: Release, root: Path) -> Rows:
    pattern = re.compile(release.case)
    columns: dict[str, list] = {name: [] for name in ("paths", "patient_id", "mask_path", "modality", "view")}
    grades = []
    damaged = 0
    for folder in folders_below(root, 3):
        above, _, case = folder.rpartition("/")
        match = pattern.fullmatch(case)
        if match is None:
            continue
        files = {name.removesuffix(".gz").removesuffix(".nii"): path for name, path in _files(root, folder).items()}
        channels = [files.get(f"{case}{ending}", "") for ending in release.endings]
        if not all(channels):
            damaged += 1
            continue
        sign = release.endings[0][0]
        columns["paths"].append(channels)
        columns["patient_id"].append(match[1])
        columns["mask_path"].append(files.get(f"{case}{sign}seg") or files.get(_MISNAMED.removesuffix(".nii"), ""))
        columns["modality"].append("MR")
        columns["view"].append("+".join(CHANNELS))
        grades.append(next((grade for grade in _GRADES if above.rpartition("/")[2] == grade), ""))
    if not columns["paths"]:
        wanted = ", ".join(f"{ending}.nii.gz" for ending in release.endings)
        raise ScanlearnError(f"No case of {release.title} below {root} has its four files ({wanted}); get it again.")
    if any(grades):
        columns["grade"] = grades
    notes = [f"{damaged:,} cases lack one of their four sequences and are left out."] if damaged else []
    if bare := columns["mask_path"].count(""):
        notes.append(f"{bare:,} of {len(grades):,} cases have no mask; those of validation sets never have one.")
    return Rows(columns, notes=notes, mask_names=release.mask_names)


def _files(root: Path, folder: str) -> dict[str, str]:
    """The NIfTI files of a case; some copies of 2019 have them unpacked into folders of the same names."""
    found = files_in(root, [folder], (".nii", ".nii.gz"))
    for inside in folders_below(root / folder) if not found else ():
        for path in files_in(root, [f"{folder}/{inside}"], (".nii", ".nii.gz")).values():
            found.setdefault(inside, path)
    return found


def _knows(release: Release, root: Path) -> bool:
    """Whether the root, or one of the first folders in it, holds a case of the release."""
    pattern = re.compile(release.case)
    inside = some_names(root)
    deeper = [f"{name}/{below}" for name in inside[:_PARTS] for below in some_names(root / name)]
    cases = [folder for folder in [*inside, *deeper] if pattern.fullmatch(folder.rpartition("/")[2])]
    if not cases or not release.year:
        return bool(cases)
    told = {year for year in ("2023", "2024") if any(year in text for text in (root.name, *inside))}
    return not told or release.year in told


for _release in RELEASES:
    register(
        Layout(
            name=_release.name,
            title=_release.title,
            licence="of the challenge: registration, non-commercial",
            citation="Baid et al., The RSNA-ASNR-MICCAI BraTS 2021 benchmark, arXiv 2107.02314; and those the release names",
            page="https://www.synapse.org/brats",
            marks=(),
            knows=partial(_knows, _release),
            read=partial(_read, _release),
            counts=_release.counts,
            contained_in=_release.within,
        )
    )
