"""MedSeg's COVID-19 CT: nine volumes of Radiopaedia (rp_im), and a stack of 100 slices of the Italian SIRM (tr_im).

The nine volumes are ``medseg``, each a patient. The slices of the stack are of more than 40 patients, and nobody says
which: it is a layout of its own, ``medseg_slices``, so that the nine keep their patients. A slice counts as COVID-19
where its mask shows ground glass or consolidation.
"""

from __future__ import annotations

from pathlib import Path

from scanlearn.catalog.layouts.layout import Layout, Rows, register
from scanlearn.catalog.layouts.tools import files_in, first_of
from scanlearn.errors import ScanlearnError

PAGE = "https://medicalsegmentation.com/covid19/ (figshare 13521488 and 13521509)"
LICENCE = "CC0"
CITATION = "MedSeg, Jenssen and Sakinis, MedSeg Covid dataset 1 and 2, figshare (2021)"
MASK_NAMES = {1: "ground glass", 2: "consolidation", 3: "pleural effusion"}
POSITIVE = (1, 2)  # values in a mask that make its slice one of COVID-19; 3 alone does not
VOLUMES, SLICES = "MedSeg COVID-19 CT, nine volumes", "MedSeg COVID-19 CT, 100 slices"
_ENDINGS = (".nii.gz", ".nii")


def _volumes(root: Path) -> Rows:
    images, masks = (_numbered(root, name) for name in ("rp_im", "rp_msk"))
    if not images:
        raise ScanlearnError(f"{root} has no volumes 1.nii.gz to 9.nii.gz in rp_im; unpack rp_im.zip of {PAGE} there.")
    if not masks:
        raise ScanlearnError(f"{root} lacks the masks rp_msk of {VOLUMES}; unpack rp_msk.zip of {PAGE} there.")
    numbers = sorted(images)
    notes = []
    if bare := sum(number not in masks for number in numbers):
        notes.append(f"{bare} of {len(numbers)} volumes have no mask in rp_msk.")
    if first_of(root, "tr_im.nii*") is not None:
        notes.append("tr_im, 100 slices whose patients nobody says, is left out; --layout medseg_slices reads it.")
    columns = {
        "paths": [images[n] for n in numbers],
        "patient_id": [str(n) for n in numbers],
        "mask_path": [masks.get(n, "") for n in numbers],
        "modality": ["CT"] * len(numbers),
    }
    return Rows(columns, notes=notes, mask_names=MASK_NAMES)


def _numbered(root: Path, name: str) -> dict[int, str]:
    """{1: file, ...} in the folder that an archive makes, alone or inside one of its own name."""
    found: dict[int, str] = {}
    for folder in (f"{name}/{name}", name):
        for file, path in files_in(root, [folder], _ENDINGS).items():
            stem = file.partition(".")[0]
            if stem.isascii() and stem.isdigit():
                found.setdefault(int(stem), path)
    return found


def _slices(root: Path) -> Rows:
    columns: dict[str, list[str]] = {"paths": [], "mask_path": [], "modality": []}
    notes = []
    for image, mask in (("tr_im", "tr_mask"), ("val_im", "")):
        path, of_path = first_of(root, f"{image}.nii.gz|{image}.nii"), first_of(root, f"{mask}.nii.gz|{mask}.nii")
        if path is None:
            continue
        if mask and of_path is None:
            notes.append("tr_mask is not there, so the slices have no masks.")
        columns["paths"].append(path.name)
        columns["mask_path"].append(of_path.name if mask and of_path else "")
        columns["modality"].append("CT")
    return Rows(columns, patients_known=False, notes=notes, mask_names=MASK_NAMES)


register(
    Layout(
        name="medseg",
        title=VOLUMES,
        licence=LICENCE,
        citation=CITATION,
        page=PAGE,
        marks=("rp_im|rp_im.zip|rp_msk",),
        read=_volumes,
        counts={"images": 9, "patients": 9, "masks": 9},
    )
)
register(
    Layout(
        name="medseg_slices",
        title=SLICES,
        licence=LICENCE,
        citation=CITATION,
        page=PAGE,
        marks=("tr_im.nii|tr_im.nii.gz",),
        read=_slices,
        counts={"images": 2, "masks": 1},
        gives_way_to=("medseg",),
    )
)
