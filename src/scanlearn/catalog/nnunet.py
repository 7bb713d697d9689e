"""nnU-Net v2 data sets: ``imagesTr/CASE_0000.nii.gz`` (a file for each channel), ``labelsTr/CASE.nii.gz``.

https://github.com/MIC-DKFZ/nnUNet/blob/master/documentation/dataset_format.md
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scanlearn.catalog.assemble import Found, assemble
from scanlearn.catalog.dataset_json import channel_names, names_in_masks, view_of
from scanlearn.catalog.files import suffix_of
from scanlearn.catalog.listing import Listing, list_folder
from scanlearn.catalog.locate import Locator
from scanlearn.catalog.masks import CHANNEL
from scanlearn.catalog.modality import modality_of
from scanlearn.catalog.patients import patients_by_pattern
from scanlearn.catalog.table import Catalog
from scanlearn.console import say, warn
from scanlearn.errors import ScanlearnError

# Where the images of training and of test cases lie, and their masks. imagesTs rarely has any.
_PARTS = (("imagesTr", "labelsTr"), ("imagesTs", "labelsTs"))


@dataclass
class _Case:
    """One scan: its channels {number: file} and its mask, relative to the data set."""

    channels: dict[int, str] = field(default_factory=dict)
    mask: str = ""
    test: bool = False


def is_nnunet(content: dict[str, Any]) -> bool:
    """Whether a ``dataset.json`` is one of nnU-Net v2 (v1 lists its cases like the Decathlon)."""
    return isinstance(content.get("file_ending"), str) and ("channel_names" in content or "modality" in content)


def catalog_of_nnunet(path: Path, content: dict[str, Any], patient: str | None = None) -> Catalog:
    """List the cases of an nnU-Net data set, given its ``dataset.json``.

    A case is one scan whose paths are its channels. Test cases (imagesTs) are scans without a mask and in no part of a
    split. A case that lacks a channel is left out; that, unequal counts and missing masks are said. The names of the
    mask's values are kept (``masks.mask_names``). Raises ScanlearnError if no case is whole.
    """
    root = path.parent
    channels = channel_names(content, path)
    ending = content["file_ending"]
    if not suffix_of(f"x{ending}"):
        raise ScanlearnError(f"{path} says that its files end in {ending[:20]!r}, which scanlearn does not read.")
    listed = "dataset" in content
    cases = _cases_in_list(path, content["dataset"]) if listed else _cases_in_folders(root, ending)
    whole = {name: case for name, case in cases.items() if sorted(case.channels) == list(range(len(channels)))}
    if not whole:
        raise ScanlearnError(
            f"None of the {len(cases)} cases of {path} has the {len(channels)} channels that it names; their files are "
            f"called imagesTr/CASE_0000{ending}, imagesTr/CASE_0001{ending}, ..."
        )
    _say_what_is_wrong(content, cases, whole)
    files = [[case.channels[i] for i in range(len(channels))] for case in whole.values()]
    names = names_in_masks(content)
    found = Found(
        names=[*whole],
        paths=[[f"{root}/{file}" for file in of_case] for of_case in files],
        masks=[f"{root}/{case.mask}" if case.mask else "" for case in whole.values()],
        headers=[None] * len(whole),
        dataset=root.name,
        said={
            "modality": [modality_of(channels)] * len(whole),
            "view": [view_of(channels)] * len(whole),
            **patients_by_pattern(patient, files),
        },
        mask_names=names,
    )
    _say_what_is_there([*whole.values()], channels, names)
    return assemble(found)


def _cases_in_folders(root: Path, ending: str) -> dict[str, _Case]:
    """{folder/CASE: case} in imagesTr and imagesTs, sorted."""
    cases: dict[str, _Case] = defaultdict(_Case)
    left_out = Listing()
    for images, masks in _PARTS:
        inside = _inside(root / images)
        for file in inside:
            stem = file.removesuffix(ending)
            match = CHANNEL.search(stem)
            if match is None or stem == file:
                left_out.others[suffix_of(file)] += 1
                continue
            case = cases[f"{images}/{stem[: match.start()]}"]
            case.channels[int(match.group()[1:])] = f"{images}/{file}"
            case.test = images == "imagesTs"
        alone = 0
        for file in _inside(root / masks):
            name = f"{images}/{file.removesuffix(ending)}"
            alone += name not in cases
            if name in cases:
                cases[name].mask = f"{masks}/{file}"
        if alone:
            warn(f"{alone:,} files in {masks} have the name of no case in {images} and are left out.")
    if left_out.others:
        warn(f"{left_out.others.total():,} files are not called CASE_0000{ending} and are left out.")
    if not cases:
        raise ScanlearnError(f"There is no scan in {root}/imagesTr; nnU-Net calls them CASE_0000{ending}.")
    return dict(sorted(cases.items()))


def _inside(folder: Path) -> list[str]:
    return list_folder(folder).images if folder.is_dir() else []


def _cases_in_list(path: Path, entries: object) -> dict[str, _Case]:
    """The cases that ``dataset.json`` names itself: {"dataset": {CASE: {"images": [...], "label": ...}}}.

    The names are what a downloaded file says, so none may lead out of the data set's folder.
    """
    if not isinstance(entries, dict) or not all(_is_entry(entry) for entry in entries.values()) or not entries:
        raise ScanlearnError(
            f'The cases under "dataset" in {path} are not written as {{"images": [...], "label": ...}}.'
        )
    locator = Locator(path, own=False)
    files = locator.locate([file for entry in entries.values() for file in entry["images"]], "entry 'images'")
    masks = locator.locate([entry.get("label") or "" for entry in entries.values()], "entry 'label'", masks=True)
    given = iter(files.to_pylist())
    cases = {}
    for entry, mask in zip(entries.values(), masks.to_pylist(), strict=True):
        channels = {i: locator.relative(next(given)) for i in range(len(entry["images"]))}
        name = CHANNEL.sub("", channels[0].removesuffix(suffix_of(channels[0])))
        cases[name] = _Case(channels, locator.relative(mask))
    if len(cases) < len(entries):
        raise ScanlearnError(f"{len(entries) - len(cases)} cases of {path} name the images of another; name each once.")
    return dict(sorted(cases.items()))


def _is_entry(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("images"), list)
        and bool(entry["images"])
        and all(isinstance(file, str) and file for file in entry["images"])
        and isinstance(entry.get("label") or "", str)
    )


def _say_what_is_wrong(content: dict[str, Any], cases: dict[str, _Case], whole: dict[str, _Case]) -> None:
    if len(whole) < len(cases):
        warn(
            f"{len(cases) - len(whole):,} of {len(cases):,} cases lack a channel file or have one too many and are left "
            "out; dataset.json names the channels."
        )
    training = [case for case in cases.values() if not case.test]
    number = content.get("numTraining")
    if isinstance(number, int) and number != len(training):
        warn(f"dataset.json speaks of {number:,} training cases, {len(training):,} are there.")
    unlabelled = sum(not case.mask for case in training)
    if unlabelled:
        warn(
            f"{unlabelled:,} of {len(training):,} training cases have no file in labelsTr; they are scans without mask."
        )


def _say_what_is_there(cases: Sequence[_Case], channels: list[str], names: dict[int, str]) -> None:
    masked, test = sum(bool(case.mask) for case in cases), sum(case.test for case in cases)
    of = (
        f"{len(channels)} channels ({', '.join(channels)})" if len(channels) > 1 else ", ".join(channels) or "1 channel"
    )
    classes = f" of {', '.join([*names.values()][:12])}" + (", ..." if len(names) > 12 else "") if names else ""
    say(f"nnU-Net: {len(cases):,} scans, {of}; {masked:,} with masks{classes}.")
    if test:
        bare = sum(case.test and not case.mask for case in cases)
        say(f"{test:,} of them are test cases (imagesTs), {bare:,} without mask; a split treats them like the others.")
