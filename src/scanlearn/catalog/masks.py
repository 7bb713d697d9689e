"""Which mask belongs to which image, told by folder and file names; and what the numbers in masks are called."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

import pyarrow as pa

from scanlearn.catalog.files import stem_of, suffix_of

_IMAGE_FOLDERS = ("images", "image", "imgs", "img", "volumes", "volume", "scans", "scan")
# A mask folder, and the folders beside it whose files of the same name it outlines; capitals do not matter.
FOLDER_PAIRS: dict[str, tuple[str, ...]] = {
    "labelstr": ("imagestr",),  # Medical Segmentation Decathlon, nnU-Net
    "labelsts": ("imagests",),
    **dict.fromkeys(("labels", "label", "labelmaps", "masks", "mask", "annotations"), _IMAGE_FOLDERS),
    **dict.fromkeys(("segmentations", "segmentation", "segs", "seg", "groundtruth", "ground_truth"), _IMAGE_FOLDERS),
}
_MASK_WORDS = "mask|seg|dseg|segmentation|label|labels|labelmap|groundtruth|gt"
MASK_ENDINGS = re.compile(rf"[_-]({_MASK_WORDS})$", re.IGNORECASE)
_SOUNDS_LIKE_MASK = re.compile(
    rf"(^|[_-])({_MASK_WORDS}|masks|segmentations|probseg|votes|annotations?)([_-]|$)", re.IGNORECASE
)
# What an image may add to the name that it shares with its mask: nothing, a word, or a sequence (BraTS).
SEQUENCES = ("t1", "t1ce", "t2", "flair", "t1n", "t1c", "t2w", "t2f")
IMAGE_ENDINGS = ("", "_image", "_img", *(sign + sequence for sign in "_-" for sequence in SEQUENCES))
CHANNEL = re.compile(r"_\d{4}$")  # nnU-Net: imagesTr/case_0000.nii.gz has labelsTr/case.nii.gz
MASK_NAMES = b"scanlearn.mask_names"  # where the schema of a catalogue's table keeps {value in a mask: name}


def pair_masks(files: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Pair images with masks among relative file names: ({image: mask}, [masks in mask folders without an image]).

    One mask may serve several images (the sequences or channels of one examination).
    """
    files = list(files)
    beside = _folders_beside(files)
    image_folders_of = {
        folder: _image_folders(folder, beside) for folder in {file.rpartition("/")[0] for file in files}
    }
    candidates = [file for file in files if image_folders_of[file.rpartition("/")[0]] or _ends_like_mask(file)]
    if not candidates:  # the usual case, which costs no dictionary of all files
        return {}, []
    by_stem: dict[str, list[str]] = defaultdict(list)
    by_case: dict[str, list[str]] = defaultdict(list)
    for file in files:
        stem = stem_of(file)
        by_stem[stem].append(file)
        if CHANNEL.search(stem):
            by_case[CHANNEL.sub("", stem)].append(file)
    pairs: dict[str, str] = {}
    alone: list[str] = []
    for file in candidates:
        folder, _, name = file.rpartition("/")
        image_folders = image_folders_of[folder]
        name = stem_of(name)
        bare = MASK_ENDINGS.sub("", name)
        images: list[str] = []
        for image_folder in image_folders:
            for stem in dict.fromkeys((image_folder + name, image_folder + bare)):
                images += by_stem[stem] if stem in by_stem else by_case.get(stem, [])
        if not image_folders and bare != name and bare:
            start = f"{folder}/{bare}" if folder else bare
            images = [image for ending in IMAGE_ENDINGS for image in by_stem.get(start + ending, [])]
        pairs.update(dict.fromkeys(images, file))
        if image_folders and not images:
            alone.append(file)
    return pairs, alone


def sounds_like_mask(file: str) -> bool:
    """Whether the file's own name has a word such as "seg", "mask" or "votes", or a folder above it is a mask folder."""
    *folders, name = file.split("/")
    return bool(_SOUNDS_LIKE_MASK.search(stem_of(name))) or any(folder.lower() in FOLDER_PAIRS for folder in folders)


def is_mask_name(name: str) -> bool:
    """Whether a file of this name is a mask if its image lies beside it ("x_seg.nii.gz")."""
    return bool(suffix_of(name)) and _ends_like_mask(name)


def _ends_like_mask(file: str) -> bool:
    return bool(MASK_ENDINGS.search(stem_of(file)))


def mask_folders(folder: str, inside: Callable[[str], Iterable[str]]) -> list[str]:
    """Where the masks of the images in ``folder`` lie: "a/imagesTr" -> ["a/labelsTr"]; ``inside`` lists a folder."""
    parts = folder.split("/")
    found = []
    for i, part in enumerate(parts):
        masks = {mask for mask, images in FOLDER_PAIRS.items() if part.lower() in images}
        if masks:
            names = sorted(name for name in inside("/".join(parts[:i])) if name.lower() in masks)
            found += ["/".join([*parts[:i], name, *parts[i + 1 :]]) for name in names]
    return found


def with_mask_names(table: pa.Table, names: Mapping[int, str]) -> pa.Table:
    """The table of a catalogue with the names of the values in its masks, {1: "tumour"}, kept in its schema."""
    kept = dict(table.schema.metadata or {})
    text = json.dumps({str(value): name for value, name in names.items()})
    return table.replace_schema_metadata({**kept, MASK_NAMES: text.encode()})


def mask_names(table: pa.Table) -> dict[int, str]:
    """What ``with_mask_names`` kept, {} if nothing."""
    kept = (table.schema.metadata or {}).get(MASK_NAMES, b"{}")
    return {int(value): str(name) for value, name in json.loads(kept).items()}


def _folders_beside(files: list[str]) -> dict[str, dict[str, list[str]]]:
    """{folder: {name in lower case: the folders of that name in it}}."""
    beside: dict[str, dict[str, list[str]]] = {}
    known: set[str] = set()
    for folder in {file.rpartition("/")[0] for file in files}:
        while folder and folder not in known:
            known.add(folder)
            above, _, name = folder.rpartition("/")
            beside.setdefault(above, {}).setdefault(name.lower(), []).append(folder)
            folder = above
    return beside


def _image_folders(folder: str, beside: dict[str, dict[str, list[str]]]) -> list[str]:
    """The folders (ending in "/") of the images of a mask folder's files, if it lies beside an image folder."""
    parts = folder.split("/") if folder else []
    found = []
    for i, part in enumerate(parts):
        above = "/".join(parts[:i])
        for name in FOLDER_PAIRS.get(part.lower(), ()):
            for images in sorted(beside.get(above, {}).get(name, ())):
                found.append("/".join([images, *parts[i + 1 :]]) + "/")
    return found
