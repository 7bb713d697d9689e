"""The page of ``catalog check``: what any two data sets share in counts, and the pairs themselves side by side.

It names sources and rows, never a patient or a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scanlearn import __version__
from scanlearn.engine.shared_pairs import COPY, FILE, HARMLESS, PATIENT, Shown, shared_pairs
from scanlearn.engine.sides import (
    OTHER_PATIENT,
    OTHER_SCAN,
    SAME_PATIENT,
    Shared,
    Side,
    compare,
    side_of,
    starts,
    titles,
)
from scanlearn.files import write_atomic
from scanlearn.scans.store import Store
from scanlearn.study.page import Picture, Strip, Table, count, render
from scanlearn.study.pictures import slices_of, tile

MOST = 24  # pairs of each kind with pictures
TITLES = {
    FILE: ("The same file twice", "Byte for byte, under two patients, in two parts or in two sources."),
    COPY: ("Pictures that look alike", "Other files of the same picture, by a hash of 256 bits and by the pictures."),
    PATIENT: ("One patient in two places", "A scan from either side of each patient that both have."),
    HARMLESS: ("The same file twice under one patient", "In one part, so nothing leaks; it only counts twice."),
}
_DASH = "-"
_IN_WORDS = {
    SAME_PATIENT: "{}, twice under one patient",
    OTHER_PATIENT: "{}, two patients",
    OTHER_SCAN: "{}, two scans",
}


def check(
    places: Sequence[str | Path],
    out: str | Path | None = None,
    *,
    patient: str | None = None,
    layout: str | None = None,
) -> tuple[str, list[str], Path]:
    """Compare sources with each other and in themselves.

    Args:
        places: stores, runs, folders or tables, see ``side_of``.
        patient, layout: of folders and tables, as ``prepare`` takes them.
        out: the page to write; NAME-leaks.html in the current folder by default, of the first source.

    Returns:
        (the table of counts as text, sentences, the page).
    """
    from scanlearn.study.description import as_text

    sides = [side_of(place, patient=patient, layout=layout) for place in places]
    found, copies = compare(sides)
    sentences = _sentences(sides, found)
    page = Path(out) if out is not None else Path(f"{sides[0].name}-leaks.html")
    table = _counts(found)
    groups = shared_pairs(sides, copies, MOST)
    sections = [_section(sides, shown) for shown in groups if shown.total]
    content: dict[str, Any] = {"title": " · ".join(titles(sides)), "version": __version__, "lead": sentences[-1]}
    facts = [_about(name, side) for name, side in zip(titles(sides), sides, strict=True)]
    content |= {"facts": facts, "sentences": sentences[:-1], "table": _merged(table), "sections": sections}
    write_atomic(page, render("leaks.html.jinja", **content))
    return as_text(table, words=2), sentences, page


def _counts(found: Sequence[Shared]) -> Table:
    head = ("", "and", "patients", "files", "look alike", "mirrored")
    rows = [
        (one.a, one.b, *(_DASH if n is None else f"{n:,}" for n in (one.patients, one.files, one.copies, one.mirrored)))
        for one in found
    ]
    return Table("", head, rows, note=f"{_DASH} stands for what was not looked for, or cannot be told.")


def _merged(table: Table) -> Table:
    """The table with the two that are compared in one cell."""
    rows = [(_IN_WORDS.get(str(b), "{} and {}").format(a, b), *counts) for a, b, *counts in table.rows]
    return Table("", ("", *table.head[2:]), rows, note=table.note)


def _sentences(sides: Sequence[Side], found: Sequence[Shared]) -> list[str]:
    """What is known beside the counts, what could not be looked for, and, last, whether something was found."""
    told = [f"{one.a} and {one.b}: {sentence}" for one in found for sentence in one.told]
    names = titles(sides)
    if unknown := [name for name, side in zip(names, sides, strict=True) if not side.known]:
        told.append(
            f"Not known: whose the scans of {', '.join(unknown)} are, so a patient in two places cannot be seen."
        )
    if blind := [name for name, side in zip(names, sides, strict=True) if side.prints is None]:
        told.append(f"Not known: how the scans of {', '.join(blind)} look, so only their files are compared.")
    if len(sides) > 1:
        told.append("Patients with equal names in two data sets (1, 2, 3, ...) may be different people.")
    leaks = sum(not one.clean for one in found)
    same = sum(one.files for one in found if one.harmless)
    twice = f" {count(same, 'file')} {'is' if same == 1 else 'are'} there twice under one patient." if same else ""
    if leaks:
        return [*told, f"{leaks} of {count(len(found), 'comparison')} found something that leaks.{twice}"]
    return [*told, f"Nothing was found that leaks.{twice}"]


def _about(name: str, side: Side) -> str:
    whose = "" if side.known else ", patients not known"
    parts = [f"{part} {int((side.part == part).sum()):,}" for part in side.parts]
    of = f", of {', '.join(sorted(side.datasets))}" if side.datasets else ""
    return f"{name}: {count(len(side), 'scan')}{whose}{of}{' (' + ', '.join(parts) + ')' if parts else ''}."


def _section(sides: Sequence[Side], shown: Shown) -> dict[str, object]:
    title, lead = TITLES[shown.kind]
    less = f" {len(shown.pairs)} of {shown.total:,} are shown." if shown.total > len(shown.pairs) else ""
    strips = _strips(sides, shown)
    return {"anchor": shown.kind, "title": f"{title}: {shown.total:,}", "lead": lead + less, "strips": strips}


def _strips(sides: Sequence[Side], shown: Shown) -> list[Strip]:
    """Each pair as two pictures under what it is."""
    pairs = shown.pairs
    looks = _looked_up(sides, np.concatenate([pairs.first, pairs.second]))
    strips = []
    for i in range(len(pairs)):
        two = [int(pairs.first[i]), int(pairs.second[i])]
        pictures = [_picture(looks[row], where) for row, where in zip(two, _places(sides, two), strict=True)]
        strips.append(Strip(_words(sides, shown, i, [looks[row] for row in two]), pictures, columns=2))
    return strips


Look = tuple[np.ndarray, float] | None


def _looked_up(sides: Sequence[Side], rows: np.ndarray) -> dict[int, Look]:
    """{row through all sides: its slice}, None for what cannot be read again, as the scans of a run."""
    found: dict[int, Look] = {}
    begin = starts(sides)
    for side, first, stop in zip(sides, begin[:-1], begin[1:], strict=True):
        mine = np.unique(rows[(rows >= first) & (rows < stop)])
        of = [None] * len(mine) if side.scans is None else slices_of(side.scans, side.rows[mine - first])
        found.update(zip(mine.tolist(), of, strict=True))
    return found


def _places(sides: Sequence[Side], rows: Sequence[int]) -> list[str]:
    """ "chest train, row 12": the source, the part, and the row there, counted from 1."""
    names, told = titles(sides), []
    for row in rows:
        i, at = _located(sides, row)
        part = str(sides[i].part[at])
        told.append(f"{names[i]}{' ' + part if part else ''}, row {int(sides[i].rows[at]) + 1:,}")
    return told


def _located(sides: Sequence[Side], row: int) -> tuple[int, int]:
    """The side that a row through all sides is of, and the row there."""
    begin = starts(sides)
    i = int(np.searchsorted(begin, row, "right")) - 1
    return i, row - int(begin[i])


def _picture(look: Look, where: str) -> Picture:
    if look is None:
        return tile(np.full((96, 96), 0.15), "no picture", caption=f"{where}; no picture is kept")
    return tile(look[0], "a scan", caption=where, ratio=look[1])


def _words(sides: Sequence[Side], shown: Shown, i: int, looks: Sequence[Look]) -> str:
    """What a pair is, and how far its hashes are from each other."""
    bits = int(shown.pairs.bits[i])
    distance = f"{bits} of 256 bits" if bits >= 0 else "no hash"
    if shown.kind == PATIENT:
        return f"one patient, {distance}"
    if shown.kind != COPY:
        return "the same file"
    turned = bool(shown.pairs.mirrored[i])
    two = int(shown.pairs.first[i]), int(shown.pairs.second[i])
    return f"{'mirrored, ' if turned else ''}{_difference(sides, two, looks, turned)}, {distance}"


def _difference(sides: Sequence[Side], rows: Sequence[int], looks: Sequence[Look], turned: bool) -> str:
    """What else than a mirror parts two pictures, as far as it can be told."""
    sizes = [_size(sides, row) for row in rows]
    if None in sizes or looks[0] is None or looks[1] is None:
        return "otherwise alike" if turned else "alike"
    if sizes[0] != sizes[1]:
        return "resized"
    other = looks[1][0][:, ::-1] if turned else looks[1][0]
    same = np.array_equal(looks[0][0], other)
    return "the same pixels in another file" if same else "re-encoded or windowed otherwise"


def _size(sides: Sequence[Side], row: int) -> tuple[int, ...] | None:
    """The size of a scan in its file, None where it cannot be told."""
    i, at = _located(sides, row)
    side = sides[i]
    if side.scans is None:
        return None
    of = int(side.rows[at])
    if isinstance(side.scans, Store):
        return tuple(side.scans.laid([of])[0][0].astype(int).tolist())
    return tuple(side.scans.shape(of))
