"""A folder without a table: every image file is a scan, DICOM series and masks find each other."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

from scanlearn.catalog.assemble import Found, assemble
from scanlearn.catalog.bids import patient_and_session
from scanlearn.catalog.columns import SPLIT_WORDS, normal
from scanlearn.catalog.dicom import Header, no_images, read_headers, sort_into_scans
from scanlearn.catalog.files import DICOM_SUFFIXES, IMAGE_SUFFIXES, suffix_of
from scanlearn.catalog.masks import FOLDER_PAIRS, SEQUENCES, pair_masks, sounds_like_mask
from scanlearn.catalog.modality import modality_in
from scanlearn.catalog.nifti import grid_of
from scanlearn.catalog.patients import FOLDER, patients_by_pattern
from scanlearn.catalog.table import Catalog
from scanlearn.console import say, warn
from scanlearn.errors import ScanlearnError

# Folders whose names say what kind of file they hold and nothing about the scans, in lower case.
_PLAIN_FOLDERS = {*FOLDER_PAIRS, *(image for images in FOLDER_PAIRS.values() for image in images), "dicom", "nifti"}
_MOST_MASKS = 16  # of one folder that are compared with its scans by their grids


def catalog_of_files(root: Path, files: list[str], patient: str | None = None) -> Catalog:
    """List the image files (relative to ``root``, "/" between folders) as scans, masks with their images.

    Sub-folders become the label column ``folder`` when there are at least two, or the patients for
    ``patient="folder"``. Top folders called train, val and test fill ``split``. Otherwise patients come from a pattern
    over the file names, from DICOM headers or from BIDS names (sub-01/ses-02/), or stay unknown.
    """
    images, pairs, alone = _sort_out_masks(root, files)
    series, headers = find_series(root, images)
    if not series:
        raise ScanlearnError(f"There is no scan in {root}; files that end in {', '.join(IMAGE_SUFFIXES)} are scans.")
    by_folder = _pair_in_folder(root, series, alone)
    _say_about_masks(series, pairs, by_folder, len({*alone} - {*by_folder.values()}))
    pairs |= by_folder
    _unpair_series(series, pairs)
    first = [members[0] for members in series]
    splits, folders = _words_of_folders(first)
    bids = [patient_and_session(file) for file in first]
    mask_of = [next((pairs[file] for file in members if file in pairs), "") for members in series]
    # Sub-folders that are patients say nothing about what the scans show.
    several = len({*folders} - {""}) > 1 and patient != FOLDER and not any(subject for subject, _ in bids)
    found = Found(
        names=_names(series, root.name),
        paths=[[f"{root}/{file}" for file in members] for members in series],
        masks=[f"{root}/{mask}" if mask else "" for mask in mask_of],
        headers=[headers.get(file) for file in first],
        dataset=root.name,
        said={
            "patient_id": folders if patient == FOLDER else [subject for subject, _ in bids],
            "study_id": [f"{subject}_{session}" if session else "" for subject, session in bids],
            "split": splits,
            "modality": ["" if headers.get(file) else modality_in(f"{root.name}/{file}") for file in first],
            **patients_by_pattern(patient, series),
        },
        labels={"folder": folders} if several else {},
        broken=[file in headers and _is_broken(headers[file]) for file in first],
    )
    catalog = assemble(found)
    if several and not catalog.patients_known:
        say('If each sub-folder is one patient, say so: --patient folder (in Python patient="folder").')
    if headers and len(catalog) > 1 and catalog.patients_known and len({*catalog.patients}) == 1:
        warn(
            "All DICOM headers name the same patient; if that is only a placeholder, give a table with the patients or "
            'say patient="folder".'
        )
    return catalog


def find_series(root: Path, images: list[str]) -> tuple[list[list[str]], dict[str, Header | None]]:
    """Group the files into scans: ([files of each scan], sorted by the first file) and the headers of DICOM files.

    DICOM files that are no scans (reports, localisers, segmentations) are left out, and it is said how many.
    """
    dicom = [file for file in images if _is_dicom(file)]
    if not dicom:
        return [[file] for file in sorted(images)], {}
    headers = dict(zip(dicom, read_headers([f"{root}/{file}" for file in dicom]), strict=True))
    found = sort_into_scans(dicom, [headers[file] for file in dicom])
    for sentence in found.sentences():
        say(sentence)
    series = [[dicom[i] for i in members] for members in found.scans]
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
    return splits, [next((f for f in folders if f.lower() not in _PLAIN_FOLDERS), "") for folders in parts]


def _sort_out_masks(root: Path, files: list[str]) -> tuple[list[str], dict[str, str], list[str]]:
    """(images, {image: mask}, files that are masks by their name or folder but of no image of the same name).

    Where nothing but such files is left, they are the scans. What a DICOM file is its header tells: segmentations stay
    among the images, from which ``find_series`` takes them out.
    """
    pairs, alone = pair_masks(files)
    objects = no_images(f"{root}/{mask}" for mask in {*pairs.values(), *alone})
    pairs = {image: mask for image, mask in pairs.items() if f"{root}/{mask}" not in objects}
    alone = [mask for mask in alone if f"{root}/{mask}" not in objects]
    masks = {*pairs.values(), *alone}
    rest = [file for file in files if file not in masks]
    doubtful = {file for file in rest if file not in pairs and not _is_dicom(file) and sounds_like_mask(file)}
    if len(doubtful) == len(rest):
        return rest, pairs, alone
    return [file for file in rest if file not in doubtful], pairs, [*alone, *sorted(doubtful)]


def _unpair_series(series: list[list[str]], pairs: dict[str, str]) -> None:
    """Take away masks that are single DICOM files of scans that are series; it is said."""
    dicom = {file for file, mask in pairs.items() if _is_dicom(mask)}
    lost = [members for members in series if len(members) > 1 and dicom.intersection(members)]
    for members in lost:
        for file in dicom.intersection(members):
            del pairs[file]
    if lost:
        warn(
            f"The masks of {len(lost):,} DICOM series are DICOM files themselves, of which scanlearn reads single images "
            "only, so they are left out; save them as NIfTI."
        )


def _pair_in_folder(root: Path, series: list[list[str]], alone: list[str]) -> dict[str, str]:
    """{first file of a scan: mask} for masks whose names do not tell, but whose folder leaves no doubt.

    ``p1/seg.nii.gz`` belongs to the one scan in p1, or to all if they are sequences (t1, flair); any other mask to the
    one scan of its folder with the same grid. A scan that two masks fit gets none.
    """
    masks_in, scans_in = defaultdict(list), defaultdict(list)
    for mask in alone:
        masks_in[mask.rpartition("/")[0]].append(mask)
    for members in series:
        scans_in[members[0].rpartition("/")[0]].append(members)
    fitting: dict[str, list[str]] = defaultdict(list)
    for folder, masks in masks_in.items():
        scans = scans_in.get(folder, [])
        if not scans or len(masks) > _MOST_MASKS:
            continue
        named = [mask for mask in masks if _name(mask) in FOLDER_PAIRS]
        if len(named) == len(masks) == 1 and (len(scans) == 1 or all(_name(s[0]) in SEQUENCES for s in scans)):
            fitting |= {members[0]: named for members in scans}
            continue
        grids = [(members[0], grid_of(f"{root}/{members[0]}")) for members in scans if len(members) == 1]
        for mask in masks:
            grid = grid_of(f"{root}/{mask}")
            same = [scan for scan, of_scan in grids if grid is not None and of_scan == grid]
            if len(same) == 1:
                fitting[same[0]].append(mask)
    return {scan: masks[0] for scan, masks in fitting.items() if len(masks) == 1}


def _is_dicom(file: str) -> bool:
    return suffix_of(file) in ("", *DICOM_SUFFIXES)  # without a suffix only DICOM is listed


def _is_broken(header: Header | None) -> bool:
    return header is None or not header.plane.rows


def _name(file: str) -> str:
    return file.rpartition("/")[2].partition(".")[0].lower()


def _say_about_masks(series: list[list[str]], pairs: dict[str, str], by_folder: dict[str, str], alone: int) -> None:
    masked = sum(any(file in pairs for file in members) for members in series)
    if masked:
        say(f"{masked:,} of {len(series):,} scans have a mask of the same name.")
    if by_folder:
        say(f"{len(by_folder):,} of {len(series):,} scans have a mask that fits no other scan of their folder.")
    if alone:
        warn(
            f"{alone:,} files are masks by their names or folders (mask, seg, label, votes, ...), but it is not clear of "
            "which scan; they are left out, and a table with a column `mask` can join them."
        )
