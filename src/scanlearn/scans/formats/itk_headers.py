"""The text headers of MetaImage and NRRD, judged before ITK sees them.

They are read strictly: one field a line, none twice, sizes within the limit, data within the header's own folder.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scanlearn.errors import FileError
from scanlearn.scans.formats.inside import inside
from scanlearn.scans.formats.limits import check_size
from scanlearn.scans.formats.raw import SURPLUS

LONGEST_HEADER = 2**16  # bytes
NRRD = b"NRRD"

_META_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_NRRD_TYPES = {
    name: dtype
    for dtype, names in {
        "i1": "signed char, int8, int8_t",
        "u1": "uchar, unsigned char, uint8, uint8_t",
        "i2": "short, short int, signed short, signed short int, int16, int16_t",
        "u2": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
        "i4": "int, signed int, int32, int32_t",
        "u4": "uint, unsigned int, uint32, uint32_t",
        "i8": "longlong, long long, long long int, signed long long, signed long long int, int64, int64_t",
        "u8": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
        "f4": "float",
        "f8": "double",
    }.items()
    for name in names.split(", ")
}
_ORDERS = {"little": "<", "big": ">", "false": "<", "true": ">"}
# Kinds of NRRD axes along which one walks; along all others lie the components of a voxel.
_WALKED = ("domain", "space", "time", "???", "none")
_PLACES = {"Offset", "Position", "Origin", "TransformMatrix", "Rotation", "Orientation"}
_WORD = re.compile(r"\s*([A-Za-z][A-Za-z0-9_]*)\s*=(.*)")
_FIELD = re.compile(r"([A-Za-z][A-Za-z ]*): ?(.*)")
_KEY = re.compile(r"[^:]+:=.*")


@dataclass(frozen=True)
class Announced:
    """What a header says.

    reader: SimpleITK's for it. sides: of the stored array, fastest first, (c, i, j[, k]) in some order; components:
    which of them counts the components, None without. data, offset, packed, surplus: as in ``read_array``. located:
    whether the header gives a place in space.
    """

    reader: str
    sides: tuple[int, ...]
    components: int | None
    dtype: np.dtype
    data: Path
    offset: int
    packed: str
    surplus: int | None
    located: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """(i, j[, k])."""
        return tuple(n for axis, n in enumerate(self.sides) if axis != self.components)

    @property
    def flat(self) -> bool:
        """Whether this is one plane, which is read as a 2D scan."""
        return len(self.shape) == 2 or (len(self.shape) == 3 and self.shape[2] == 1)


def announced(path: Path, limit: int) -> Announced:
    """What the header says, if its sizes and names can be true; else FileError."""
    with path.open("rb") as file:
        start = file.read(LONGEST_HEADER)
    return _nrrd(path, start, limit) if start.startswith(NRRD) else _meta(path, start, limit)


def _meta(path: Path, start: bytes, limit: int) -> Announced:
    fields, offset = _meta_fields(path, start)
    shape = _numbers(path, fields.get("DimSize", ""), 4)
    (channels,) = _numbers(path, fields.get("ElementNumberOfChannels", "1"), 1)
    if fields.get("ObjectType", "Image") != "Image" or fields.get("ElementType") not in _META_TYPES:
        raise FileError(path, "is no MetaImage of real numbers.")
    if fields.get("NDims") != str(len(shape)) or fields.get("BinaryData", "True").lower() != "true":
        raise FileError(path, "is a MetaImage whose sizes do not fit its dimensions, or of numbers written as text.")
    msb = fields.get("BinaryDataByteOrderMSB", fields.get("ElementByteOrderMSB", "False"))
    dtype = _dtype(path, _META_TYPES[fields["ElementType"]], msb)
    sides = shape if channels == 1 else (channels, *shape)
    need = check_size(path, sides, dtype.itemsize, limit)
    packed = "zlib" if fields.get("CompressedData", "False").lower() == "true" else ""
    skipped = _whole(path, fields.get("HeaderSize", "0"))
    data, name = path, fields["ElementDataFile"]
    if name.upper() != "LOCAL":
        data, offset = _data_file(path, name), 0
    elif skipped:
        raise FileError(path, "skips bytes between its header and its voxels, which cannot be read.")
    offset = _start(path, data, offset, skipped, need, packed)
    surplus = None if skipped < 0 else SURPLUS
    components = None if channels == 1 else 0
    located = not _PLACES.isdisjoint(fields)
    return Announced("MetaImageIO", sides, components, dtype, data, offset, packed, surplus, located)


def _meta_fields(path: Path, start: bytes) -> tuple[dict[str, str], int]:
    """(the fields up to the data file, where the header ends)."""
    fields: dict[str, str] = {}
    offset = 0
    while "ElementDataFile" not in fields:
        end = start.find(b"\n", offset)
        line = start[offset : end if end >= 0 else len(start)].decode("latin-1").rstrip()
        found = _WORD.fullmatch(line)
        if found is None or found[1] in fields:
            raise FileError(path, f"has a MetaImage header with a damaged line {len(fields) + 1}.")
        fields[found[1]] = found[2].strip()
        offset = end + 1 if end >= 0 else len(start)
    return fields, offset


def _nrrd(path: Path, start: bytes, limit: int) -> Announced:
    fields, offset = _nrrd_fields(path, start)
    sides = _numbers(path, fields.get("sizes", ""), 5)
    if fields.get("dimension") != str(len(sides)) or fields.get("type", "").lower() not in _NRRD_TYPES:
        raise FileError(path, "is no NRRD of real numbers, or its sizes do not fit its dimension.")
    dtype = _dtype(path, _NRRD_TYPES[fields["type"].lower()], fields.get("endian", "little"))
    need = check_size(path, sides, dtype.itemsize, limit)
    encoding = fields.get("encoding", "").lower()
    if encoding not in ("raw", "gzip", "gz"):
        raise FileError(path, "is an NRRD of another encoding than raw and gzip; save it as one of these.")
    if any(
        word in fields.get(name, "").lower() for name in ("spacedirections", "spaceorigin") for word in ("na", "inf")
    ):
        raise FileError(path, "has an affine with NaN or infinity, so its place in space is unknown.")
    data = path
    if "datafile" in fields:
        data, offset = _data_file(path, fields["datafile"]), 0
    packed = "" if encoding == "raw" else "gzip"
    skipped = _whole(path, fields.get("byteskip", "0"))
    if _whole(path, fields.get("lineskip", "0")):
        raise FileError(path, "skips lines between its header and its voxels, which cannot be read.")
    offset = _start(path, data, offset, skipped, need, packed)
    surplus = None if skipped < 0 else SURPLUS
    located = "spaceorigin" in fields or ("space" in fields and "spacedirections" in fields)
    components = _components(path, fields.get("kinds", ""), len(sides))
    return Announced("NrrdImageIO", sides, components, dtype, data, offset, packed, surplus, located)


def _nrrd_fields(path: Path, start: bytes) -> tuple[dict[str, str], int]:
    """(the fields by their names in lower case without blanks, where the header ends)."""
    fields: dict[str, str] = {}
    offset, number = start.find(b"\n") + 1, 1
    while 0 < offset < len(start):
        end = start.find(b"\n", offset)
        line = start[offset : end if end >= 0 else len(start)].decode("latin-1").rstrip("\r")
        offset, number = end + 1 if end >= 0 else len(start), number + 1
        if not line:
            break
        if line.startswith("#") or _KEY.fullmatch(line):
            continue
        found = _FIELD.fullmatch(line)
        name = found[1].lower().replace(" ", "") if found else ""
        if found is None or name in fields:
            raise FileError(path, f"has an NRRD header with a damaged line {number}.")
        fields[name] = found[2].strip()
        if name == "datafile" and fields[name].upper().startswith("LIST"):
            break  # file names follow
    return fields, offset


def _components(path: Path, kinds: str, axes: int) -> int | None:
    """The axis along which the components of a voxel lie."""
    if not kinds:
        return None
    found = [axis for axis, kind in enumerate(kinds.lower().split()) if kind not in _WALKED]
    if "complex" in kinds.lower():
        raise FileError(path, "holds complex numbers; save their magnitude.")
    if len(kinds.split()) != axes or len(found) > 1:
        raise FileError(path, "is an NRRD whose kinds of axes are not those of a scan with components.")
    return found[0] if found else None


def _data_file(path: Path, name: str) -> Path:
    """The data file that a header names, if it lies beside it or below."""
    if name.upper().startswith("LIST"):
        raise FileError(path, "spreads its voxels over several files; save it as one.")
    data = inside(path, path.parent, name)
    if not data.is_file():
        raise FileError(path, "lacks the data file that its header names.")
    return data


def _start(path: Path, data: Path, offset: int, skipped: int, need: int, packed: str) -> int:
    """Where in the data file the voxels start; skipped -1: they are the last bytes."""
    if skipped == 0:
        return offset
    if packed or skipped < -1:
        raise FileError(path, "skips bytes before its voxels in a way that cannot be read.")
    if skipped > 0:
        return offset + skipped
    return max(data.stat().st_size - need, 0)


def _dtype(path: Path, name: str, order: str) -> np.dtype:
    if order.lower() not in _ORDERS:
        raise FileError(path, "has a header with an unknown order of bytes.")
    return np.dtype(_ORDERS[order.lower()] + name)


def _numbers(path: Path, text: str, most: int) -> tuple[int, ...]:
    words = text.split()
    if not 1 <= len(words) <= most or not all(word.isascii() and word.isdigit() and len(word) < 16 for word in words):
        raise FileError(path, f"has a header whose sizes are not one to {most} whole numbers.")
    return tuple(int(word) for word in words)


def _whole(path: Path, text: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,15}", text):
        raise FileError(path, "has a header that skips a number of bytes or lines that is none.")
    return int(text)
