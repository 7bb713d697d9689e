"""Every tested case of a segmentation on a page: its figures for each structure, and a small picture with outlines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from contourpy import contour_generator
from PIL import Image, ImageDraw

from scanlearn.study.page import MISSING, Picture, count, number
from scanlearn.study.pictures import FOUND, TRUTH, data_uri, pixel_ratio, upright
from scanlearn.tasks.kept_cases import SLICES, TABLE, open_slices

FIGURES = {"dice": "Dice", "hd95": "HD95", "sensitivity": "sensitivity", "specificity": "specificity"}
SIDE = 160  # pixels of the longer side: 500 cases are 3 MB
MOST = 1000  # cases on a page; cases.parquet has them all
DASH = 5.0  # pixels


@dataclass(frozen=True)
class Case:
    """One case: its number in cases.parquet, from 1, a picture and, for each structure, its figures as text."""

    number: int
    picture: Picture
    structures: Sequence[tuple[str, Sequence[str]]]


@dataclass(frozen=True)
class CaseTable:
    """All cases, worst mean Dice first."""

    caption: str
    head: Sequence[str]
    cases: Sequence[Case]


def case_table(folder: Path) -> CaseTable | None:
    """The cases in the files that ``KeptCases`` left in a folder; None where there are none."""
    if not (folder / TABLE).is_file() or not (folder / SLICES).is_file():
        return None
    with open_slices(folder) as (table, kept):
        columns = {name: np.asarray(table[name]) for name in table.column_names if name not in ("scan_id", "row")}
        structures = [name.removeprefix("dice_") for name in columns if name.startswith("dice_")]
        dice = np.array([float(kept[f"dice_{k}"]) for k in range(len(table))])
        order = np.argsort(dice, kind="stable")[:MOST].tolist()
        cases = []
        for k in order:
            image, truth, found = (kept[f"{word}_{k}"] for word in ("image", "truth", "found"))
            affine = kept[f"affine_{k}"] if f"affine_{k}" in kept.files else None
            alt = f"Test case {k + 1:,}, mean Dice {dice[k]:.2f}: outlines of reference and prediction"
            figures = [(name, [text_of(key, columns[f"{key}_{name}"][k]) for key in FIGURES]) for name in structures]
            cases.append(Case(k + 1, outlined(image, truth, found, affine, alt), figures))
    shown = f", the {MOST:,} worst of them" if len(table) > MOST else ""
    caption = f"Every case: {count(len(table), 'scan')}{shown}, worst mean Dice first"
    return CaseTable(caption, list(FIGURES.values()), cases)


def text_of(figure: str, value: float) -> str:
    """A figure of one case; HD95 with its unit, or that there is no distance as one of the masks is empty."""
    if np.isinf(value):
        return "one is empty"
    if figure == "hd95" and np.isfinite(value):
        return f"{value:.1f} mm"
    return MISSING if np.isnan(value) else number(float(value))


def outlined(image: np.ndarray, truth: np.ndarray, found: np.ndarray, affine: np.ndarray | None, alt: str) -> Picture:
    """A slice uint8 (I, J) with the outlines of two integer masks drawn into it; of a volume upright by its affine."""
    ratio = 1.0
    if affine is not None:
        image, truth, found = (upright(part, affine) for part in (image, truth, found))
        ratio = pixel_ratio(affine)
    height, width = image.shape[0] * ratio, float(image.shape[1])
    scale = SIDE / max(height, width)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    picture = Image.fromarray(np.ascontiguousarray(image)).resize(size, Image.Resampling.BICUBIC).convert("RGB")
    drawing = ImageDraw.Draw(picture)
    across, down = size[0] / image.shape[1], size[1] / image.shape[0]
    for mask, colour, dash in ((truth, TRUTH, 0.0), (found, FOUND, DASH)):
        for line in contours(mask):
            points = line * (across, down)
            for edge, weight in (("#000000", 4), (colour, 2)):
                for part in dashes(points, dash):
                    drawing.line(part.ravel().tolist(), fill=edge, width=weight)
    return Picture(data_uri(picture, "webp", 70), alt, *size)


def contours(mask: np.ndarray) -> list[np.ndarray]:
    """Closed lines (n, 2), x and y in pixels from the corner, around every class of an integer mask."""
    lines: list[np.ndarray] = []
    for value in np.unique(mask[mask > 0]):
        padded = np.pad((mask == value).astype(np.float32), 1)
        lines += [np.asarray(points) - 0.5 for points in contour_generator(z=padded).lines(0.5)]
    return lines


def dashes(points: np.ndarray, length: float) -> list[np.ndarray]:
    """The parts of a line (n, 2) that are drawn: every other ``length`` pixels of it, or all of it for 0."""
    if not length:
        return [points]
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    drawn = (along // length).astype(int)
    starts = np.flatnonzero(np.diff(drawn, prepend=-1))
    pieces = [points[a : b + 1] for a, b in zip(starts, [*starts[1:], len(points) - 1], strict=True)]
    return [piece for piece in pieces[::2] if len(piece) > 1]
