"""Where the files that a table names really are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scanlearn.catalog.cells import blocks, per_block
from scanlearn.catalog.files import folders_of, stem_of, stems_of, suffix_of
from scanlearn.catalog.listing import list_folder
from scanlearn.catalog.mapped import numbers
from scanlearn.catalog.masks import is_mask_name, mask_folders, pair_masks
from scanlearn.console import say
from scanlearn.errors import ScanlearnError

_DEEPEST = 256  # folders in each other; a longer name is not looked for


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

    def locate(self, names: Sequence[str] | pa.Array, column: str, masks: bool = False) -> pa.Array:
        """The absolute paths of the names, "" for "". Missing ones are refused with their number and the first.

        ``column`` is what messages call the place of the names: "column 'image'".
        """
        if not isinstance(names, pa.Array):
            names = pa.array([name.encode("utf-8", "replace").decode() for name in names], pa.string())
        paths = per_block(names, lambda block: [self._absolute(name) for name in block])
        outside = sum(bool(path) and not self._allowed(path) for block in blocks(paths) for path in block)
        if outside:
            raise ScanlearnError(
                f"{outside:,} file names in {column} of {self.table.name} lead out of {self.root}, and a list that comes "
                "with the data may not; put the files there, or give a table of your own by its path."
            )
        lost = per_block(paths, lambda block: [bool(path) and not self._exists(path) for path in block], pa.bool_())
        if not pc.any(lost).as_py():
            return paths
        number = np.flatnonzero(lost) + 1
        found = self._search(names.filter(lost), number, column, masks)
        missing = number[pc.equal(found, "").to_numpy(zero_copy_only=False)]
        if len(missing):
            raise ScanlearnError(
                f"{len(missing)} of {pc.sum(pc.not_equal(paths, '')).as_py()} files in {column} of {self.table.name} are "
                f"missing, the first is number {missing[0]:,}; names are relative to the folder of {self.table.name}."
            )
        folders = len(pc.unique(folders_of(found)))
        where = "a folder" if folders == 1 else f"{folders:,} folders"
        say(f"{len(found):,} file names in {column} were found in {where} below {self.table.name}'s own.")
        return pc.replace_with_mask(paths, lost, found)

    def are_folders(self, paths: pa.Array) -> pa.Array:
        """Booleans: which of the located paths are folders."""
        return per_block(paths, lambda block: [self._is_folder(path) for path in block], pa.bool_())

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

    def short_names(self, paths: pa.Array) -> pa.Array:
        """Distinct relative names: below the table's folder, or below what the files elsewhere have in common."""
        names = _without(f"{self.root}/", paths)
        elsewhere = pc.unique(folders_of(names.filter(pc.starts_with(names, "/")))).to_pylist()
        return _without(os.path.commonpath(elsewhere).rstrip("/") + "/", names) if elsewhere else names

    def masks_beside(self, paths: pa.Array) -> dict[str, str]:
        """{path: mask} for the located files that have a mask of the same name (see ``pair_masks``)."""
        folders = pc.unique(folders_of(paths)).to_pylist()
        there = {f"{folder}/{name}" for folder in folders for name in self._listing(folder) if is_mask_name(name)}
        for masks in {masks for folder in folders for masks in mask_folders(folder, self._listing)}:
            there |= {f"{masks}/{name}" for name in self._listing(masks) if suffix_of(name)}
        if not there:
            return {}
        scans = paths.to_pylist()
        known = {*scans}
        pairs = pair_masks([*scans, *sorted(there - known)])[0]
        return {image: mask for image, mask in pairs.items() if image in known}

    def _absolute(self, name: str) -> str:
        if not name:
            return ""
        name = name.replace("\\", "/")
        path = name if name.startswith("/") else f"{self.root}/{name}"
        plain = not ("/." in path or "//" in path or path.endswith("/"))
        return path if plain else os.path.normpath(path)

    def _allowed(self, path: str) -> bool:
        return self.own or path.startswith(self.root.rstrip("/") + "/")

    def _is_folder(self, path: str) -> bool:
        folder, _, name = path.rpartition("/")
        return self._listing(folder)[name]

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
    def _below(self) -> tuple[pa.Array, pa.Array]:
        """All (images, masks) below the table's folder."""
        files = list_folder(Path(self.root)).images
        pairs, alone = pair_masks(files)
        masks = pa.array([*{*pairs.values(), *alone}], pa.string())
        there = pa.array(files, pa.string())
        are_masks = pc.is_in(there, value_set=masks)
        return there.filter(pc.invert(are_masks)), there.filter(are_masks)

    def _search(self, names: pa.Array, number: np.ndarray, column: str, masks: bool) -> pa.Array:
        """The one file below the table's folder whose path ends like each name, "" if there is none.

        What is wrong is told by ``number`` (of each name), as a file's name may be that of a person.
        """
        files = self._below[masks]
        wanted = pc.dictionary_encode(per_block(names, lambda block: [_tidy(name) for name in block]))
        words, word = wanted.dictionary, numbers(wanted.indices)
        file_of, fitting = np.zeros(len(words), np.int64), np.zeros(len(words), np.int64)
        for length in pc.unique(pc.add(pc.count_substring(words, "/"), 1)).to_pylist():
            for ends in _ends_of(files, length):
                at = pc.index_in(ends, value_set=words)
                fits = np.flatnonzero(at.is_valid())
                found = numbers(at.drop_null())
                file_of[found] = fits
                fitting += np.bincount(found, minlength=len(words))
        if several := np.flatnonzero(fitting[word] > 1).tolist():
            raise ScanlearnError(
                f"Name number {number[several[0]]:,} in {column} of {self.table.name} fits {fitting[word[several[0]]]} files "
                "in different folders; write paths relative to the table."
            )
        paths = pc.binary_join_element_wise(self.root, files, "/")
        return pc.fill_null(paths.take(pa.array(file_of[word], mask=fitting[word] == 0)), "")


def _tidy(name: str) -> str:
    return "/".join(part for part in name.replace("\\", "/").split("/") if part != ".")


def _ends_of(paths: pa.Array, length: int) -> tuple[pa.Array, ...]:
    """The last ``length`` parts of each path, and those without the suffix; null where there are none or fewer."""
    if length > _DEEPEST:
        return ()
    parts = pc.extract_regex(paths, rf"(?:^|/)(?P<end>[^/]*(?:/[^/]*){{{length - 1}}})$")
    ends = pc.struct_field(parts, "end")
    bare = stems_of(ends)
    return ends, pc.if_else(pc.equal(ends, bare), None, bare)


def _without(start: str, paths: pa.Array) -> pa.Array:
    rest = pc.utf8_slice_codeunits(paths, len(start))
    return pc.if_else(pc.starts_with(paths, start), rest, paths)
