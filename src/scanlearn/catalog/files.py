"""Files by their names: which suffixes are scans, what is DICOM or Zarr, and safe names made from paths."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
ZARR = ".zarr"  # a folder, and one scan
IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".bmp", ".pgm", ".ppm", ".tif", ".tiff", ".nii", ".nii.gz", ".hdr", ".mgh", ".mgz"),
    *(".mha", ".mhd", ".nrrd", ".nhdr", ".npy", ZARR, *DICOM_SUFFIXES),
)
_IMAGE_SUFFIXES = frozenset(IMAGE_SUFFIXES)
# Headers, and the endings of the files of voxels that lie beside them and are read with them.
VOXELS_OF = {".hdr": (".img", ".img.gz"), ".mhd": (".raw", ".zraw"), ".nhdr": (".raw", ".raw.gz")}
ZARR_MARKS = frozenset(("zarr.json", ".zgroup", ".zarray", ".zattrs"))  # any of them makes a folder a Zarr group
_UID = re.compile(r"\d+(?:\.\d+){5,}")
_LONGEST_NAME = 120  # characters of a scan_id; file systems allow 255 bytes and other endings are added


def suffix_of(name: str) -> str:
    """The image suffix of a file name in lower case ("scan.NII.gz" -> ".nii.gz"), "" if it has none."""
    lower = name[-8:].lower()  # longer than any suffix; tables have millions of names
    ending = ".nii.gz" if lower.endswith(".nii.gz") else lower[lower.rfind(".") :] if "." in lower else ""
    return ending if ending in _IMAGE_SUFFIXES else ""


def stem_of(path: str) -> str:
    """The path without its image suffix."""
    return path[: len(path) - len(suffix_of(path))]


def is_dicom(path: str | Path) -> bool:
    """Whether the file is DICOM by its suffix, or, without a suffix, by the letters DICM behind its preamble."""
    name = str(path).replace(os.sep, "/").rpartition("/")[2]
    ending = name[name.rfind(".") :] if "." in name else ""
    if ending.lower() in DICOM_SUFFIXES:
        return True
    # Scanners export names such as IM0001 or 1.2.840.113619: no ending, or a number.
    if name.upper() == "DICOMDIR" or (ending and not ending[1:].isdigit()):
        return False
    try:
        with Path(path).open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:  # nobody can tell; the listing counts it among the files that are no scans
        return False


def is_zarr(folder: str | Path) -> bool:
    """Whether the folder is a Zarr group or array, such as an OME-Zarr image."""
    return any((Path(folder) / mark).is_file() for mark in ZARR_MARKS)


def short_hash(text: str, length: int = 12) -> str:
    """The first hexadecimal digits of the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def scan_ids(paths: Iterable[str]) -> list[str]:
    """A unique name for each of the distinct relative paths, made of letters, digits, ".", "_" and "-".

    The suffix goes, "/" and odd characters become "_", long numbers with dots (DICOM UIDs) become a hash. Names that
    would be equal, also on a file system that ignores case, get a hash of their path; so the order never matters.
    """
    paths = list(paths)
    names = [_safe_name(path) for path in paths]
    # In Arrow: of a million names, a dictionary of Python would take as much memory as all the rest.
    alike = pc.dictionary_encode(pc.ascii_lower(pa.array(names, pa.string()))).indices.to_numpy()
    for row in np.flatnonzero(np.bincount(alike)[alike] > 1).tolist():
        names[row] = f"{names[row]}_{short_hash(paths[row], 8)}"
    return names


def _safe_name(path: str) -> str:
    name = _UID.sub(lambda uid: "u" + short_hash(uid.group()), stem_of(path))
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", name)
    name = re.sub(r"^[.-]+|\.+$", "_", name) or "scan"
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 13]}_{short_hash(path)}"
