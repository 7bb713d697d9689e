"""Where the files that a table names really are."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from scanlearn.catalog.files import stem_of, suffix_of
from scanlearn.catalog.listing import list_folder
from scanlearn.catalog.masks import is_mask_name, mask_folders, pair_masks
from scanlearn.console import say
from scanlearn.errors import ScanlearnError


class Locator:
    """Finds the files and DICOM folders named by the cells of one table, or by a list in JSON.

    A name is absolute or relative to the table's folder. A name that leads nowhere is looked for below that folder
    (``x.nii.gz`` as imagesTr/x.nii.gz; the suffix may be missing) and taken if exactly one file fits.

    ``own`` says that the table is the user's word, given by its path: then it may name files anywhere. What came with
    the data (a table found in a folder, every JSON) may not: an absolute name or one with ".." that leads out of the
    table's folder is refused, so that a downloaded file cannot pull other files of this machine into a store. Links
    in the file system are followed: only the user puts them there.
    """

    def __init__(self, table: Path, own: bool = True):
        self.table = table
        self.root = str(table.parent)
        self.own = own
        self._folders: dict[str, dict[str, bool]] = {}

    def locate(self, names: Sequence[str], column: str, masks: bool = False) -> list[str]:
        """The absolute paths of the names, "" for "". Missing ones are refused with their number and the first.

        ``column`` is what messages call the place of the names: "column 'image'".
        """
        paths = [self._absolute(name) for name in names]
        outside = sum(bool(path) and not self._allowed(path) for path in paths)
        if outside:
            raise ScanlearnError(
                f"{outside:,} file names in {column} of {self.table.name} lead out of {self.root}, and a list that comes "
                "with the data may not; put the files there, or give a table of your own by its path."
            )
        lost = [i for i, path in enumerate(paths) if path and not self._exists(path)]
        found = self._search({i: names[i] for i in lost}, column, masks) if lost else []
        missing = [i + 1 for i, path in zip(lost, found, strict=True) if not path]
        if missing:
            raise ScanlearnError(
                f"{len(missing)} of {len(names) - paths.count('')} files in {column} of {self.table.name} are "
                f"missing, the first is number {missing[0]:,}; names are relative to the folder of {self.table.name}."
            )
        for i, path in zip(lost, found, strict=True):
            paths[i] = path
        if lost:
            folders = len({path.rpartition("/")[0] for path in found})
            where = "a folder" if folders == 1 else f"{folders:,} folders"
            say(f"{len(lost):,} file names in {column} were found in {where} below {self.table.name}'s own.")
        return paths

    def is_folder(self, path: str) -> bool:
        """Whether a located path is a folder."""
        folder, _, name = path.rpartition("/")
        return self._listing(folder)[name]

    def holds(self, name: str) -> bool:
        """Whether the name leads to a file or folder."""
        path = self._absolute(name)
        return self._allowed(path) and self._exists(path)

    def channels_of(self, name: str) -> list[str]:
        """The names of nnU-Net's channel files for a case: "a.nii.gz" -> ["a_0000.nii.gz", "a_0001.nii.gz"]."""
        path = self._absolute(name)
        if not self._allowed(path):
            return []
        folder, _, file = path.rpartition("/")
        stem, suffix = stem_of(file), suffix_of(file)
        channels: list[str] = []
        while f"{stem}_{len(channels):04d}{suffix}" in self._listing(folder):
            channels.append(f"{stem}_{len(channels):04d}{suffix}")
        return [f"{folder}/{channel}" for channel in channels]

    def relative(self, path: str) -> str:
        """The path below the table's folder; a path elsewhere as it is."""
        return path.removeprefix(self.root + "/")

    def short_names(self, paths: Sequence[str]) -> list[str]:
        """Distinct relative names: below the table's folder, or below what the files elsewhere have in common."""
        names = [self.relative(path) for path in paths]
        elsewhere = {name.rpartition("/")[0] for name in names if name.startswith("/")}
        common = os.path.commonpath(elsewhere).rstrip("/") + "/" if elsewhere else ""
        return [name.removeprefix(common) if name.startswith("/") else name for name in names]

    def masks_beside(self, paths: Sequence[str]) -> dict[str, str]:
        """{path: mask} for the located files that have a mask of the same name (see ``pair_masks``)."""
        folders = {path.rpartition("/")[0] for path in paths}
        there = [f"{folder}/{name}" for folder in folders for name in self._listing(folder) if is_mask_name(name)]
        for masks in {masks for folder in folders for masks in mask_folders(folder, self._listing)}:
            there += [f"{masks}/{name}" for name in self._listing(masks) if suffix_of(name)]
        scans = {*paths}
        there = sorted({*there} - scans)
        pairs = pair_masks([*paths, *there])[0] if there else {}
        return {image: mask for image, mask in pairs.items() if image in scans}

    def _absolute(self, name: str) -> str:
        if not name:
            return ""
        name = name.replace("\\", "/")
        path = name if name.startswith("/") else f"{self.root}/{name}"
        plain = not ("/." in path or "//" in path or path.endswith("/"))
        return path if plain else os.path.normpath(path)

    def _allowed(self, path: str) -> bool:
        return self.own or path.startswith(self.root.rstrip("/") + "/")

    def _exists(self, path: str) -> bool:
        folder, _, name = path.rpartition("/")
        return name in self._listing(folder)

    def _listing(self, folder: str) -> dict[str, bool]:
        """{name: is it a folder} of what lies in a folder: one call for each folder instead of one for each file."""
        if folder not in self._folders:
            try:
                with os.scandir(folder or "/") as entries:
                    self._folders[folder] = {entry.name: entry.is_dir() for entry in entries}
            except (
                OSError,
                ValueError,
            ):  # no such folder, or no name at all: what is in it is missing, and reported so
                self._folders[folder] = {}
        return self._folders[folder]

    @cached_property
    def _below(self) -> tuple[list[str], list[str]]:
        """All (images, masks) below the table's folder."""
        files = list_folder(Path(self.root)).images
        pairs, alone = pair_masks(files)
        masks = {*pairs.values(), *alone}
        return [file for file in files if file not in masks], [file for file in files if file in masks]

    def _search(self, names: Mapping[int, str], column: str, masks: bool) -> list[str]:
        """The one file below the table's folder whose path ends like each name, "" if there is none.

        What is wrong is told by number, as a file's name may be that of a person.
        """
        wanted = [tuple(part for part in name.replace("\\", "/").split("/") if part != ".") for name in names.values()]
        lengths = {len(parts) for parts in wanted}
        places: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for file in self._below[masks]:
            parts = tuple(file.split("/"))
            bare = (*parts[:-1], stem_of(parts[-1]))
            for length in lengths:
                if length <= len(parts):
                    places[parts[-length:]].append(file)
                    places[bare[-length:]].append(file)
        found = []
        for number, parts in zip(names, wanted, strict=True):
            fitting = sorted({*places.get(parts, ())})
            if len(fitting) > 1:
                raise ScanlearnError(
                    f"Name number {number + 1:,} in {column} of {self.table.name} fits {len(fitting)} files in different "
                    "folders; write paths relative to the table."
                )
            found.append(f"{self.root}/{fitting[0]}" if fitting else "")
        return found
