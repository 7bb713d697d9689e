"""Values of DICOM tags that may hold anything: numbers are checked, texts are texts, and no value gets into an error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

# VRs whose values are plain ASCII, several separated by a backslash, so that they need none of pydicom's converters.
_TEXTS = frozenset(("CS", "DS", "IS", "UI", "TM", "DA", "LO"))
_ESCAPE = b"\x1b"  # switches to another alphabet


class BadTag(ValueError):
    """A value that cannot be used. Says the name of the tag and what is wrong, never the value."""

    def __init__(self, keyword: str, complaint: str = "that is no number"):
        super().__init__(f"has a value of {keyword} {complaint}.")


@cache
def tag_of(keyword: str) -> Any:
    """The tag of a keyword."""
    from pydicom.tag import Tag

    return Tag(keyword)


def tags_of(*keywords: str) -> list[Any]:
    """The tags of the keywords, each once, as ``open_dicom`` takes them."""
    return [tag_of(keyword) for keyword in dict.fromkeys(keywords)]


def numbers(data: Any, keyword: str, count: int) -> tuple[float, ...] | None:
    """``count`` finite numbers of a tag, None where it is missing or empty; BadTag for anything else."""
    try:
        value = _value(data, keyword)
        if isinstance(value, str):
            value = value.split("\\") if value else None
        if value is None or (not isinstance(value, float | int) and len(value) == 0):
            return None
        found = (float(value),) if isinstance(value, float | int) else tuple(map(float, value))
    except RecursionError:
        raise
    except Exception as error:  # converters raise what they like
        raise BadTag(keyword) from error
    if len(found) != count or not all(map(math.isfinite, found)):
        raise BadTag(keyword)
    return found


def number(data: Any, keyword: str) -> float | None:
    """The one number of a tag, None where it is missing or empty; BadTag for anything else."""
    found = numbers(data, keyword, 1)
    return None if found is None else found[0]


def text(data: Any, keyword: str) -> str:
    """The text of a tag, several values joined by a backslash; "" where it is missing or damaged."""
    try:
        value = _value(data, keyword)
    except RecursionError:
        raise
    except Exception:  # a damaged text says nothing
        return ""
    if value is None or isinstance(value, str):
        return (value or "").strip()
    return ("\\".join(map(str, value)) if hasattr(value, "__iter__") else str(value)).strip()


def word(data: Any, keyword: str) -> str:
    """The ``text`` of a tag in upper case."""
    return text(data, keyword).upper()


def items(data: Any, keyword: str) -> Sequence[Any]:
    """The items of a sequence, none where it is missing; BadTag where the tag holds something else."""
    try:
        value = _value(data, keyword)
    except RecursionError:
        raise
    except Exception as error:
        raise BadTag(keyword, "that is no sequence") from error
    if value is None or value == "" or value == b"":
        return ()
    from pydicom.sequence import Sequence as DicomSequence

    if not isinstance(value, DicomSequence):
        raise BadTag(keyword, "that is no sequence")
    return value


def _value(data: Any, keyword: str) -> Any:
    """The value of a tag, None where it is missing. What is simple is parsed here, in a tenth of pydicom's time."""
    element = data.get_item(tag_of(keyword))
    if element is None:
        return None
    raw = element.value
    if element.is_raw and isinstance(raw, bytes):
        vr = _vr(keyword) if element.VR in (None, "UN") else element.VR
        if vr in _TEXTS and raw.isascii() and _ESCAPE not in raw:
            return raw.decode("ascii").strip(" \0")
        if vr == "US" and len(raw) == 2:
            return int.from_bytes(raw, "little" if element.is_little_endian else "big")
    return data.get(keyword)


@cache
def _vr(keyword: str) -> str:
    from pydicom.datadict import dictionary_VR

    return dictionary_VR(keyword)
