"""Boxes that may reach over the edge of an array: which part of them lies inside, and where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

Box = tuple[Sequence[int] | np.ndarray, Sequence[int] | np.ndarray]


class Cut(NamedTuple):
    """A box on the last axes of an array: the part of it ``inside`` the array, and where in the box that lies."""

    inside: tuple[Any, ...]
    at: tuple[Any, ...]
    size: list[int]
    whole: bool

    def inner(self, box: np.ndarray, fill: Any) -> np.ndarray:
        """The part of ``box`` that lies inside the array, as a view; all else of it is set to ``fill``."""
        if self.whole:
            return box
        box[...] = fill
        return box[self.at]


def cuts_of(boxes: Sequence[Box], shapes: np.ndarray) -> list[Cut]:
    """The boxes on arrays of these shapes (n, dims); worked out together, as Python is slow one by one."""
    bounds = np.array(boxes, np.int64).reshape(len(shapes), 2, -1)
    starts, stops = bounds[:, 0], bounds[:, 1]
    low, high = np.clip(starts, 0, shapes), np.clip(stops, 0, shapes)
    whole = ((low == starts) & (high == stops)).all(axis=1).tolist()
    table = np.stack([low, high, low - starts, high - starts, stops - starts], axis=1).tolist()
    return [
        Cut((..., *map(slice, a, b)), (..., *map(slice, c, d)), size, w)
        for (a, b, c, d, size), w in zip(table, whole, strict=True)
    ]
