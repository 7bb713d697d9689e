"""Files by their names: which suffixes are scans, what is DICOM or Zarr, and safe names made from paths."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scanlearn.catalog.cells import per_block, per_cell

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
# For Arrow: the suffix of a scan, that of one that is no DICOM file, and a UID of DICOM.
_ENDING = f"(?i)(?:{'|'.join(map(re.escape, IMAGE_SUFFIXES))})$"
_ENDING_OF_OTHERS = f"(?i)(?:{'|'.join(re.escape(end) for end in IMAGE_SUFFIXES if end not in DICOM_SUFFIXES)})$"
_UID = r"\p{Nd}+(?:\.\p{Nd}+){5,}"
_LONGEST_NAME = 120  # characters of a scan_id; file systems allow 255 bytes and other endings are added


def suffix_of(name: str) -> str:
    """The image suffix of a file name in lower case ("scan.NII.gz" -> ".nii.gz"), "" if it has none."""
    lower = name[-8:].lower()  # longer than any suffix; tables have millions of names
    ending = ".nii.gz" if lower.endswith(".nii.gz") else lower[lower.rfind(".") :] if "." in lower else ""
    return ending if ending in _IMAGE_SUFFIXES else ""


def stem_of(path: str) -> str:
    """The path without its image suffix."""
    return path[: len(path) - len(suffix_of(path))]


def stems_of(paths: pa.Array) -> pa.Array:
    """``stem_of`` each path."""
    return pc.replace_substring_regex(paths, _ENDING, "")


def folders_of(paths: pa.Array) -> pa.Array:
    """The folder of each path, "" where it tells none."""
    return pc.replace_substring_regex(paths, "(?:^|/)[^/]*$", "")


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


def may_be_dicom(paths: pa.Array) -> pa.Array:
    """Booleans: False for files that have the suffix of another format, of which nobody needs to ask ``is_dicom``."""
    return pc.invert(pc.match_substring_regex(paths, _ENDING_OF_OTHERS))


def scan_ids(paths: pa.Array) -> pa.Array:
    """A unique name for each of the distinct relative paths, made of letters, digits, ".", "_" and "-".

    The suffix goes, "/" and odd characters become "_", long numbers with dots (DICOM UIDs) become a hash. Names that
    would be equal, also on a file system that ignores case, get a hash of their path; so the order never matters.
    """
    names = stems_of(paths)
    names = per_cell(names, pc.match_substring_regex(names, _UID), _without_uids)
    names = pc.replace_substring_regex(names, "[^A-Za-z0-9._-]+", "_")
    names = pc.replace_substring_regex(names, r"^[.-]+|\.+$", "_")
    names = pc.if_else(pc.equal(names, ""), "scan", names)
    names = _with_hashes(names, pc.greater(pc.utf8_length(names), _LONGEST_NAME), paths, 12, _LONGEST_NAME - 13)
    alike = pc.dictionary_encode(pc.ascii_lower(names)).indices.to_numpy()
    return _with_hashes(names, pa.array(np.bincount(alike)[alike] > 1), paths, 8)


def _without_uids(name: str) -> str:
    return re.sub(r"\d+(?:\.\d+){5,}", lambda uid: "u" + short_hash(uid.group()), name)


def _with_hashes(names: pa.Array, which: pa.Array, paths: pa.Array, digits: int, length: int | None = None) -> pa.Array:
    """Some of the names, cut to a length, with a hash of their paths behind them."""
    hashes = per_block(paths.filter(which), lambda block: [short_hash(path, digits) for path in block])
    short = names.filter(which) if length is None else pc.utf8_slice_codeunits(names.filter(which), 0, length)
    return pc.replace_with_mask(names, which, pc.binary_join_element_wise(short, hashes, "_"))
