"""Files that another file names: only those in its own folder or below are opened."""

from __future__ import annotations

from pathlib import Path

from scanlearn.errors import FileError


def inside(path: Path, folder: Path, name: str) -> Path:
    """``folder / name``, where ``name`` was written in ``path``; FileError where it could lead out of the folder.

    Names are judged, not where links lead: data sets under git-annex consist of links.
    """
    parts = name.replace("\\", "/").split("/")
    if ".." in parts or "" in parts or any(c in name for c in ":~%\0\n"):
        raise FileError(path, "names a data file outside of its folder, or by a pattern, which is never followed.")
    return folder.joinpath(*parts)
