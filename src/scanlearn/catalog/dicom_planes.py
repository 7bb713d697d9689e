"""Where the planes of a DICOM file lie in the patient: of a single image, and of each frame of a multi-frame object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from scanlearn.catalog.dicom_tags import BadTag, items, number, numbers

PLANE_TAGS = (
    *("Rows", "Columns", "NumberOfFrames", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"),
    *("ImagerPixelSpacing", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)
# Planes belong together if their directions agree this well (cosines), and their spacings (relative).
DIRECTION_TOLERANCE = 1e-3
SPACING_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class Plane:
    """One image in space. None is what the file does not say.

    cosines: unit vectors of a row and of a column (x, y, z, x, y, z), LPS. spacing: mm (between rows, between columns).
    position: centre of the first pixel, LPS mm.
    """

    rows: int
    columns: int
    cosines: tuple[float, ...] | None = None
    spacing: tuple[float, ...] | None = None
    position: tuple[float, ...] | None = None

    @property
    def look(self) -> tuple:
        """What planes of one volume share exactly or nearly: size, directions and spacing."""
        return self.rows, self.columns, self.cosines, self.spacing

    def normal(self) -> np.ndarray:
        """Unit vector along which slices are stacked, LPS; an image that does not say how it lies counts as axial."""
        cosines = np.array(self.cosines or (1, 0, 0, 0, 1, 0), float)
        return np.cross(cosines[:3], cosines[3:])

    def fits(self, other: Plane) -> bool:
        """Whether both could be slices of one volume."""
        if self.look == other.look:
            return True
        if (self.rows, self.columns) != (other.rows, other.columns):
            return False
        for own, its, relative, absolute in (
            (self.cosines, other.cosines, 0, DIRECTION_TOLERANCE),
            (self.spacing, other.spacing, SPACING_TOLERANCE, 0),
        ):
            if (own is None) != (its is None):
                return False
            if own is not None and its is not None and not np.allclose(own, its, rtol=relative, atol=absolute):
                return False
        return True


def frames_of(data: Any) -> int:
    """How many frames a file says it holds, 1 if it does not say."""
    found = number(data, "NumberOfFrames")
    return 1 if found is None else int(found)


def plane_of(data: Any, frame: int = 0) -> Plane:
    """The plane of a single image, or of one frame of a multi-frame object; BadTag for values that are no numbers."""
    each = items(data, "PerFrameFunctionalGroupsSequence")
    shared = items(data, "SharedFunctionalGroupsSequence")
    groups = [*each[frame : frame + 1], *shared[:1]]
    rows, columns = number(data, "Rows"), number(data, "Columns")
    return Plane(
        rows=int(rows or 0),
        columns=int(columns or 0),
        cosines=_cosines(_first(data, groups, "PlaneOrientationSequence", "ImageOrientationPatient", 6)),
        spacing=_spacing(
            _first(data, groups, "PixelMeasuresSequence", "PixelSpacing", 2) or numbers(data, "ImagerPixelSpacing", 2)
        ),
        position=_first(data, groups, "PlanePositionSequence", "ImagePositionPatient", 3),
    )


def of_group(groups: list[Any], sequence: str, keyword: str) -> float | None:
    """A number from the first functional group (of the frame, then shared) that has it."""
    for group in groups:
        for item in items(group, sequence)[:1]:
            if (found := number(item, keyword)) is not None:
                return found
    return None


def _first(data: Any, groups: list[Any], sequence: str, keyword: str, count: int) -> tuple[float, ...] | None:
    for group in groups:
        for item in items(group, sequence)[:1]:
            if (found := numbers(item, keyword, count)) is not None:
                return found
    return numbers(data, keyword, count)


def _cosines(found: tuple[float, ...] | None) -> tuple[float, ...] | None:
    """Rounding errors are taken out; directions that are none, or not at right angles, are refused."""
    if found is None:
        return None
    pair = np.array(found).reshape(2, 3)
    lengths = np.linalg.norm(pair, axis=1, keepdims=True)
    if np.abs(lengths - 1).max() > 0.05 or abs(float(pair[0] @ pair[1])) > 0.01:
        raise BadTag("ImageOrientationPatient", "whose directions are not at right angles")
    if np.abs(lengths - 1).max() < 1e-9:
        return found
    return tuple(float(v) for v in (pair / lengths).ravel())


def _spacing(found: tuple[float, ...] | None) -> tuple[float, ...] | None:
    """Some devices write a spacing of zero where they know none."""
    return found if found is not None and min(found) > 0 else None
