"""A folder without a table: every image file is a scan, DICOM series and masks find each other."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from scanlearn.catalog.assemble import Found, assemble
from scanlearn.catalog.columns import SPLIT_WORDS, normal
from scanlearn.catalog.dicom import Header, group_series, read_headers
from scanlearn.catalog.files import DICOM_SUFFIXES, IMAGE_SUFFIXES, suffix_of
from scanlearn.catalog.masks import FOLDER_PAIRS, pair_masks, sounds_like_mask
from scanlearn.catalog.table import Catalog
from scanlearn.console import say, warn
from scanlearn.errors import ScanlearnError

# Folders whose names say what kind of file they hold and nothing about the scans.
_PLAIN_FOLDERS = {*FOLDER_PAIRS, *(image for images in FOLDER_PAIRS.values() for image in images), "dicom", "nifti"}
_BIDS = re.compile(r"(?:^|/)(sub-[A-Za-z0-9]+)(?:/(ses-[A-Za-z0-9]+))?/")


def catalog_of_files(root: Path, files: list[str], patient_is_folder: bool = False) -> Catalog:
    """List the image files (relative to ``root``, "/" between folders) as scans, masks with their images.

    Sub-folders become the label column ``folder`` when there are at least two, or the patients if the user says so.
    Top folders called train, val and test fill ``split``. Otherwise patients come from DICOM headers or from BIDS names
    (sub-01/ses-02/), or stay unknown.
    """
    pairs, alone = pair_masks(files)
    masks = {*pairs.values(), *alone}
    images = [file for file in files if file not in masks]
    _say_about_masks(images, pairs, alone)
    series, headers = find_series(root, images)
    if not series:
        raise ScanlearnError(f"There is no scan in {root}; files that end in {', '.join(IMAGE_SUFFIXES)} are scans.")
    first = [members[0] for members in series]
    splits, folders = _words_of_folders(first)
    bids = [match.groups("") if (match := _BIDS.search(file)) else ("", "") for file in first]
    mask_of = [next((pairs[file] for file in members if file in pairs), "") for members in series]
    # Sub-folders that are patients say nothing about what the scans show.
    several = len({*folders} - {""}) > 1 and not patient_is_folder and not any(subject for subject, _ in bids)
    found = Found(
        names=_names(series, root.name),
        paths=[[f"{root}/{file}" for file in members] for members in series],
        masks=[f"{root}/{mask}" if mask else "" for mask in mask_of],
        headers=[headers.get(file) for file in first],
        dataset=root.name,
        said={
            "patient_id": folders if patient_is_folder else [subject for subject, _ in bids],
            "study_id": [f"{subject}_{session}" if session else "" for subject, session in bids],
            "split": splits,
        },
        labels={"folder": folders} if several else {},
    )
    catalog = assemble(found)
    if several and not catalog.patients_known:
        say('If each sub-folder is one patient, say so with patient="folder".')
    if headers and len(catalog) > 1 and catalog.patients_known and len({*catalog.patients}) == 1:
        warn(
            "All DICOM headers name the same patient; if that is only a placeholder, give a table with the patients or "
            'say patient="folder".'
        )
    return catalog


def find_series(root: Path, images: list[str]) -> tuple[list[list[str]], dict[str, Header | None]]:
    """Group the files into scans: ([files of each scan], sorted by the first file) and the headers of DICOM files.

    DICOM files without pixels (reports, plans) and segmentations are left out, and it is said how many.
    """
    dicom = [file for file in images if suffix_of(file) in ("", *DICOM_SUFFIXES)]  # listed without a suffix: DICOM
    headers = dict(zip(dicom, read_headers([f"{root}/{file}" for file in dicom]), strict=True))
    other = [file for file in dicom if (header := headers[file]) is not None and not header.is_image]
    if other:
        say(f"{len(other)} DICOM files are no scans (reports, plans, segmentations) and are left out.")
    left_out = {*other}
    stacked = [file for file in dicom if file not in left_out]
    groups = group_series(stacked, [headers[file] for file in stacked])
    series = [[stacked[i] for i in members] for members in groups]
    series += [[file] for file in images if file not in headers]
    return sorted(series, key=lambda members: members[0]), headers


def _names(series: list[list[str]], root_name: str) -> list[str]:
    """Names from paths: a single file goes by its own, a series by its folder, numbered if the folder has several."""
    folder_of = [members[0].rpartition("/")[0] or root_name for members in series]
    often = Counter(folder for folder, members in zip(folder_of, series, strict=True) if len(members) > 1)
    seen: Counter[str] = Counter()
    names = []
    for folder, members in zip(folder_of, series, strict=True):
        seen[folder] += len(members) > 1
        number = f"/{seen[folder]}" if often[folder] > 1 else ""
        names.append(folder + number if len(members) > 1 else members[0])
    return names


def _words_of_folders(files: list[str]) -> tuple[list[str], list[str]]:
    """(split, folder) of each file: the top folder if all are called train, val or test; then the next that tells."""
    parts = [file.split("/")[:-1] for file in files]
    top = [normal(folders[0]) if folders else "" for folders in parts]
    splits = [SPLIT_WORDS.get(word, "") for word in top]
    if not all(splits) or len({*splits}) < 2:
        splits = [""] * len(files)
    parts = [folders[bool(split) :] for folders, split in zip(parts, splits, strict=True)]
    return splits, [next((f for f in folders if f not in _PLAIN_FOLDERS), "") for folders in parts]


def _say_about_masks(images: list[str], pairs: dict[str, str], alone: list[str]) -> None:
    if pairs:
        say(f"{len(pairs)} of {len(images)} image files have a mask of the same name.")
    if alone:
        warn(f"{len(alone)} files lie in mask folders but no image has their name; the first is {alone[0]}.")
    doubtful = [file for file in images if sounds_like_mask(file)]
    if doubtful:
        warn(
            f"{len(doubtful)} of the scans sound like masks of no image, the first is {doubtful[0]}; "
            "move them away or list the scans in a table."
        )
