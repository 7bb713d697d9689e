"""From places and neighbours to the table: the boxes of each word at the base scale and at random ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scanlearn.console import track
from scanlearn.discovery.coordinates import Places
from scanlearn.discovery.descriptors import Descriptors
from scanlearn.discovery.frame import Frame
from scanlearn.discovery.neighbours import Usable, nearest
from scanlearn.discovery.plan import Part
from scanlearn.keys import key_of
from scanlearn.randomness import Draws
from scanlearn.scans.store import Store

# Extra crops of a base crop of 64: sides 50..79 and shifts -10..9 within the plane, the last axis of a volume as it is.
BASE, SIDES, SHIFTS = 64, (50, 79), (-10, 9)
REDRAWS = 64


@dataclass(frozen=True)
class Layout:
    """Where the scans of a store lie: shapes int64 and spacings float64 of rows, (n, D) each."""

    store: Store
    spaced: bool  # whether spacings matter; they are not looked up otherwise

    def shapes(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(self.store.shapes(rows), np.int64)

    def spacings(self, rows: np.ndarray) -> np.ndarray:
        if not self.spaced:
            return np.ones((len(rows), self.store.spatial_dims))
        return np.array([self.store.spacing(int(row)) for row in rows]).reshape(len(rows), -1)


def table_of(
    described: Descriptors,
    places: Places,
    frame: Frame,
    layout: Layout,
    parts: Sequence[tuple[Part, int, int]],
    *,
    per_patient: int | None,
    skip_small: bool,
    seed: int,
) -> dict[str, np.ndarray]:
    """The columns of the table of words.

    Args:
        parts: train and val, each with its number of neighbours and of extra crops.
        skip_small: neighbours in which the crop would reach over the edge are passed over.
    """
    queries = described.lines(np.array(places.rows))
    none = np.zeros((len(queries), 0))
    near: list[tuple[np.ndarray, np.ndarray]] = []
    for part, count, _ in parts:
        usable = _fitting(described, places, frame, layout) if skip_small else None
        lines = described.lines(part.rows)
        near.append(
            nearest(described.values, queries, lines, part.patients, count, per_patient=per_patient, usable=usable)
            if count
            else (none.astype(np.int64), none)
        )
    made = [
        word_crops(
            word, places.points[word], frame, layout, described.rows[order[word]], distance[word], code, extra, seed
        )
        for word in track(range(len(queries)), len(queries), "crops")
        for code, ((order, distance), (_, _, extra)) in enumerate(zip(near, parts, strict=True))
    ]
    return {name: np.concatenate([columns[name] for columns in made]) for name in made[0]}


def _fitting(described: Descriptors, places: Places, frame: Frame, layout: Layout) -> Usable:
    def usable(word: int, lines: np.ndarray) -> np.ndarray:
        rows = described.rows[lines]
        return frame.fit(places.points[word], layout.shapes(rows), layout.spacings(rows))

    return usable


def word_crops(
    word: int,
    point: np.ndarray,
    frame: Frame,
    layout: Layout,
    rows: np.ndarray,
    distance: np.ndarray,
    part: int,
    extra: int,
    seed: int,
) -> dict[str, np.ndarray]:
    """The columns of the table (see ``Words``) for one word in one part.

    Args:
        rows, distance: (K,) the neighbours, nearest first, with the reference at rank 0 where it is among them.
        part: 0 train, 1 val.
        extra: crops of each scan at other scales.
    """
    shapes, spacings = layout.shapes(rows), layout.spacings(rows)
    start, side = frame.starts(point, shapes, spacings), frame.sides(spacings)
    boxes = [(start, side)]
    for scale in range(1, extra + 1):
        draws = Draws.for_step(key_of(seed, "extra crops", scale), word, rows)
        boxes.append(extra_crops(start, side, shapes, draws))
    times, count = len(boxes), len(rows)
    first = 0 if part == 0 else 1  # validation patients have no reference among them
    return {
        "word": np.full(times * count, word, np.int32),
        "row": np.tile(rows.astype(np.int32), times),
        "part": np.full(times * count, part, np.uint8),
        "scale": np.repeat(np.arange(times, dtype=np.uint8), count),
        "rank": np.tile(np.arange(first, first + count, dtype=np.int32), times),
        "distance": np.tile(distance.astype(np.float32), times),
        "start": np.concatenate([start for start, _ in boxes]).astype(np.int32),
        "side": np.concatenate([side for _, side in boxes]).astype(np.int32),
    }


def extra_crops(start: np.ndarray, side: np.ndarray, shapes: np.ndarray, draws: Draws) -> tuple[np.ndarray, np.ndarray]:
    """(start, side), int64 (n, D) each: a larger or smaller box near each base box, inside the scan where one fits.

    The side is 50/64 to 79/64 of the base crop's, the same for both axes of the plane; its first voxel moves by -10/64
    to 9/64 of the side. Drawn again while the box leaves the scan on any side, 64 times at most; then the box that
    leaves it least is taken, as scans that are smaller than the crop hold none. Source: spec_genesis §1.2, §1.4.
    """
    plane = 2  # x and y of a volume, both axes of an image
    count, dims = start.shape
    size = draws.integers(*SIDES, REDRAWS).numpy()[:, :, None]
    shift = draws.integers(*SHIFTS, REDRAWS, plane).numpy()
    base, origin = side[:, None, :plane], start[:, None, :plane]
    sides = np.maximum(np.rint(base * size / BASE), 1).astype(np.int64)
    starts = origin + np.rint(base * shift / BASE).astype(np.int64)
    room = shapes[:, None, :plane]
    outside = (np.maximum(-starts, 0) + np.maximum(starts + sides - room, 0)).sum(axis=2)
    chosen = np.arange(count), outside.argmin(axis=1)  # the first of those that do not leave the scan
    depth = np.zeros((count, dims - plane), np.int64)
    return (
        np.concatenate([starts[chosen], start[:, plane:] + depth], axis=1),
        np.concatenate([sides[chosen], side[:, plane:] + depth], axis=1),
    )
