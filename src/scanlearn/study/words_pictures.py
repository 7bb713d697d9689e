"""Words as small pictures: a crop of each of a few patients, their mean, and where the word lies on its reference scan.

All crops of a word are drawn on one grid of pixels, that of its reference, so that a row can be compared and averaged.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from scanlearn.scans.intensity import to_unit
from scanlearn.scans.store import Box, Store
from scanlearn.scans.words import Words
from scanlearn.study.page import Picture, number
from scanlearn.study.pictures import axis_codes, data_uri, flat, upright

WIDTH, WHERE = 96, 192  # pixels across a crop, and across the reference scan
TALLEST = 1.6  # times that width, for all planes of the reference scan together; for one plane of a crop too
GAP, GROUND = 3, 13  # pixels between planes, and their grey
QUALITY = 74
SHOWN, SHOWN_VAL, AVERAGED = 10, 2, 24  # patients of a word on the page, of them for validation, and in its mean
SIDE = 24  # pixels across a plane where crops of different words are compared
ONE = np.ones(1, bool)
PLANES = {"SI": "axial", "AP": "coronal", "RL": "sagittal"}


@dataclass(frozen=True)
class Frame:
    """How the crops of a word are drawn: the ``axes`` that its planes cut (none in 2D), (height, width) of each plane."""

    axes: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]
    affine: np.ndarray


@dataclass(frozen=True)
class Located:
    """The reference scan with boxes over it: left, top, width and height in percent of the picture."""

    picture: Picture
    boxes: list[tuple[float, float, float, float]]


@dataclass(frozen=True)
class WordRow:
    """What the page shows of a word, and some of its crops as unit vectors (n, d) of so many ``patients`` (n,)."""

    word: int
    where: Located
    mean: Picture
    crops: list[Picture]
    vectors: np.ndarray
    patients: np.ndarray


def word_row(store: Store, words: Words, at: np.ndarray, names: np.ndarray) -> WordRow:
    """The pictures of one word; ``at``: its rows in the table; ``names`` int (N,): the number of each scan's patient."""
    base = at[words.scale[at] == 0]
    train, val = (base[words.part[base] == part] for part in (0, 1))
    train, val = (part[np.argsort(words.rank[part], kind="stable")] for part in (train, val))
    shown_val = val[spread(len(val), SHOWN_VAL)]
    shown = np.concatenate([train[spread(len(train), SHOWN - len(shown_val))], shown_val]).tolist()
    averaged = train[spread(len(train), AVERAGED)].tolist()
    reference, row = int(train[0]), int(words.row[train[0]])
    frame = frame_of(store, row, words.side[reference])
    others = {i: other_scales(words, at, i) for i in shown}
    needed = np.unique([*averaged, *shown, *(i for some in others.values() for i in some if i is not None)])
    slices = {i: planes(crop, frame) for i, crop in zip(needed.tolist(), read_crops(store, words, needed), strict=True)}
    faces = {i: [fitted(*pair) for pair in zip(slices[i], frame.sizes, strict=True)] for i in {*averaged, *shown}}
    mean = [np.mean([faces[i][k] for i in averaged], axis=0) for k in range(len(frame.sizes))]
    small = {i: small_faces([None if j is None else slices[j][0] for j in others[i]], frame) for i in shown}
    title = f"Word {words.word[reference]}"
    return WordRow(
        int(words.word[reference]),
        located(store, row, words.start[reference], words.side[reference], f"{title} on its reference scan"),
        picture(sheet(mean), f"{title}, mean over {len(averaged)} patients", f"mean\nof {len(averaged)}"),
        [
            picture(
                sheet(faces[i], small[i]),
                f"{title}, {place_of(words, i)}, patient {names[words.row[i]]}",
                caption_of(words, i),
            )
            for i in shown
        ],
        np.stack([unit_vector(slices[i]) for i in averaged]),
        names[words.row[averaged]],
    )


def spread(count: int, most: int) -> np.ndarray:
    """At most ``most`` of the indices 0..count-1, evenly: the first two (a reference and its nearest) and the last."""
    if count <= most:
        return np.arange(count)
    inner = np.linspace(1, count - 1, most - 1).round().astype(int) if most > 2 else [count - 1]
    return np.array([0, *inner])


def place_of(words: Words, i: int) -> str:
    """Which of a word's patients a row of the table shows, in words."""
    if words.part[i] == 1:
        return f"validation patient of rank {words.rank[i]}"
    return f"rank {words.rank[i]}" if words.rank[i] else "the reference"


def caption_of(words: Words, i: int) -> str:
    """The rank of a crop's patient and, on a line of its own, the distance to the reference."""
    rank = f"{'val.' if words.part[i] else 'rank'} {words.rank[i]}" if words.part[i] or words.rank[i] else "reference"
    return f"{rank}\n{number(float(words.distance[i]), 2)}"


def other_scales(words: Words, at: np.ndarray, i: int) -> list[int | None]:
    """The rows of the table with the same patient at each other scale of the word, None for a scale without one."""
    same = at[(words.part[at] == words.part[i]) & (words.rank[at] == words.rank[i])]
    by_scale = dict(zip(words.scale[same].tolist(), same.tolist(), strict=True))
    return [by_scale.get(scale) for scale in np.unique(words.scale[at])[1:].tolist()]


# ---------------------------------------------------------------- crops


def read_crops(store: Store, words: Words, at: np.ndarray) -> list[np.ndarray]:
    """The crops at these rows of the table, float32 (C, *side) in [0, 1]."""
    start = words.start[at].astype(np.int64)
    return read_unit(store, words.row[at], list(zip(start, start + words.side[at], strict=True)))


def read_unit(store: Store, rows: Sequence[int] | np.ndarray, boxes: Sequence[Box] | None) -> list[np.ndarray]:
    """Scans or boxes of them, float32 (C, *S) in [0, 1]."""
    import torch

    bounds = [torch.from_numpy(np.array(bound)) for bound in store.window(rows)]
    parts = (torch.from_numpy(part[None]) for part in store.read(rows, boxes))
    return [to_unit(part, *(bound[k : k + 1] for bound in bounds))[0].numpy() for k, part in enumerate(parts)]


def frame_of(store: Store, row: int, side: np.ndarray) -> Frame:
    """The grid of pixels for crops of ``side`` voxels, with the proportions that they have in one scan."""
    affine = store.affine(row)
    if store.spatial_dims == 2:
        extents = [tuple(side * store.spacing(row)[:2])]
        axes: tuple[int, ...] = ()
    else:
        axes = planes_of(affine)
        extents = [extent(side, affine, axis) for axis in axes]
    scale = WIDTH / max(width for _, width in extents)
    tallest = round(WIDTH * TALLEST)
    sizes = tuple((min(max(round(h * scale), 1), tallest), max(round(w * scale), 1)) for h, w in extents)
    return Frame(axes, sizes, affine)


def planes_of(affine: np.ndarray) -> tuple[int, ...]:
    """The voxel axes across which the axial, the coronal and the sagittal planes of a volume lie."""
    codes = axis_codes(affine)
    return tuple(next(axis for axis, code in enumerate(codes) if code in kind) for kind in PLANES)


def turned(affine: np.ndarray, axis: int) -> np.ndarray:
    """The affine of a volume whose ``axis`` was moved to the end."""
    return affine[:, [*(a for a in range(3) if a != axis), axis, 3]]


def extent(side: Sequence[int] | np.ndarray, affine: np.ndarray, axis: int) -> tuple[float, float]:
    """(height, width) in mm of the upright plane across ``axis`` of a box of ``side`` voxels."""
    others = [a for a in range(3) if a != axis]
    first, second = (float(side[a] * np.linalg.norm(affine[:3, a])) for a in others)
    swapped = upright(np.empty((1, 2)), turned(affine, axis)).shape == (2, 1)
    return (second, first) if swapped else (first, second)


def plane(image: np.ndarray, axis: int, affine: np.ndarray) -> np.ndarray:
    """The middle plane of a volume (C, *S) across ``axis``, upright: (H, W) or (H, W, 3)."""
    return flat(np.moveaxis(image, axis + 1, -1), 3, turned(affine, axis))


def planes(crop: np.ndarray, frame: Frame) -> list[np.ndarray]:
    """The planes of a crop (C, *S) that are looked at, (H, W[, 3]) with the values of the crop."""
    return [plane(crop, axis, frame.affine) for axis in frame.axes] or [flat(crop, 2)]


def fitted(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture with values in [0, 1] as uint8 of this (height, width)."""
    grey = (np.clip(image, 0, 1) * 255).round().astype(np.uint8)
    return np.asarray(Image.fromarray(grey).resize(size[::-1], Image.Resampling.BILINEAR))


def small_faces(slices: Sequence[np.ndarray | None], frame: Frame) -> list[np.ndarray | None]:
    """Pictures that fit side by side under a crop, of the proportions of its first plane."""
    height, width = frame.sizes[0]
    narrow = max((width - GAP * (len(slices) - 1)) // max(len(slices), 1), 1)
    return [None if one is None else fitted(one, (max(round(height * narrow / width), 1), narrow)) for one in slices]


def unit_vector(slices: Sequence[np.ndarray]) -> np.ndarray:
    """The planes of a crop as one vector of mean 0 and length 1, so that a product of two is their correlation.

    Every plane is ``SIDE`` pixels square whatever its proportions, so that crops of any two words can be compared. A
    crop of one grey has no correlation: NaN.
    """
    values = np.concatenate([fitted(one, (SIDE, SIDE)).ravel() for one in slices]).astype(np.float64)
    values -= values.mean()
    length = np.linalg.norm(values)
    return values / length if length > 0 else np.full_like(values, np.nan)


# ---------------------------------------------------------------- pictures


def sheet(planes: Sequence[np.ndarray], small: Sequence[np.ndarray | None] = (), width: int = WIDTH) -> Image.Image:
    """Planes (H, W[, 3]) below each other and the ``small`` ones beside each other below them, on a dark ground."""
    height = sum(part.shape[0] + GAP for part in planes) - GAP
    tall, wide = next((one.shape[:2] for one in small if one is not None), (0, 0))
    below = GAP + tall if tall else 0
    canvas = np.full((height + below, width, *planes[0].shape[2:]), GROUND, np.uint8)
    top = 0
    for part in planes:
        left = (width - part.shape[1]) // 2
        canvas[top : top + part.shape[0], left : left + part.shape[1]] = np.round(part)
        top += part.shape[0] + GAP
    left = (width - len(small) * (wide + GAP) + GAP) // 2
    for one in small:
        if one is not None:
            canvas[top : top + tall, left : left + wide] = one
        left += wide + GAP
    return Image.fromarray(canvas)


def picture(image: Image.Image, alt: str, caption: str = "") -> Picture:
    """A small picture as WebP, half the size of JPEG."""
    return Picture(data_uri(image, "webp", QUALITY), alt, *image.size, caption=caption)


def located(store: Store, row: int, start: np.ndarray, side: np.ndarray, title: str) -> Located:
    """The slices of a scan through the middle of a box (3D: axial and coronal), and the box on each of them."""
    shape = np.array(store.shape(row))
    first, last = np.clip(start, 0, shape - 1), np.clip(start + side, 1, shape)
    middle = np.clip((first + last) // 2, 0, shape - 1)
    affine = store.affine(row)
    axes = planes_of(affine)[:2] if store.spatial_dims == 3 else ()
    within = [(np.arange(n) >= a) & (np.arange(n) < b) for n, a, b in zip(shape, first, last, strict=True)]
    if axes:
        cuts = [(np.where(np.arange(3) == a, middle, 0), np.where(np.arange(3) == a, middle + 1, shape)) for a in axes]
        images = zip(axes, read_unit(store, [row] * len(axes), cuts), strict=True)
        slices = [plane(image, axis, affine) for axis, image in images]
        masks = [plane(box_mask([*within[:axis], ONE, *within[axis + 1 :]])[None], axis, affine) for axis in axes]
        extents = [extent(shape, affine, axis) for axis in axes]
    else:
        slices, masks = [flat(read_unit(store, [row], None)[0], 2)], [box_mask(within)]
        extents = [tuple(shape * store.spacing(row)[:2])]
    return placed(slices, masks, extents, title)


def box_mask(within: Sequence[np.ndarray]) -> np.ndarray:
    """bool (*S): where an index lies inside along every axis."""
    return functools.reduce(np.logical_and, np.meshgrid(*within, indexing="ij", sparse=True))


def placed(
    slices: Sequence[np.ndarray], masks: Sequence[np.ndarray], extents: Sequence[tuple[float, float]], title: str
) -> Located:
    """Slices below each other, with the bounds of each mask (H, W) as a box; ``extents``: their height and width."""
    scale = min(WHERE / max(w for _, w in extents), WHERE * TALLEST / sum(h for h, _ in extents))
    sizes = [(max(round(h * scale), 1), max(round(w * scale), 1)) for h, w in extents]
    image = sheet([fitted(part, size) for part, size in zip(slices, sizes, strict=True)], width=WHERE)
    boxes, top = [], 0
    for mask, (height, width) in zip(masks, sizes, strict=True):
        rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
        left, pixel = (image.width - width) / 2, np.array([width, height]) / mask.shape[::-1]
        x, y = np.array([columns[0], rows[0]]) * pixel
        wide, tall = np.array([len(columns), len(rows)]) * pixel
        boxes.append(tuple(np.array([left + x, top + y, wide, tall]) / np.tile(image.size, 2) * 100))
        top += height + GAP
    return Located(picture(image, f"{title}, the slices through its middle, a box around it"), boxes)
