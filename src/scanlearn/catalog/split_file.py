"""A split as a file that two groups can exchange: which contents are in which part, by the sha256 of the files.

It names no patient, no scan and no folder, so it holds on any machine that has the same files, whatever they are called
there. Its own hash, over the parts alone, tells whether two groups use the same split.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from scanlearn.catalog.table import SPLITS, Catalog
from scanlearn.console import say, warn
from scanlearn.errors import ScanlearnError
from scanlearn.files import parse_json, read_bounded, write_json

KIND = "scanlearn split"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MOST_BYTES = 1 << 30


def write_split(path: str | Path, catalog: Catalog, parts: Mapping[str, np.ndarray], **made: Any) -> str:
    """Write the parts (rows of a catalogue whose sha256 are known) to a JSON file, and return the hash of the split.

    made: whatever tells how the split was made. Raises ScanlearnError where a file is in two parts, or not hashed.
    """
    found = {name: sorted(set(catalog.array("sha256", rows).to_pylist())) for name, rows in parts.items() if len(rows)}
    everything = [digest for part in found.values() for digest in part]
    if not all(map(_DIGEST.fullmatch, everything)):
        raise ScanlearnError("The scans were not hashed yet: prepare a store of them, and write the split of that.")
    if len(set(everything)) != len(everything):
        raise ScanlearnError("A file is in two parts, so this split would leak: divide by patient first.")
    code = split_hash(found)
    head = {"kind": KIND, "version": 1, "sha256": code, "files": {name: len(part) for name, part in found.items()}}
    write_json(Path(path), {**head, "made": made, "parts": found})
    return code


def read_split(path: str | Path) -> tuple[dict[str, list[str]], str]:
    """({part: digests}, hash) of what ``write_split`` wrote; a file that was changed since is refused."""
    path = Path(path)
    if not path.is_file():
        raise ScanlearnError(f"There is no split {path}.")
    content = parse_json(read_bounded(path, str(path), _MOST_BYTES), str(path))
    parts: Any = content.get("parts")
    fine = content.get("kind") == KIND and isinstance(parts, dict) and set(parts) <= set(SPLITS)
    fine = fine and all(isinstance(part, list) and all(isinstance(one, str) for one in part) for part in parts.values())
    if not fine:
        raise ScanlearnError(f"{path} is no split; `scanlearn catalog split STORE --out {path.name}` writes one.")
    code = split_hash(parts)
    if content.get("sha256") != code:
        raise ScanlearnError(f"{path} was changed since it was written: its parts do not have the hash that it tells.")
    return parts, code


def split_hash(parts: Mapping[str, list[str]]) -> str:
    """sha256 over the parts: two groups with the same one train and test on the same files."""
    lines = [f"{name} {digest}" for name in sorted(parts) for digest in sorted(parts[name])]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def rows_in_split(digests: list[str], path: str | Path) -> tuple[np.ndarray, list[str], str]:
    """(rows of these digests that are in the split, the part of each, its hash); what is missing on either side is said.

    Raises ScanlearnError where none of the files is in the split.
    """
    parts, code = read_split(path)
    part_of = {digest: name for name, part in parts.items() for digest in part}
    rows = [row for row, digest in enumerate(digests) if digest in part_of]
    if not rows:
        raise ScanlearnError(f"None of the {len(digests):,} scans is in the split {path}: it is of other files.")
    here = set(digests)
    say(
        f"split {code[:12]} of {Path(path).name}: {', '.join(f'{name} {len(part):,}' for name, part in parts.items())}."
    )
    for name, part in parts.items():
        if lost := sum(digest not in here for digest in part):
            warn(f"{lost:,} of {len(part):,} files of the part {name!r} of the split are not here.")
    if extra := len(digests) - len(rows):
        warn(f"{extra:,} of {len(digests):,} scans are in no part of the split and are left out.")
    return np.array(rows), [part_of[digests[row]] for row in rows], code
