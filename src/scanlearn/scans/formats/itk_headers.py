"""The text headers of MetaImage and NRRD, judged before ITK sees them.

ITK trusts headers: it opens whatever file they name and asks for as much memory as they wish. So they are read here
first, strictly: one field a line, none twice, sizes within the limit, data within the header's own folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from scanlearn.errors import FileError
from scanlearn.scans.formats.inside import inside
from scanlearn.scans.formats.limits import INFLATION, check_size
from scanlearn.scans.formats.raw import SURPLUS

LONGEST_HEADER = 2**16  # bytes
NRRD = b"NRRD"


def _sizes(table: Iterable[tuple[int, str]]) -> dict[str, int]:
    return {name: size for size, names in table for name in names.split(", ")}


# Bytes of a number by the names that the formats give to its type.
_META_TYPES = _sizes(
    (
        (1, "MET_CHAR, MET_UCHAR"),
        (2, "MET_SHORT, MET_USHORT"),
        (4, "MET_INT, MET_UINT, MET_LONG, MET_ULONG, MET_FLOAT"),
        (8, "MET_LONG_LONG, MET_ULONG_LONG, MET_DOUBLE"),
    )
)
_NRRD_TYPES = _sizes(
    (
        (1, "signed char, int8, int8_t, uchar, unsigned char, uint8, uint8_t"),
        (2, "short, short int, signed short, signed short int, int16, int16_t"),
        (2, "ushort, unsigned short, unsigned short int, uint16, uint16_t"),
        (4, "int, signed int, int32, int32_t, uint, unsigned int, uint32, uint32_t, float"),
        (8, "longlong, long long, long long int, signed long long, signed long long int, int64, int64_t"),
        (8, "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t, double"),
    )
)
_WORD = re.compile(r"\s*([A-Za-z][A-Za-z0-9_]*)\s*=(.*)")
_FIELD = re.compile(r"([A-Za-z][A-Za-z ]*): ?(.*)")
_KEY = re.compile(r"[^:]+:=.*")


@dataclass(frozen=True)
class Announced:
    """What a header says: SimpleITK's reader for it, numbers in all, whether it gives a place in space."""

    reader: str
    count: int
    located: bool


def announced(path: Path, limit: int) -> Announced:
    """What the header says, if all of it can be true; else FileError."""
    with path.open("rb") as file:
        start = file.read(LONGEST_HEADER)
    return _nrrd(path, start, limit) if start.startswith(NRRD) else _meta(path, start, limit)


def _meta(path: Path, start: bytes, limit: int) -> Announced:
    fields: dict[str, str] = {}
    offset = 0
    while "ElementDataFile" not in fields:
        end = start.find(b"\n", offset)
        line = start[offset : end if end >= 0 else len(start)].decode("latin-1").rstrip()
        found = _WORD.fullmatch(line)
        if found is None or found[1] in fields or ":" in line[: line.index("=")]:
            raise FileError(path, f"has a MetaImage header with a damaged line {len(fields) + 1}.")
        fields[found[1]] = found[2].strip()
        offset = end + 1 if end >= 0 else len(start)
    shape = _numbers(path, fields.get("DimSize", ""), 4)
    channels = _numbers(path, fields.get("ElementNumberOfChannels", "1"), 1)
    if fields.get("ObjectType", "Image") != "Image" or fields.get("ElementType") not in _META_TYPES:
        raise FileError(path, "is no MetaImage of real numbers.")
    if fields.get("NDims") != str(len(shape)) or fields.get("BinaryData", "True").lower() != "true":
        raise FileError(path, "is a MetaImage whose sizes do not fit its dimensions, or of numbers written as text.")
    need = check_size(path, (*channels, *shape), _META_TYPES[fields["ElementType"]], limit)
    skipped = _whole(path, fields.get("HeaderSize", "0"))
    if fields["ElementDataFile"].upper() == "LOCAL":
        held = path.stat().st_size - offset
    else:
        held = _held(path, fields["ElementDataFile"]) - max(skipped, 0)
    zipped = fields.get("CompressedData", "False").lower() == "true"
    _compare(path, need, held, zipped, surplus=None if skipped < 0 else SURPLUS)
    place = {"Offset", "Position", "Origin", "TransformMatrix", "Rotation", "Orientation"}
    return Announced("MetaImageIO", _product(channels + shape), not place.isdisjoint(fields))


def _nrrd(path: Path, start: bytes, limit: int) -> Announced:
    fields: dict[str, str] = {}
    offset = start.find(b"\n") + 1
    data = ""
    for number in range(2, LONGEST_HEADER):
        if offset >= len(start) or not offset:
            break
        end = start.find(b"\n", offset)
        line = start[offset : end if end >= 0 else len(start)].decode("latin-1").rstrip("\r")
        offset = end + 1 if end >= 0 else len(start)
        if not line:
            break
        if line.startswith("#") or _KEY.fullmatch(line):
            continue
        found = _FIELD.fullmatch(line)
        name = found[1].lower().replace(" ", "") if found else ""
        if found is None or name in fields:
            raise FileError(path, f"has an NRRD header with a damaged line {number}.")
        fields[name] = found[2].strip()
    data = fields.get("datafile", "")
    shape = _numbers(path, fields.get("sizes", ""), 5)
    if fields.get("dimension") != str(len(shape)) or fields.get("type", "").lower() not in _NRRD_TYPES:
        raise FileError(path, "is no NRRD of real numbers, or its sizes do not fit its dimension.")
    need = check_size(path, shape, _NRRD_TYPES[fields["type"].lower()], limit)
    encoding = fields.get("encoding", "").lower()
    if encoding not in ("raw", "gzip", "gz"):
        raise FileError(path, "is an NRRD of another encoding than raw and gzip; save it as one of these.")
    lines, skipped = (_whole(path, fields.get(name, "0")) for name in ("lineskip", "byteskip"))
    if lines < 0 or skipped < -1:
        raise FileError(path, "is an NRRD that skips a negative number of lines or bytes.")
    held = _held(path, data) if data else path.stat().st_size - offset
    open_end = lines or skipped < 0
    _compare(path, need, held - max(skipped, 0), encoding != "raw", surplus=None if open_end else SURPLUS)
    located = "spaceorigin" in fields or ("space" in fields and "spacedirections" in fields)
    return Announced("NrrdImageIO", _product(shape), located)


def _held(path: Path, name: str) -> int:
    """Bytes of the data file that a header names."""
    if name.upper().startswith("LIST"):
        raise FileError(path, "spreads its voxels over several files; save it as one.")
    data = inside(path, path.parent, name)
    if not data.is_file():
        raise FileError(path, "lacks the data file that its header names.")
    return data.stat().st_size


def _compare(path: Path, need: int, held: int, zipped: bool, surplus: int | None) -> None:
    """Whether the file holds what its header announces."""
    if need > held * (INFLATION if zipped else 1):
        raise FileError(path, f"is cut off or its header wrong: {held} bytes cannot hold the {need} it announces.")
    if not zipped and surplus is not None and held > need + surplus:
        raise FileError(path, f"holds more than the {need} bytes of voxels that its header announces.")


def _numbers(path: Path, text: str, most: int) -> tuple[int, ...]:
    words = text.split()
    if not 1 <= len(words) <= most or not all(word.isascii() and word.isdigit() and len(word) < 16 for word in words):
        raise FileError(path, f"has a header whose sizes are not one to {most} whole numbers.")
    return tuple(int(word) for word in words)


def _whole(path: Path, text: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,15}", text):
        raise FileError(path, "has a header that skips a number of bytes or lines that is none.")
    return int(text)


def _product(sides: tuple[int, ...]) -> int:
    count = 1
    for side in sides:
        count *= side
    return count
