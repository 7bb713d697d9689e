"""DICOM files sorted into scans: series, the volumes inside a series, and what is no scan."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from scanlearn.catalog.dicom_header import LOCALISER, VOLUME_TAGS, Header, read_header, read_headers
from scanlearn.catalog.files import DICOM_SUFFIXES, is_dicom, suffix_of

__all__ = ["Header", "Sorted", "no_images", "read_header", "read_headers", "sort_into_scans"]

# A few planes that lie apart from a series at least this many times as long are its localisers.
LONGER = 4
MOST_LOCALISERS = 3
# Slices nearer than this along their normal (mm) are at one position.
SAME_POSITION = 1e-3


@dataclass
class Sorted:
    """Files sorted into scans.

    scans: indices of the files of each, in the order of folder, series number and file name. left_out: how many files
    are no scans, by kind. split: {what told the volumes apart: how many series became several scans}.
    """

    scans: list[list[int]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    split: Counter[str] = field(default_factory=Counter)

    def sentences(self) -> list[str]:
        """What a person should know: what was left out and what was split, counts only."""
        said = []
        total = self.left_out.total()
        if total:
            kinds = ", ".join(f"{kind} {count}" for kind, count in self.left_out.most_common() if count)
            said.append(f"{total} DICOM files are no scans and are left out: {kinds}.")
        if self.split:
            ways = ", ".join(f"by {way} {count}" for way, count in self.split.most_common())
            said.append(f"{sum(self.split.values())} DICOM series hold several scans and are split: {ways}.")
        return said


def no_images(paths: Iterable[str]) -> set[str]:
    """Those of the files that are DICOM by name or content and hold no image: segmentations, structure sets, reports."""
    dicom = [path for path in paths if suffix_of(path) in ("", *DICOM_SUFFIXES) and is_dicom(path)]
    headers = ((path, read_header(path)) for path in dicom)
    return {path for path, header in headers if header is not None and header.kind}


def sort_into_scans(paths: Sequence[str], headers: Sequence[Header | None]) -> Sorted:
    """Sort files into scans; files that are no scans are counted by kind.

    Files are one series if they lie in one folder, have one series UID and each has a place in the patient. Radiographs
    have no such place, and front and side views often share a UID; like multi-frame and unreadable files they stand
    alone. A series is split where its planes differ in direction, size or spacing, and where several images lie at one
    position and acquisition, echo, time or the like tell them apart. Up to three planes that lie apart from a series
    four times as long are localisers and are left out.
    """
    out = Sorted()
    groups: dict[tuple, list[int]] = defaultdict(list)
    for index, (path, header) in enumerate(zip(paths, headers, strict=True)):
        folder = path.rpartition("/")[0]
        if header is not None and header.kind:
            out.left_out[header.kind] += 1
        elif header is None or not header.is_slice:
            groups[(folder, (0, ""), path)].append(index)
        else:
            groups[(folder, header.series, "")].append(index)
    first = {key: min(paths[i] for i in members) for key, members in groups.items()}
    for key in sorted(groups, key=lambda key: (key[0], key[1][0], first[key])):
        members = sorted(groups[key], key=lambda i: paths[i])
        known = {i: header for i in members if (header := headers[i]) is not None}
        out.scans += _volumes_of_series(members, known, out) if len(members) > 1 else [members]
    return out


def _volumes_of_series(members: list[int], headers: dict[int, Header], out: Sorted) -> list[list[int]]:
    parts = _by_look(members, headers)
    longest = max(map(len, parts))
    kept = [part for part in parts if len(part) > MOST_LOCALISERS or len(part) * LONGER > longest]
    left_out = sum(map(len, parts)) - sum(map(len, kept))
    if left_out:
        out.left_out[LOCALISER] += left_out
    ways = ["direction, size or spacing"] if len(kept) > 1 else []
    volumes: list[list[int]] = []
    for part in kept:
        found, way = _by_position(part, headers)
        volumes += found
        ways += [way] if way else []
    for way in dict.fromkeys(ways):
        out.split[way] += 1
    return volumes


def _by_look(members: list[int], headers: dict[int, Header]) -> list[list[int]]:
    """Groups of planes of one size, direction and spacing, in the order of their first file."""
    exact: dict[tuple, list[int]] = defaultdict(list)
    for index in members:
        exact[headers[index].plane.look].append(index)
    groups: list[list[int]] = []
    for alike in exact.values():
        plane = headers[alike[0]].plane
        home = next((group for group in groups if headers[group[0]].plane.fits(plane)), None)
        if home is None:
            groups.append(alike)
        else:
            home += alike
    rank = {index: n for n, index in enumerate(members)}
    return [sorted(group, key=rank.__getitem__) for group in groups]


def _by_position(part: list[int], headers: dict[int, Header]) -> tuple[list[list[int]], str]:
    """(volumes with one image at each position, what told them apart), or the part as it is if nothing does."""
    position = _positions(part, headers)
    crowd = _crowd(part, position, headers)
    if crowd == 1:
        return [part], ""
    for way in _ways(part, headers):
        groups: dict[tuple, list[int]] = defaultdict(list)
        for index in part:
            groups[tuple(headers[index].volume[k] for k in way)].append(index)
        # A tag that differs from slice to slice would make as many volumes as there are slices.
        if len(groups) <= 2 * crowd and all(_crowd(group, position, headers) == 1 for group in groups.values()):
            return list(groups.values()), " and ".join(VOLUME_TAGS[k] for k in way)
    return [part], ""


def _ways(part: list[int], headers: dict[int, Header]) -> Iterator[tuple[int, ...]]:
    """The tags by which a part can be split, one alone first, then two and three of them together."""
    telling = [k for k in range(len(VOLUME_TAGS)) if len({headers[index].volume[k] for index in part}) > 1]
    for size in (1, 2, 3):
        yield from combinations(telling, size)


def _positions(part: list[int], headers: dict[int, Header]) -> dict[int, int]:
    """{file: which of the positions along the normal it is at}."""
    normal = headers[part[0]].plane.normal()
    along = np.array([headers[index].plane.position for index in part], float) @ normal
    order = np.argsort(along, kind="stable")
    step = np.diff(along[order], prepend=along[order[0]]) > SAME_POSITION
    return {part[i]: int(rank) for i, rank in zip(order, np.cumsum(step), strict=True)}


def _crowd(part: list[int], position: dict[int, int], headers: dict[int, Header]) -> int:
    """How many different images lie at one position at most; a file exported twice counts once."""
    images = {(position[index], headers[index].instance or str(index)) for index in part}
    return max(Counter(place for place, _ in images).values())
