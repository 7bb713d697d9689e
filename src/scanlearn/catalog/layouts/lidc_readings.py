"""The readings of LIDC-IDRI's radiologists: XML beside the images, in which each of four outlines every nodule alone.

Only nodules of 3 mm and more have outlines and a grade of malignancy (1 to 5); smaller ones, and what is no nodule, are
marked by one pixel and left out. Coordinates are pixels from 0, column and row, on slices that go by their z in mm.
Source: the schema that the Cancer Imaging Archive gives out with the XML, http://www.nih.gov/idri.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

_MOST_BYTES = 64 << 20  # the largest of the collection have 2 MB
_NUMBERS = ("malignancy", "imagezposition", "xcoord", "ycoord")


@dataclass
class Mark:
    """A nodule as one reader outlined it."""

    malignancy: int = 0  # 0: not graded, so smaller than 3 mm
    x: list[float] = field(default_factory=list)  # columns of all outlines
    y: list[float] = field(default_factory=list)  # rows
    z: list[float] = field(default_factory=list)  # mm

    @property
    def centre(self) -> tuple[float, float, float]:
        """Column, row and mm: the mean of its outlines' pixels."""
        n = len(self.x)
        return sum(self.x) / n, sum(self.y) / n, sum(self.z) / n


@dataclass
class Reading:
    """What the readers marked on one series."""

    series: str  # UID, "" where the file tells none
    marks: list[Mark]


def read_reading(path: Path) -> Reading | None:
    """The graded nodules of one XML file, all readers' one after the other; None for what is no reading of a CT."""
    try:
        data = path.read_bytes() if path.stat().st_size <= _MOST_BYTES else b""
    except OSError:
        return None
    return parse_reading(data)


def parse_reading(data: bytes) -> Reading | None:
    """``read_reading`` of the bytes of a file."""
    walk = _Walk()
    parser = expat.ParserCreate(namespace_separator="}")
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = walk.start, walk.end
    parser.CharacterDataHandler = walk.text
    parser.StartDoctypeDeclHandler = _refuse
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, _Odd, ValueError):
        return None
    return Reading(walk.series, [mark for mark in walk.marks if mark.malignancy and mark.x]) if walk.is_ct else None


class _Odd(Exception):
    """A document type, which may hold entities; no reading has one."""


def _refuse(*_: object) -> None:
    raise _Odd


class _Walk:
    """One pass over the elements; outlines of holes (inclusion FALSE) do not count."""

    def __init__(self) -> None:
        self.series, self.is_ct = "", False
        self.marks: list[Mark] = []
        self._word: list[str] = []
        self._z = 0.0
        self._inside = True
        self._x: list[float] = []
        self._y: list[float] = []

    def start(self, tag: str, _: dict[str, str]) -> None:
        name = tag.rpartition("}")[2].lower()
        self._word = []
        if name == "lidcreadmessage":
            self.is_ct = True
        elif name == "unblindedreadnodule":
            self.marks.append(Mark())
        elif name == "roi":
            self._inside, self._x, self._y = True, [], []

    def text(self, word: str) -> None:
        self._word.append(word)

    def end(self, tag: str) -> None:
        name = tag.rpartition("}")[2].lower()
        word = "".join(self._word).strip()
        if name in _NUMBERS:
            self._number(name, float(word))
        elif name == "inclusion":
            self._inside = word.upper() != "FALSE"
        elif name in ("seriesinstanceuid", "ctseriesinstanceuid"):
            self.series = self.series or word
        elif name == "roi" and self._inside and self.marks:
            mark = self.marks[-1]
            mark.x += self._x
            mark.y += self._y
            mark.z += [self._z] * len(self._x)

    def _number(self, name: str, value: float) -> None:
        if name == "xcoord":
            self._x.append(value)
        elif name == "ycoord":
            self._y.append(value)
        elif name == "imagezposition":
            self._z = value
        elif self.marks:
            self.marks[-1].malignancy = int(value)
