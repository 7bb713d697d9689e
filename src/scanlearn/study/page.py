"""The parts that a page is made of, and the page itself: one HTML file that loads nothing from anywhere.

A report gathers parts (``Picture``, ``Panel``, ``Strip``, ``Table``) and hands them to a template, which knows how to
draw each of them (``parts.html.jinja``). Whatever comes from data (names of classes, of runs, of columns) is escaped by
the template and by nothing else.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

MISSING = "–"


@dataclass(frozen=True)
class Picture:
    """An image inside the page: ``src`` is a data URI, ``alt`` says what is seen, sizes are in CSS pixels."""

    src: str
    alt: str
    width: int
    height: int
    caption: str = ""
    mark: str = ""  # "", query, same or other: how a tile is framed


@dataclass(frozen=True)
class Panel:
    """A diagram with its title and one line that says how to read it."""

    title: str
    picture: Picture
    note: str = ""


@dataclass(frozen=True)
class Strip:
    """Small pictures side by side under one heading; ``columns`` of them in a row where the page is wide enough."""

    title: str
    pictures: Sequence[Picture]
    columns: int = 6


class Measured(NamedTuple):
    """A figure and its interval as text; ``interval`` is empty where there is none."""

    value: str
    interval: str


class Shaded(NamedTuple):
    """A cell whose ground is the darker the larger its ``share`` (0..1)."""

    text: str
    share: float


Cell = str | Measured | Shaded


@dataclass(frozen=True)
class Table:
    """A table with a caption; the first cell of a row is its heading.

    ``total`` marks the last row as a summary; a ``folded`` table is opened by a click on its caption.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    total: bool = False
    words: bool = False  # the cells are words, set to the left
    note: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Command:
    """A line for the shell and the words that say what for."""

    text: str
    why: str = ""


@dataclass
class Section:
    """A part of the page with its own heading; templates place what they know and leave out what is empty."""

    anchor: str
    title: str
    lead: str = ""
    content: dict[str, Any] = field(default_factory=dict)


def render(template: str, **content: Any) -> str:
    """The page as text. Every value is escaped; a name that the template misses is an error, never a blank."""
    environment = Environment(
        loader=PackageLoader("scanlearn", "study"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["measured"] = lambda cell: isinstance(cell, Measured)
    environment.tests["shaded"] = lambda cell: isinstance(cell, Shaded)
    return environment.get_template(template).render(**content)


def number(value: Any, digits: int = 3) -> str:
    """A figure as text: ``digits`` after the point; a dash for what cannot be told (None, NaN, infinite)."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{value:.{digits}f}"


def percent(share: float) -> str:
    """ "87 %", with a space that does not break."""
    return f"{share * 100:.0f}\u00a0%"


def count(value: int, noun: str) -> str:
    """ "1 scan", "2,181 scans"."""
    return f"{value:,} {noun}" if value == 1 else f"{value:,} {noun}s"


def measured(estimate: Mapping[str, Any], digits: int = 3) -> Measured:
    """A metric ``{"value", "low", "high"}`` as a cell: the figure, and its interval where it has one."""
    low, high = number(estimate.get("low"), digits), number(estimate.get("high"), digits)
    return Measured(number(estimate["value"], digits), "" if MISSING in (low, high) else f"{low} to {high}")


def spoken(estimate: Mapping[str, Any]) -> str:
    """The same for the description of a diagram: "0.812 (0.750 to 0.875)", or the figure alone."""
    figure = measured(estimate)
    return f"{figure.value} ({figure.interval})" if figure.interval else figure.value


# An absolute path of two components or more, a home folder, a drive, a file URL; not "images/s", not a web address.
_PATH = re.compile(r"(?<![\w.:/~])(?:file://|~)?/[^\s/'\"]+/[^\s'\"]*|\b[A-Za-z]:\\[^\s'\"]+|(?<!\w)~/[^\s'\"]+")


def without_paths(text: str) -> str:
    """Free text (a recipe, a warning) with an ellipsis for every absolute path: paths name people and places."""
    return _PATH.sub("…", text)
