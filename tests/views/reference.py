"""Plain NumPy float64 versions of the view ops, one sample and one voxel or window at a time.

Written for reading, from the published descriptions. The tests compare with them; the bench
``genesis_views.py`` times them.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage


def integer(rng, low, high):
    """A random integer in low..high, both included (much cheaper than one call of ``rng.integers``)."""
    return low + int(rng.random() * (high - low + 1))


def bezier_curve(values, points, decreasing=False, entries=100_000):
    """The intensity curve as a table of ``entries`` points, both coordinates sorted, and linear interpolation."""
    x1, y1, x2, y2 = points
    t = np.linspace(0.0, 1.0, entries)
    weights = [(1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3]
    x = weights[1] * x1 + weights[2] * x2 + weights[3]
    y = weights[1] * y1 + weights[2] * y2 + weights[3]
    # Only the abscissae are sorted for a falling curve, so the ordinates run against them.
    return np.interp(values, np.sort(x), np.sort(y)[::-1] if decreasing else np.sort(y))


def local_shuffle(cube, rng, windows=10_000):
    """Permute inside random windows that read the original; cube (1, *spatial)."""
    out = cube.copy()
    spatial = cube.shape[1:]
    longest = [max(1, n // 10) for n in spatial]
    for _ in range(windows):
        box = [0]
        for n, most in zip(spatial, longest, strict=True):
            side = integer(rng, 1, most)
            start = integer(rng, 0, n - side)
            box.append(slice(start, start + side))
        window = cube[tuple(box)]
        values = window.flatten()
        rng.shuffle(values)
        out[tuple(box)] = values.reshape(window.shape)
    return out


def box_of(spatial, rng, side):
    """A random box of these sides that stays three voxels inside."""
    start = [integer(rng, 3, n - s - 3) for n, s in zip(spatial, side, strict=True)]
    return (slice(None), *(slice(a, a + s) for a, s in zip(start, side, strict=True)))


def in_paint(cube, rng):
    """Up to five boxes of noise, each with probability 0.95 given the one before."""
    out, spatial = cube.copy(), cube.shape[1:]
    for _ in range(5):
        if rng.random() >= 0.95:
            break
        side = [integer(rng, n // 6, n // 3) for n in spatial]
        out[box_of(spatial, rng, side)] = rng.random(side)
    return out


def out_paint(cube, rng):
    """Noise everywhere but in one to five windows."""
    spatial = cube.shape[1:]
    out = np.broadcast_to(rng.random(spatial), cube.shape).copy()
    for i in range(5):
        if i and rng.random() >= 0.95:
            break
        side = [n - integer(rng, 3 * n // 7, 4 * n // 7) for n in spatial]
        box = box_of(spatial, rng, side)
        out[box] = cube[box]
    return out


def paint_boxes(cube, boxes, values, outside):
    """cube (*spatial) with ``values`` voxel by voxel inside the union of (start, side) boxes, or outside it."""
    out = cube.copy()
    for voxel in np.ndindex(cube.shape):
        inside = any(all(a <= v < a + s for v, a, s in zip(voxel, start, side, strict=True)) for start, side in boxes)
        if inside != outside:
            out[voxel] = values[voxel]
    return out


def flip(cube, rng):
    """Up to three rounds with probability 0.4, each mirroring one spatial axis."""
    for _ in range(3):
        if rng.random() >= 0.4:
            break
        cube = np.flip(cube, integer(rng, 1, cube.ndim - 1))
    return cube


def genesis(cube, rng):
    """The whole composition of Models Genesis for one cube (C, *spatial): (distorted, clean)."""
    clean = np.ascontiguousarray(flip(cube, rng))
    x = clean.copy()
    if rng.random() < 0.5:
        x = local_shuffle(x, rng)
    if rng.random() < 0.9:
        x = bezier_curve(x, rng.random(4), rng.random() < 0.5)
    if rng.random() < 0.9:
        x = in_paint(x, rng) if rng.random() < 0.2 else out_paint(x, rng)
    return x, clean


def resample_line(values, size):
    """A line resampled with a triangle filter that widens where it shrinks (Pillow's antialiased bilinear)."""
    scale = len(values) / size
    support = max(scale, 1.0)
    out = np.zeros(size)
    for i in range(size):
        centre = (i + 0.5) * scale
        weights = [max(0.0, 1 - abs((j + 0.5 - centre) / support)) for j in range(len(values))]
        out[i] = np.dot(weights, values) / np.sum(weights)
    return out


def resample(image, size):
    """``resample_line`` along every axis of an image (*spatial)."""
    for axis, n in enumerate(size):
        image = np.apply_along_axis(resample_line, axis, image, n)
    return image


def resized_crop_box(height, width, areas, twists, ratio):
    """Torchvision's choice of a box from ten areas and log ratios: (height, width), or None for the fallback."""
    for share, log_ratio in zip(areas, twists, strict=True):
        w = round(math.sqrt(height * width * share * math.exp(log_ratio)))
        h = round(math.sqrt(height * width * share / math.exp(log_ratio)))
        if 0 < w <= width and 0 < h <= height:
            return h, w
    return None


def central_box(height, width, ratio):
    """Torchvision's fallback: the largest central box whose width over height lies within ``ratio``."""
    if width / height < ratio[0]:
        return round(width / ratio[0]), width
    if width / height > ratio[1]:
        return height, round(height * ratio[1])
    return height, width


def gaussian_line(values, sigma, radius):
    """A line smoothed with a Gaussian cut at ``radius``, end values continued."""
    taps = range(-radius, radius + 1)
    weights = np.array([math.exp(-(t**2) / (2 * sigma**2)) for t in taps])
    out = np.zeros(len(values))
    for i in range(len(values)):
        out[i] = sum(w * values[min(max(i + t, 0), len(values) - 1)] for w, t in zip(weights, taps, strict=True))
    return out / weights.sum()


def elastic(image, noise, alpha=991.0, sigma=8.0):
    """Elastic deformation of an image (*spatial) by the fields noise (2, *spatial) along its first two axes."""
    fields = [ndimage.gaussian_filter(field, sigma, mode="constant", cval=0.0) * alpha for field in noise]
    places = np.meshgrid(*map(np.arange, image.shape), indexing="ij")
    moved = [places[0] + fields[0], places[1] + fields[1], *places[2:]]
    return ndimage.map_coordinates(image, moved, order=1, mode="reflect")


def swap_patches(image, pairs):
    """image (C, *spatial) after exchanging the patches (first, second, side) one pair after the other."""
    out = image.copy()
    for first, second, side in pairs:
        a, b = ((slice(None), *(slice(v, v + s) for v, s in zip(at, side, strict=True))) for at in (first, second))
        out[a], out[b] = out[b].copy(), out[a].copy()
    return out
