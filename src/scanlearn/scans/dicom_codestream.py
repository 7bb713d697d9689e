"""What a compressed frame says of itself: its size, read from the first bytes of JPEG, JPEG-LS or JPEG 2000.

A decoder believes these bytes and not the DICOM header, so a frame of 65,535 x 65,535 would be decoded before anybody
compares its size.
"""

from __future__ import annotations

_J2K_START = b"\xff\x4f\xff\x51"  # start of codestream, then the size segment
# Start of frame: JPEG's C0..CF without C4, C8 and CC, and JPEG-LS's F7.
_FRAME_MARKERS = frozenset((*range(0xC0, 0xD0), 0xF7)) - {0xC4, 0xC8, 0xCC}
_ALONE = frozenset((0x01, *range(0xD0, 0xD9)))  # markers without a segment


def frame_size(stream: bytes) -> tuple[int, int] | None:
    """(rows, columns) that a compressed frame announces, None where it does not say (or is of another kind)."""
    start = stream.find(_J2K_START, 0, 4096)
    if start >= 0:
        return _j2k_size(stream[start + 4 : start + 4 + 20])
    return _jpeg_size(stream) if stream[:2] == b"\xff\xd8" else None


def _j2k_size(segment: bytes) -> tuple[int, int] | None:
    """ISO 15444-1 A.5.1: length and capabilities (2 bytes each), then right, bottom, left, top (4 bytes each)."""
    if len(segment) < 20:
        return None
    right, bottom, left, top = (int.from_bytes(segment[at : at + 4], "big") for at in (4, 8, 12, 16))
    return bottom - top, right - left


def _jpeg_size(stream: bytes) -> tuple[int, int] | None:
    """ITU T.81 B.2.2: marker segments until a start of frame: length (2), precision (1), rows (2), columns (2)."""
    at = 2
    while at + 9 <= len(stream):
        if stream[at] != 0xFF:
            return None
        marker = stream[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in _ALONE:
            at += 2
        elif marker in _FRAME_MARKERS:
            return int.from_bytes(stream[at + 5 : at + 7], "big"), int.from_bytes(stream[at + 7 : at + 9], "big")
        else:
            at += 2 + max(int.from_bytes(stream[at + 2 : at + 4], "big"), 2)
    return None
