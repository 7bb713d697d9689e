"""What a folder holds: its scans as sorted relative paths, and a count of everything that is none."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.progress import Progress

from scanlearn.catalog.files import VOXELS_OF, ZARR, ZARR_MARKS, is_dicom, stem_of, suffix_of
from scanlearn.console import progress, say, warn
from scanlearn.errors import ScanlearnError

_PATIENCE = 1.0  # seconds without a word
_LINES_EVERY = 10.0  # seconds between lines where there is no terminal for a bar
_VOXELS = tuple({ending for endings in VOXELS_OF.values() for ending in endings})
# Endings that may be shown; anything behind a dot could be a name.
_SHOWN = frozenset(
    (
        *("txt", "md", "pdf", "html", "xml", "json", "yaml", "csv", "tsv", "xls", "xlsx", "doc", "docx", "log", "db"),
        *("zip", "tar", "gz", "7z", "rar", "py", "m", "sh", "ipynb", "npy", "npz", "mat", "h5", "pkl", "hdr", "img"),
        *("raw", "bin", "dat", "bval", "bvec", "gif", "bmp", "svg", "mp4", "avi", "svs", "vtk", "stl", "gii", "mgz"),
    )
)


@dataclass
class Listing:
    """Paths are relative to the folder, with "/" between folders."""

    images: list[str] = field(default_factory=list)  # sorted; a folder that is OME-Zarr counts as one
    others: Counter[str] = field(default_factory=Counter)  # {suffix, or "others": number} of files that are no scans
    unreadable: list[str] = field(default_factory=list)  # folders
    lost: int = 0  # links that lead nowhere, sockets and the like
    unnamable: int = 0  # files and folders whose names are no text
    zarr: int = 0  # Zarr groups whose name does not end in .zarr, such as stores

    def leave_out(self, name: str) -> None:
        """Count a file that is no scan."""
        ending = name[name.rfind(".") :].lower()
        self.others[ending if ending[1:] in _SHOWN else "others"] += 1

    def tell(self) -> None:
        """Say what was left out and why."""
        if self.others:
            kinds = sorted(self.others.items(), key=lambda item: (-item[1], item[0]))
            shown = ", ".join(f"{kind} {count:,}" for kind, count in kinds[:8]) + (", ..." if len(kinds) > 8 else "")
            say(f"{self.others.total():,} other files are no scans and are left out ({shown}).")
        if self.zarr:
            say(f"{self.zarr:,} Zarr folders are left out because their names do not end in {ZARR}.")
        if self.lost:
            warn(
                f"{self.lost:,} links lead to no file and are left out; if this is a datalad set, get its files first."
            )
        if self.unnamable:
            warn(f"{self.unnamable:,} names of files or folders are not UTF-8, so these are left out; rename them.")
        if self.unreadable:
            warn(f"{len(self.unreadable):,} folders may not be read by you and are left out.")


def list_folder(root: Path) -> Listing:
    """List all files below ``root``; hidden ones and ``__MACOSX`` are left out, every folder is visited once.

    Links are followed after the folders themselves, so that a loop ends and a file keeps its plain path. Shows a count
    when it takes more than a second. Raises ScanlearnError if ``root`` itself may not be read.
    """
    found = Listing()
    seen: set[tuple[int, int]] = set()
    folders, links = [""], list[str]()
    with counting("listing files") as count:
        while folders or links:
            below = folders.pop() if folders else links.pop(0)
            try:
                where = Path(root, below).stat()
                if (where.st_dev, where.st_ino) in seen:
                    continue
                seen.add((where.st_dev, where.st_ino))
                inside, linked = _list_one(root, below, found, count)
            except OSError as error:
                if not below:
                    raise ScanlearnError(f"The folder {root} cannot be read ({error.strerror}).") from error
                found.unreadable.append(below)
                continue
            folders += inside
            links = sorted([*links, *linked]) if linked else links
    found.images.sort()
    found.unreadable.sort()
    return found


def _list_one(root: Path, below: str, found: Listing, count: Callable[[int], None]) -> tuple[list[str], list[str]]:
    """Add the files of one folder to ``found``; return its (sub-folders, links to folders)."""
    prefix = f"{below}/" if below else ""
    here = Listing()
    folders, links = list[str](), list[str]()
    zarr, voxels = False, list[str]()
    with os.scandir(Path(root, below)) as entries:
        for entry in entries:
            name = entry.name
            zarr |= name in ZARR_MARKS and (name != ".zattrs" or below.lower().endswith(ZARR))
            if name.startswith(".") or name == "__MACOSX":
                continue
            if not _is_text(name):
                here.unnamable += 1
            elif _is(entry.is_dir):
                (links if entry.is_symlink() else folders).append(prefix + name)
            elif not _is(entry.is_file):
                here.lost += 1
            elif name.lower().endswith(_VOXELS):
                voxels.append(prefix + name)
            elif suffix_of(name) or is_dicom(entry.path):
                here.images.append(prefix + name)
            else:
                here.leave_out(name)
            count(1)
    if zarr and below:
        found.zarr += not below.lower().endswith(ZARR)
        found.images += [below] if below.lower().endswith(ZARR) else []
        return [], []
    _sort_out_voxels(here, voxels)
    found.images += here.images
    found.others += here.others
    found.lost += here.lost
    found.unnamable += here.unnamable
    return folders, links


def _sort_out_voxels(here: Listing, voxels: list[str]) -> None:
    """Count the files of voxels that no header tells of: .mhd and .nhdr name theirs, .hdr needs an .img of its name."""
    there = {name.lower() for name in voxels}
    kinds = {image: suffix for image in here.images if (suffix := suffix_of(image)) in VOXELS_OF}
    alone = {
        image
        for image, suffix in kinds.items()
        if suffix == ".hdr" and not any(stem_of(image).lower() + ending in there for ending in VOXELS_OF[".hdr"])
    }
    here.images = [image for image in here.images if image not in alone]
    headers = {suffix for image, suffix in kinds.items() if image not in alone}
    told = tuple(ending for suffix in headers for ending in VOXELS_OF[suffix])
    for name in (*alone, *(name for name in voxels if not name.lower().endswith(told))):
        here.leave_out(name)


def _is(question: Callable[[], bool]) -> bool:
    try:
        return question()
    except OSError:  # a link in a circle, or into a folder that may not be read
        return False


def _is_text(name: str) -> bool:
    try:
        return name.isascii() or bool(name.encode())
    except UnicodeEncodeError:  # bytes that are not UTF-8; no table could hold the name
        return False


@contextmanager
def counting(description: str) -> Iterator[Callable[[int], None]]:
    """A function that counts what is done, and shows the count and its rate once that takes more than a second."""
    bar: Progress | None = None
    total, began = 0, time.monotonic()
    shown_at = began + _PATIENCE

    def rate() -> str:
        return f"{total / max(time.monotonic() - began, 1e-9):,.0f} a second"

    def count(more: int) -> None:
        nonlocal bar, total, shown_at
        total += more
        if total % 256 or time.monotonic() < shown_at:
            return
        if sys.stderr.isatty():
            if bar is None:
                bar = progress()
                bar.add_task(description, total=None, info="")
                bar.start()
            bar.update(bar.task_ids[0], completed=total, info=rate())
            shown_at = time.monotonic() + 0.1
        else:
            say(f"{description}: {total:,} so far, {rate()}")
            shown_at = time.monotonic() + _LINES_EVERY

    try:
        yield count
    finally:
        if bar is not None:
            bar.update(bar.task_ids[0], completed=total, info=rate())
            bar.stop()
