"""Planes stacked into a volume: their order along the normal, one place each, even steps, and what a person should know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from scanlearn.catalog.dicom_planes import Plane
from scanlearn.errors import FileError
from scanlearn.scans.geometry import LPS_TO_RAS, affine_from, swap_first_axes

# Slices nearer than this along the normal (mm) are at one position.
SAME_POSITION = 1e-3
# A gap this much wider than the usual one means missing slices.
MISSING = 1.5
# Slices may lie this far from an even grid, in steps of it; a missing slice moves its neighbours by half a step.
UNEVEN = 0.25
# Gaps that differ by less than this part of their median are called even: positions are written rounded.
NOTED = 0.02
# Degrees between the normal and the way from slice to slice beyond which a volume is called sheared.
TILT = 0.1


@dataclass
class Stack:
    """A volume to be. slots: the planes at each place along the normal, more than one for duplicates. affine: RAS+."""

    slots: list[list[int]]
    affine: np.ndarray
    notes: list[str] = field(default_factory=list)


def flat_affine(plane: Plane) -> np.ndarray:
    """RAS+ affine of a single image (row, column); 1 mm and an axial plane at the origin where the file is silent."""
    affine = affine_from(_directions(plane), (*_spacing(plane), 1.0), plane.position or (0, 0, 0))
    return swap_first_axes(LPS_TO_RAS @ affine)


def stack(planes: Sequence[Plane], path: Path) -> Stack:
    """Order the planes along their normal. Axes of the affine: (i = column, j = row, k = slice).

    A tilted gantry gives a sheared affine. Raises FileError, with numbers, for planes of different looks, without a
    position, at one position beside each other, or with gaps that tell of missing slices.
    """
    lost = sum(plane.position is None for plane in planes)
    if lost:
        raise FileError(path, f"has {lost} of {len(planes)} images without a position; give them as single images.")
    looks = {plane.look: plane for plane in planes}
    for plane in looks.values():
        if not plane.fits(planes[0]):
            raise FileError(path, f"{_difference(planes)}; give each of them as its own scan.")
    notes = []
    if planes[0].cosines is None:
        notes.append("does not say how its slices lie; axial ones are assumed.")
    if planes[0].spacing is None:
        notes.append("does not say how large its pixels are; 1 mm is assumed.")
    positions = np.array([plane.position for plane in planes], float)
    along = positions @ planes[0].normal()
    slots = _slots(along)
    firsts = [slot[0] for slot in slots]
    _check_beside(slots, positions, _spacing(planes[0]), path)
    step = _step(along[firsts], positions[firsts], planes[0], path, notes)
    affine = affine_from(_directions(planes[0]), (*_spacing(planes[0]), 1.0), positions[firsts[0]])
    affine[:3, 2] = step
    return Stack(slots, LPS_TO_RAS @ affine, notes)


def _difference(planes: Sequence[Plane]) -> str:
    first = planes[0]
    sizes = len({(plane.rows, plane.columns) for plane in planes})
    if sizes > 1:
        return f"mixes planes of {sizes} sizes"
    turned = sum(not Plane(0, 0, plane.cosines).fits(Plane(0, 0, first.cosines)) for plane in planes)
    if turned:
        return f"mixes planes of different direction ({turned} of {len(planes)} lie apart from the first)"
    return f"mixes planes of {len({plane.spacing for plane in planes})} pixel spacings"


def _slots(along: np.ndarray) -> list[list[int]]:
    """Indices of the planes at each position, positions ascending, planes of one position in their given order."""
    order = np.argsort(along, kind="stable")
    starts = np.flatnonzero(np.diff(along[order]) > SAME_POSITION) + 1
    return [sorted(int(i) for i in part) for part in np.split(order, starts)]


def _check_beside(slots: list[list[int]], positions: np.ndarray, spacing: tuple[float, float], path: Path) -> None:
    """Planes at one height that lie beside each other are tiles or stations, no duplicates."""
    for slot in slots:
        apart = np.linalg.norm(positions[slot] - positions[slot[0]], axis=1).max()
        if apart > min(spacing) / 2:
            raise FileError(path, f"has slices at one height that lie {apart:.3g} mm beside each other; split it.")


def _step(along: np.ndarray, positions: np.ndarray, plane: Plane, path: Path, notes: list[str]) -> np.ndarray:
    """mm from slice to slice, LPS. ``along`` ascends. What is uneven but acceptable, or tilted, is noted."""
    if len(along) == 1:
        return plane.normal()
    gaps = np.diff(along)
    median = float(np.median(gaps))
    _check_gaps(gaps, median, path)
    mean = (along[-1] - along[0]) / (len(along) - 1)
    off = float(np.abs(along - along[0] - mean * np.arange(len(along))).max())
    if off > UNEVEN * mean:
        raise FileError(
            path,
            f"has slices {gaps.min():.3g} to {gaps.max():.3g} mm apart, {off:.3g} mm off an even grid; "
            "resample it to even slices first.",
        )
    if np.abs(gaps - median).max() > NOTED * median:
        notes.append(f"has slices {gaps.min():.3g} to {gaps.max():.3g} mm apart; {mean:.3g} mm is taken for all.")
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    astray = positions - positions[0] - step * np.arange(len(positions))[:, None]
    astray -= np.outer(astray @ plane.normal(), plane.normal())
    sideways = float(np.linalg.norm(astray, axis=1).max())
    if sideways > min(_spacing(plane)):
        raise FileError(path, f"has slices that are shifted against each other by up to {sideways:.3g} mm.")
    tilt = float(np.degrees(np.arccos(np.clip(mean / np.linalg.norm(step), -1, 1))))
    if tilt > TILT:
        notes.append(f"was taken with a tilted gantry: its slices are sheared by {tilt:.1f} degrees, as its affine is.")
    return step


def _check_gaps(gaps: np.ndarray, median: float, path: Path) -> None:
    wide = gaps[gaps > MISSING * median]
    if not len(wide):
        return
    whole = np.rint(wide / median)
    lost = int((whole - 1).sum())
    if np.abs(wide / median - whole).max() < UNEVEN and lost < len(gaps):
        raise FileError(
            path, f"misses {lost} slices: gaps of up to {wide.max():.3g} mm where {median:.3g} mm is usual."
        )
    raise FileError(path, f"has slices {gaps.min():.3g} to {gaps.max():.3g} mm apart; some are missing or doubled.")


def _directions(plane: Plane) -> np.ndarray:
    """(3, 3) with columns i, j, normal, LPS."""
    cosines = np.array(plane.cosines or (1, 0, 0, 0, 1, 0), float)
    return np.stack([cosines[:3], cosines[3:], plane.normal()], axis=1)


def _spacing(plane: Plane) -> tuple[float, float]:
    """mm of i and j; the tag is (between rows, between columns), and i counts columns."""
    return (plane.spacing[1], plane.spacing[0]) if plane.spacing else (1.0, 1.0)
