"""Scans as small pictures inside a page: 2D as they are displayed, 3D as one upright slice."""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from contourpy import contour_generator
from nibabel.orientations import aff2axcodes
from PIL import Image

from scanlearn.scans.intensity import to_unit
from scanlearn.scans.sources import ArraySource, FileSource
from scanlearn.scans.store import Store
from scanlearn.study.page import Picture

SIDE = 192  # pixels of the longer side at most
LOSSLESS = 96  # up to this side PNG, above it JPEG
# Outlines that stay apart on any grey and for every kind of colour vision: solid yellow, dashed blue, dark edges.
TRUTH, FOUND = "#ffd400", "#35b6ff"


def tile(image: np.ndarray, alt: str, *, caption: str = "", mark: str = "", ratio: float = 1.0) -> Picture:
    """A picture of a slice (H, W) or (H, W, 3) with values in [0, 1]; ``ratio``: height of a pixel over its width."""
    picture = Image.fromarray((np.clip(np.nan_to_num(image), 0, 1) * 255).round().astype(np.uint8))
    picture = fitted(picture, ratio)
    lossless = max(picture.size) <= LOSSLESS
    source = data_uri(picture, "png" if lossless else "jpeg")
    return Picture(source, alt, *picture.size, caption=caption, mark=mark)


def fitted(picture: Image.Image, ratio: float = 1.0) -> Image.Image:
    """The picture with square pixels and no side above ``SIDE``."""
    width, height = picture.size[0], picture.size[1] * ratio
    scale = min(1.0, SIDE / max(width, height))
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    return picture if size == picture.size else picture.resize(size, Image.Resampling.LANCZOS)


def data_uri(picture: Image.Image, kind: str, quality: int = 88) -> str:
    """The encoded picture (png, jpeg, webp) as a ``data:`` address."""
    stream = io.BytesIO()
    # WebP's second method takes less than half the time of its default and 8 % more bytes.
    options: dict[str, Any] = {
        "png": {"optimize": True},
        "jpeg": {"quality": quality},
        "webp": {"quality": quality, "method": 2},
    }
    picture.save(stream, kind, **options[kind])
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"


def contour_tile(
    image: np.ndarray, truth: np.ndarray, found: np.ndarray, alt: str, *, caption: str = "", ratio: float = 1.0
) -> Picture:
    """A slice (H, W) in [0, 1] with the outlines of the reference (solid) and of the prediction (dashed).

    ``truth`` and ``found`` are integers (H, W), 0 is background; every class is outlined, all in one colour each.
    """
    return _outlined(image, outline(truth), outline(found), alt, caption, ratio)


def box_tile(image: np.ndarray, truth: np.ndarray, found: np.ndarray, alt: str, *, caption: str = "") -> Picture:
    """A slice (H, W) in [0, 1] with the boxes of the reference (solid) and of the prediction (dashed).

    ``truth`` and ``found`` are corners (k, 4): top, left, bottom and right edge in pixels.
    """
    return _outlined(image, _rectangles(truth), _rectangles(found), alt, caption, 1.0)


def _rectangles(boxes: np.ndarray) -> str:
    return "".join(f"M{x:.2f} {y:.2f}H{right:.2f}V{bottom:.2f}H{x:.2f}Z" for y, x, bottom, right in boxes)


def _outlined(image: np.ndarray, truth: str, found: str, alt: str, caption: str, ratio: float) -> Picture:
    """A slice under two SVG paths in its pixels."""
    base = tile(image, alt, ratio=ratio)
    height, width = image.shape[:2]
    same = 'fill="none" stroke-linejoin="round" vector-effect="non-scaling-stroke"'
    drawn = [
        f'<path d="{path}" {same} stroke="{colour}" stroke-width="{weight}"{dash}/>'
        for path, colour, weight, dash in (
            (truth, "#000000a0", 4, ""),
            (truth, TRUTH, 2, ""),
            (found, "#000000a0", 4, ' stroke-dasharray="6 4"'),
            (found, FOUND, 2, ' stroke-dasharray="6 4"'),
        )
    ]
    scale = f"scale({base.width / width:.6g} {base.height / height:.6g})"
    text = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {base.width} {base.height}" width="{base.width}" height="{base.height}">'
        f'<image width="{base.width}" height="{base.height}" xlink:href="{base.src}"/>'
        f'<g transform="{scale}">{"".join(drawn)}</g></svg>'
    )
    source = "data:image/svg+xml;base64," + base64.b64encode(text.encode()).decode()
    return Picture(source, alt, base.width, base.height, caption=caption)


def outline(mask: np.ndarray) -> str:
    """The SVG path around every class of an integer mask (H, W), in units of pixels; "" for an empty one."""
    path = []
    for value in np.unique(mask[mask > 0]):
        padded = np.pad((mask == value).astype(np.float32), 1)
        for points in contour_generator(z=padded).lines(0.5):
            path.append("M" + "L".join(f"{x - 0.5:.2f} {y - 0.5:.2f}" for x, y in np.asarray(points)) + "Z")
    return "".join(path)


# For each pair of world axes in a slice: which one runs across and which way, which one runs down and which way. As
# radiologists look: the patient's left is on the right, front and head are up; in sagittal slices the front is left.
_ACROSS = {"RL": "L", "AP": "P", "SI": "I"}
_DOWN = {"AP": "P", "SI": "I", "RL": "L"}
_ORDER = ("RL", "AP", "SI")


def axis_codes(affine: np.ndarray) -> tuple[str, ...]:
    """Where the voxel axes run to, ("R", "A", "S") or the like; remembered, as a page asks thousands of times."""
    return _axis_codes(np.ascontiguousarray(affine, np.float64).tobytes())


@functools.lru_cache(1024)
def _axis_codes(affine: bytes) -> tuple[str, ...]:
    return tuple(aff2axcodes(np.frombuffer(affine).reshape(4, 4)))


def upright(image: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """A slice (I, J, ...) through the last axis of a volume, as rows and columns; affine: voxel -> RAS+ mm."""
    codes = axis_codes(affine)[:2]
    kinds = [next(kind for kind in _ORDER if code in kind) if code else "" for code in codes]
    if "" in kinds or kinds[0] == kinds[1]:
        return np.rot90(image)
    across = 0 if _ORDER.index(kinds[0]) < _ORDER.index(kinds[1]) else 1
    down = 1 - across
    image = image if across == 1 else np.swapaxes(image, 0, 1)
    if codes[down] != _DOWN[kinds[down]]:
        image = image[::-1]
    return image if codes[across] == _ACROSS[kinds[across]] else image[:, ::-1]


def pixel_ratio(affine: np.ndarray) -> float:
    """Height over width of a pixel of ``upright``'s slices."""
    codes = axis_codes(affine)[:2]
    spacing = np.linalg.norm(affine[:3, :2], axis=0)
    kinds = [next((i for i, kind in enumerate(_ORDER) if code in kind), 0) if code else 0 for code in codes]
    across = 0 if kinds[0] <= kinds[1] else 1
    return float(spacing[1 - across] / spacing[across])


def flat(image: np.ndarray, spatial_dims: int, affine: np.ndarray | None = None) -> np.ndarray:
    """(C, *S) as a slice to look at, (H, W) or (H, W, 3): 2D as it is, 3D the middle of the last axis, upright."""
    if spatial_dims == 3:
        image = image[..., image.shape[-1] // 2]
    shown = np.moveaxis(image, 0, -1) if len(image) == 3 else image[0]
    if spatial_dims == 2:
        return shown
    return np.rot90(shown) if affine is None else upright(shown, affine)


def ratio_of(store: Store, row: int) -> float:
    """Height over width of a pixel of a scan as ``flat`` shows it."""
    if store.spatial_dims == 3:
        return pixel_ratio(store.affine(row))
    height, width = store.spacing(row)[:2]
    return height / width


def scan_slices(store: Store, rows: Sequence[int] | np.ndarray) -> list[np.ndarray]:
    """Scans of a store as slices in [0, 1] to look at; of a volume only the chunks of the middle slice are read."""
    import torch

    rows = np.asarray(rows, np.int64)
    boxes = None
    if store.spatial_dims == 3:
        shapes = store.shapes(rows)
        boxes = [((0, 0, n // 2), (i, j, n // 2 + 1)) for i, j, n in shapes.tolist()]
    low, high = store.window(rows)
    slices = []
    for i, raw in enumerate(store.read(rows, boxes)):
        bounds = torch.from_numpy(low[i : i + 1]), torch.from_numpy(high[i : i + 1])
        unit = to_unit(torch.from_numpy(raw[None]), *bounds)[0].numpy()
        slices.append(flat(unit, store.spatial_dims, store.affine(int(rows[i])) if store.spatial_dims == 3 else None))
    return slices


def slices_of(
    scans: Store | FileSource | ArraySource, rows: Sequence[int] | np.ndarray
) -> list[tuple[np.ndarray, float] | None]:
    """(slice in [0, 1], height over width of its pixels) of some scans, None for what cannot be read."""
    if isinstance(scans, Store):
        ratios = [ratio_of(scans, int(row)) for row in rows]
        return list(zip(scan_slices(scans, rows), ratios, strict=True))
    return [_slice_of_source(scans, int(row)) for row in rows]


def _slice_of_source(reader: FileSource | ArraySource, row: int) -> tuple[np.ndarray, float] | None:
    try:
        scan = reader.read(row)
    except Exception:  # whatever a file does to the code that reads it, the others are shown
        return None
    array = scan.array.astype(np.float32)
    low, high = np.percentile(array, (0.5, 99.5))
    unit = np.clip((array - low) / max(high - low, 1e-6), 0, 1)
    volume = array.ndim == 4
    return flat(unit, array.ndim - 1, scan.affine if volume else None), pixel_ratio(scan.affine) if volume else 1.0


def scan_tiles(
    store: Store, rows: Sequence[int] | np.ndarray, alts: Sequence[str], captions: Sequence[str], marks: Sequence[str]
) -> list[Picture]:
    """``tile`` of each of the rows of a store, with its alt text, caption and mark."""
    slices = scan_slices(store, rows)
    return [
        tile(image, alt, caption=caption, mark=mark, ratio=ratio_of(store, int(row)))
        for image, row, alt, caption, mark in zip(slices, rows, alts, captions, marks, strict=True)
    ]
