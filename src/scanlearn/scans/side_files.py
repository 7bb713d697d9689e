"""The files beside the arrays of a store: found, fetched once where the store is far away, and checked."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

from scanlearn.errors import ScanlearnError
from scanlearn.files import read_json
from scanlearn.scans.places import fetch, is_far

VERSION = 2
DTYPES = (*(f"{sign}int{bits}" for sign in ("u", "") for bits in (8, 16, 32, 64)), "float16", "float32", "float64")


class SideFiles:
    """The files of one store by their names.

    Those of a store behind a URL are fetched into a temporary folder on their first use; who is given ``fetched``, that
    folder of another process, looks there first.
    """

    def __init__(self, location: str, fetched: str | None = None):
        self.location, self.fetched = location, fetched

    def find(self, name: str) -> Path | None:
        """The file on this machine, None where the store has none."""
        if not is_far(self.location):
            path = Path(self.location) / name
            return path if path.is_file() else None
        if self.fetched is None or not Path(self.fetched).is_dir():
            self.fetched = tempfile.mkdtemp(prefix="scanlearn-")
            weakref.finalize(self, _remove, self.fetched, os.getpid())
        path = Path(self.fetched) / name
        return path if path.is_file() or _fetch(self.location, name, path) else None

    def path(self, name: str) -> Path:
        """The file on this machine; a store without it is refused."""
        path = self.find(name)
        if path is None:
            raise ScanlearnError(f"The store {self.location} lacks its {name}; prepare it again.")
        return path


def _fetch(location: str, name: str, path: Path) -> bool:
    """Write a file of a far store to ``path``; False where there is none."""
    content = fetch(location, name)
    if content is None:
        return False
    # Worker processes may fetch the same file at once: each writes its own, and any of them will do.
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as temporary:
        temporary.write(content)
    Path(temporary.name).replace(path)
    return True


def _remove(folder: str, process: int) -> None:
    if os.getpid() == process:  # a forked process must not take the files from the one that fetched them
        shutil.rmtree(folder, ignore_errors=True)


def read_info(files: SideFiles) -> dict[str, Any]:
    """``store.json``, with everything in it that a Store relies on checked."""
    path, where = files.find("store.json"), files.location
    if path is None:
        raise ScanlearnError(f"{where} is no prepared store; make one with `scanlearn prepare SOURCE --out {where}`.")
    info = read_json(path, f"{where}/store.json")
    found = info.get("version")
    if found != VERSION:
        raise ScanlearnError(f"{where} is a store of version {found}, this program reads {VERSION}; prepare it again.")
    masks = info.get("mask_values")
    checks = {
        "key": isinstance(info.get("key"), str) and re.fullmatch(r"[0-9a-f]{64}", info["key"]) is not None,
        "spatial_dims": info.get("spatial_dims") in (2, 3),
        "channels": _count(info.get("channels")) and info["channels"] > 0,
        "scans": _count(info.get("scans")) and info["scans"] > 0,
        "dtype": info.get("dtype") in DTYPES,
        "mask_values": isinstance(masks, list) and all(_count(v) and 0 < v < 256 for v in masks),
        "mask_classes": _words(info.get("mask_classes")) and len(info["mask_classes"]) == len(masks or ()),
        "splits": _splits(info.get("splits")),
        "settings": isinstance(info.get("settings"), dict),
        "intensity": isinstance(info.get("intensity"), dict),
    }
    for name, fine in checks.items():
        if not fine:
            raise ScanlearnError(f"{where}/store.json is damaged: its {name!r} is no such thing; prepare it again.")
    return info


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**31


def _words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) for word in value)


def _splits(value: Any) -> bool:
    parts = value.get("parts") if isinstance(value, dict) else None
    if not isinstance(parts, dict) or not 0 < len(parts) < 256 or not isinstance(value.get("sha256"), str):
        return False
    return all(isinstance(part, dict) and _count(part.get("scans")) for part in parts.values())
