"""A MURA of seven images with the tables without header, a patient under two parts of the body, files of a Mac."""

from __future__ import annotations

from pathlib import Path

from catalog.layouts.trees.written import picture, take_away

STUDIES = {
    "train/XR_SHOULDER/patient00001/study1_positive": ("image1.png", "image2.png", "image3.png"),
    "train/XR_WRIST/patient00001/study1_negative": ("image1.png",),
    "train/XR_WRIST/patient00002/study2_positive": ("image1.png",),
    "valid/XR_ELBOW/patient11186/study1_negative": ("image1.png", "image2.png"),
}


def make(
    folder: Path, *, version: str = "1.1", wrapped: bool = True, contrary: bool = False, without: tuple[str, ...] = ()
) -> Path:
    """Write the tree and return its root. version: in all paths of the tables; contrary: one label of the table is not
    that of the folder's name; without: names below the root to leave out."""
    root = folder / f"MURA-v{version}" if wrapped else folder
    for number, (study, images) in enumerate(STUDIES.items()):
        for image in images:
            picture(root / study / image, number, "RGB" if number % 2 else "L")
        (root / study / "._image1.png").write_bytes(b"Mac OS X        ")
    for part in ("train", "valid"):
        studies = [study for study in STUDIES if study.startswith(part)]
        paths = [f"MURA-v{version}/{study}/{image}" for study in studies for image in STUDIES[study]]
        labels = [f"MURA-v{version}/{study}/,{int(study.endswith('positive'))}" for study in studies]
        if contrary and part == "train":
            labels[1] = labels[1][:-1] + "1"
        (root / f"{part}_image_paths.csv").write_text("\n".join(paths) + "\n")
        (root / f"{part}_labeled_studies.csv").write_text("\n".join(labels) + "\n")
    take_away(root, without)
    return root
