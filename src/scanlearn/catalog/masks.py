"""Which mask belongs to which image, told by folder and file names."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

from scanlearn.catalog.files import stem_of, suffix_of

# A mask folder, and the folders beside it whose files of the same name it outlines. Exact spelling.
FOLDER_PAIRS: dict[str, tuple[str, ...]] = {
    "labelsTr": ("imagesTr",),  # Medical Segmentation Decathlon, nnU-Net
    "labelsTs": ("imagesTs",),
    "labels": ("images",),
    "masks": ("images", "image", "imgs"),
    "mask": ("image", "images", "img"),
    "segmentations": ("images", "volumes", "scans"),
}
MASK_ENDINGS = re.compile(r"[_-](mask|seg|segmentation|label|labelmap)$", re.IGNORECASE)
# What an image may add to the name that it shares with its mask: nothing, a word, or a sequence (BraTS).
_SEQUENCES = ("t1", "t1ce", "t2", "flair", "t1n", "t1c", "t2w", "t2f")
IMAGE_ENDINGS = ("", "_image", "_img", *(sign + sequence for sign in "_-" for sequence in _SEQUENCES))
_CHANNEL = re.compile(r"_\d{4}$")  # nnU-Net: imagesTr/case_0000.nii.gz has labelsTr/case.nii.gz
_SOUNDS_LIKE_MASK = re.compile(r"(^|[_-])(mask|seg|segmentation|labelmap)([_-]|$)", re.IGNORECASE)


def pair_masks(files: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Pair images with masks among relative file names: ({image: mask}, [masks in mask folders without an image]).

    One mask may serve several images (the sequences or channels of one examination).
    """
    files = list(files)
    folders = {folder for file in files for folder in _ancestors(file)}
    by_stem: dict[str, list[str]] = defaultdict(list)
    by_case: dict[str, list[str]] = defaultdict(list)
    for file in files:
        stem = stem_of(file)
        by_stem[stem].append(file)
        if _CHANNEL.search(stem):
            by_case[_CHANNEL.sub("", stem)].append(file)
    pairs: dict[str, str] = {}
    alone: list[str] = []
    for file in files:
        image_folders = _image_folders(file, folders)
        name = stem_of(file.rpartition("/")[2])
        bare = MASK_ENDINGS.sub("", name)
        images: list[str] = []
        for folder in image_folders:
            for stem in dict.fromkeys((folder + name, folder + bare)):
                images += by_stem[stem] if stem in by_stem else by_case.get(stem, [])
        if not image_folders and bare != name and bare:
            beside = file[: len(file) - len(file.rpartition("/")[2])] + bare
            images = [image for ending in IMAGE_ENDINGS for image in by_stem.get(beside + ending, [])]
        pairs.update(dict.fromkeys(images, file))
        if image_folders and not images:
            alone.append(file)
    return pairs, alone


def sounds_like_mask(file: str) -> bool:
    """Whether the file's own name contains a word such as "seg" or "mask"."""
    return bool(_SOUNDS_LIKE_MASK.search(stem_of(file.rpartition("/")[2])))


def is_mask_name(name: str) -> bool:
    """Whether a file of this name is a mask if its image lies beside it ("x_seg.nii.gz")."""
    return bool(suffix_of(name) and MASK_ENDINGS.search(stem_of(name)))


def mask_folders(folder: str) -> list[str]:
    """Where the masks of the images in ``folder`` may lie: "a/imagesTr" -> ["a/labelsTr"]."""
    parts = folder.split("/")
    return [
        "/".join([*parts[:i], mask, *parts[i + 1 :]])
        for i, part in enumerate(parts)
        for mask, images in FOLDER_PAIRS.items()
        if part in images
    ]


def _ancestors(file: str) -> list[str]:
    parts = file.split("/")[:-1]
    return ["/".join(parts[: i + 1]) + "/" for i in range(len(parts))]


def _image_folders(file: str, folders: set[str]) -> list[str]:
    """The folders (ending in "/") in which the images of this file lie, if it lies in a mask folder beside one."""
    parts = file.split("/")[:-1]
    found = []
    for i, part in enumerate(parts):
        for image in FOLDER_PAIRS.get(part, ()):
            if "/".join([*parts[:i], image]) + "/" in folders:
                found.append("/".join([*parts[:i], image, *parts[i + 1 :]]) + "/")
    return found
