"""LiTS 2017: 131 abdominal CT with masks of liver and tumours, 70 test volumes without.

Some masks have a header that is not their image's (an identity instead of a place in space), so a mask lies on the
voxels of its image. The headers of volumes 28 to 47 say voxels of 1 mm, which is not their size.
https://arxiv.org/abs/1901.04056
"""

from __future__ import annotations

import re
from pathlib import Path

from scanlearn.catalog.layouts.layout import Layout, Rows, Split, register
from scanlearn.catalog.layouts.tools import files_in, folders_below
from scanlearn.catalog.nifti import grid_of
from scanlearn.errors import ScanlearnError

TITLE = "LiTS 2017"
PAGE = "https://competitions.codalab.org/competitions/17094"
MASK_NAMES = {1: "liver", 2: "tumour"}  # the tumour lies in the liver: its region is both
_FILE = re.compile(r"(test-)?(volume|segmentation)-(\d{1,4})\.nii(?:\.gz)?")
_DEPTH = 2
# Of whoever took them up after Semantic Genesis: by number.
TRANSVW = [*["train"] * 100, *["val"] * 15, *["test"] * 15]


def _read(root: Path) -> Rows:
    found: dict[str, dict[tuple[bool, int], str]] = {"volume": {}, "segmentation": {}}
    for name, path in files_in(root, ["", *folders_below(root, _DEPTH)], (".nii", ".nii.gz")).items():
        if match := _FILE.fullmatch(name):
            found[match[2]].setdefault((bool(match[1]), int(match[3])), path)
    volumes, masks = found["volume"], found["segmentation"]
    numbers = sorted(volumes)
    if not numbers:
        raise ScanlearnError(f"{root} has segmentations of {TITLE} but no volume-0.nii; get the volumes from {PAGE}.")
    bare = sum(not test and (test, n) not in masks for test, n in numbers)
    notes = [f"{bare:,} training volumes have no segmentation and are scans without mask."] if bare else []
    if alone := len(masks.keys() - volumes.keys()):
        notes.append(f"{alone:,} segmentations have no volume and are left out.")
    if unit := sum((grid_of(root / volumes[of]) or ((), ()))[1] == (1.0, 1.0, 1.0) for of in numbers):
        notes.append(
            f"the headers of {unit:,} volumes say voxels of 1 x 1 x 1 mm, as is known of 28 to 47: not their size."
        )
    columns = {
        "paths": [volumes[of] for of in numbers],
        "patient_id": [f"{'test-' if test else ''}{n}" for test, n in numbers],
        "mask_path": [masks.get(of, "") for of in numbers],
        "modality": ["CT"] * len(numbers),
    }
    transvw = ["" if test or n >= len(TRANSVW) else TRANSVW[n] for test, n in numbers]
    return Rows(columns, {"transvw": transvw}, notes=notes, mask_names=MASK_NAMES)


register(
    Layout(
        name="lits",
        title=TITLE,
        licence="CC BY-NC-ND 4.0",
        citation="Bilic et al., The Liver Tumor Segmentation Benchmark (LiTS), Medical Image Analysis 84 (2023)",
        page=PAGE,
        marks=(
            "volume-*.nii*|segmentation-*.nii*|*/volume-*.nii*|*/segmentation-*.nii*|*/*/volume-*.nii*",
            "segmentation-*.nii*|*/segmentation-*.nii*|*/*/segmentation-*.nii*|volume-*.nii*|*/volume-*.nii*",
        ),
        read=_read,
        splits={
            "transvw": Split(
                False, "of TransVW and DiRA, by number: 0-99, 100-114, 115-129; 130 and the test have none."
            )
        },
        counts={"images": 201, "masks": 131},
        contained_in=("msd_liver",),
        masks_on_image=True,
    )
)
