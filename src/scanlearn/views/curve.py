"""The non-linear intensity curve of Models Genesis (``intensity_curve``).

Source: Zhou et al., "Models Genesis", Medical Image Analysis 2021, section on non-linear transformation.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numba
import numpy as np
import torch
from torch import Tensor

from scanlearn.errors import ScanlearnError
from scanlearn.randomness import Draws
from scanlearn.views.op import VIEWS, Op, Params

ENTRIES = 1024  # differs by at most 2e-5 from a table of 100,000
_BINS = 2048


@functools.lru_cache(maxsize=8)
def _bernstein(device: torch.device) -> Tensor:
    """(4, 1024) float64: the weights of a cubic curve's four points along the curve."""
    t = torch.linspace(0, 1, ENTRIES, dtype=torch.float64, device=device)
    s = 1 - t
    return torch.stack([s**3, 3 * s * s * t, 3 * s * t * t, t**3])


def bezier_table(points: Tensor, decreasing: Tensor) -> tuple[Tensor, Tensor]:
    """Tables (x, y), float32 (N, 1024) each, x increasing from 0 to 1, of cubic Bezier curves.

    points (N, 4) = x1, y1, x2, y2 in [0, 1]: the curve from (0, 0) over (x1, y1), (x2, y2) to (1, 1); where
    ``decreasing``, bool (N,), the one from (0, 1) over (x1, y2), (x2, y1) to (1, 0).
    """
    ends = torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=torch.float64, device=points.device).expand(len(points), 4)
    # From x1, y1, x2, y2 | 0, 0, 1, 1 to the abscissae 0, x1, x2, 1 and the ordinates 0, y1, y2, 1 or back.
    corners = torch.cat([points.double(), ends], dim=1)
    x, y = corners[:, [4, 0, 2, 6]], corners[:, [5, 1, 3, 7]]
    y = torch.where(decreasing[:, None], y.flip(1), y)
    weights = _bernstein(points.device)
    return (x @ weights).float(), (y @ weights).float()


@numba.njit(cache=True, nogil=True)
def _look_up(v, xs, ys, out):  # type: ignore[no-untyped-def]
    # v, out (N, M) float32; xs, ys (N, K). `start` gives the segment of a value in one step or two instead of ten.
    # Unsigned indices spare the compiler the test for negative ones, which halves the time.
    zero, one, bins, next_ = np.float32(0), np.float32(1), np.float32(_BINS), np.uint64(1)
    last = xs.shape[1] - 1
    start = np.empty(_BINS + 1, np.uint32)
    slope = np.empty(last, np.float32)
    for n in range(v.shape[0]):
        x, y, row, result = xs[n], ys[n], v[n], out[n]
        for j in range(last):
            width = x[j + 1] - x[j]
            slope[j] = (y[j + 1] - y[j]) / width if width > 0 else zero
        j = 0
        for b in range(_BINS + 1):
            while j < last - 1 and x[j + 1] <= np.float32(b) / bins:
                j += 1
            start[b] = j
        for i in range(v.shape[1]):
            value = row[i]
            inside = value if value > 0 else zero
            inside = inside if inside < 1 else one
            s = np.uint64(start[np.uint64(np.int32(inside * bins))])
            s += np.uint64(x[s + next_] < inside)  # without a branch, because it is the likely case
            while x[s + next_] < inside:
                s += next_
            mapped = y[s] + (inside - x[s]) * slope[s]
            mapped = min(max(mapped, zero), one)
            result[i] = mapped if value == value else value  # not a number stays so


def look_up(v: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Linear interpolation of v (N, M) in tables x, y (N, K) of its own row; ends continue. float32."""
    if v.device.type == "cpu":
        v, out = v.contiguous(), torch.empty_like(v, memory_format=torch.contiguous_format)
        _look_up(v.numpy(), x.numpy(), y.numpy(), out.numpy())
        return out
    return _look_up_tensor(v, x, y)


def _look_up_tensor(v: Tensor, x: Tensor, y: Tensor) -> Tensor:
    upper = torch.searchsorted(x, v.contiguous()).clamp_(1, x.shape[1] - 1)
    x0, x1, y0, y1 = (table.gather(1, upper + shift) for table in (x, y) for shift in (-1, 0))
    width = x1 - x0
    share = torch.where(width > 0, (v - x0) / width, torch.zeros_like(v)).clamp(0, 1)
    return y0 + share * (y1 - y0)


@VIEWS.register("intensity_curve")
class IntensityCurve(Op):
    """Map grey values through a random monotone Bezier curve of [0, 1], falling with probability ``inverted``."""

    def __init__(self, inverted: float = 0.5, p: float = 1.0):
        super().__init__(p)
        if not 0.0 <= inverted <= 1.0:
            raise ScanlearnError(f"intensity_curve: inverted is a probability, {inverted} is not in 0..1.")
        self.inverted = inverted

    def draw(self, shape: Sequence[int], draws: Draws) -> Params:
        u = draws.uniform(5)
        return {"points": u[:, :4], "decreasing": u[:, 4] < self.inverted}

    def apply(self, x: Tensor, params: Params) -> Tensor:
        table = bezier_table(params["points"], params["decreasing"])
        return look_up(x.flatten(1).float(), *table).view(x.shape).to(x.dtype)
