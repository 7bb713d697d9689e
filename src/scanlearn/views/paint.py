"""Painting over boxes (``in_paint``) and over everything but some boxes (``out_paint``), after Models Genesis.

Source: Zhou et al., "Models Genesis", Medical Image Analysis 2021, sections on in-painting and out-painting.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numba
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from scanlearn.errors import ScanlearnError
from scanlearn.keys import GAMMA
from scanlearn.randomness import Draws, _mix, uniform_from
from scanlearn.views.op import VIEWS, Op, Params

_STEP = np.uint64(GAMMA)


def inside_boxes(start: Tensor, side: Tensor, spatial: Sequence[int]) -> Tensor:
    """bool (N, *spatial): the union of the boxes; start, side (N, boxes, dims). A box with a side of 0 is empty."""
    ranges = []
    for axis, n in enumerate(spatial):
        at = torch.arange(n, device=start.device)
        first, length = start[..., axis, None], side[..., axis, None]
        ranges.append(((at >= first) & (at < first + length)).float())  # (N, boxes, n)
    # A product of the range indicators, summed over boxes, is a matrix product: positive where any box covers.
    rest = ranges[1] if len(ranges) == 2 else (ranges[1][..., :, None] * ranges[2][..., None, :]).flatten(2)
    return (ranges[0].transpose(1, 2) @ rest > 0).view(len(start), *spatial)


@numba.njit(cache=True, nogil=True)
def _noise_into_boxes(start, side, keys, out):  # type: ignore[no-untyped-def]
    # out (N, C, n0, n1, n2) float32; start, side (N, boxes, 3). The numbers are those of `uniform_from(keys, voxels)`,
    # entered at the voxel's index, so boxes that overlap agree.
    channels, n1, n2 = out.shape[1], out.shape[3], out.shape[4]
    scale, mask = np.float32(1.0 / (1 << 24)), np.uint64(0xFFFFFF)
    for n in range(out.shape[0]):
        for b in range(start.shape[1]):
            for i in range(start[n, b, 0], start[n, b, 0] + side[n, b, 0]):
                for j in range(start[n, b, 1], start[n, b, 1] + side[n, b, 1]):
                    for k in range(start[n, b, 2], start[n, b, 2] + side[n, b, 2]):
                        voxel = np.uint64((i * n1 + j) * n2 + k)
                        word = _mix(keys[n] + _STEP * (voxel // np.uint64(2) + np.uint64(1)))
                        bits = word >> np.uint64(40) if voxel % np.uint64(2) else (word >> np.uint64(8)) & mask
                        for c in range(channels):
                            out[n, c, i, j, k] = np.float32(np.int32(bits)) * scale


@numba.njit(cache=True, nogil=True)
def _copy_boxes(x, start, side, out):  # type: ignore[no-untyped-def]
    # x, out (N, C, n0, n1, n2); start, side (N, boxes, 3).
    for n in range(x.shape[0]):
        for b in range(start.shape[1]):
            for c in range(x.shape[1]):
                for i in range(start[n, b, 0], start[n, b, 0] + side[n, b, 0]):
                    for j in range(start[n, b, 1], start[n, b, 1] + side[n, b, 1]):
                        for k in range(start[n, b, 2], start[n, b, 2] + side[n, b, 2]):
                            out[n, c, i, j, k] = x[n, c, i, j, k]


@numba.njit(cache=True, nogil=True)
def _values_into_boxes(start, side, values, out):  # type: ignore[no-untyped-def]
    # out (N, C, n0, n1, n2) float32; start, side (N, boxes, 3); values (N, boxes), later boxes on top.
    for n in range(out.shape[0]):
        for b in range(start.shape[1]):
            for c in range(out.shape[1]):
                for i in range(start[n, b, 0], start[n, b, 0] + side[n, b, 0]):
                    for j in range(start[n, b, 1], start[n, b, 1] + side[n, b, 1]):
                        for k in range(start[n, b, 2], start[n, b, 2] + side[n, b, 2]):
                            out[n, c, i, j, k] = values[n, b]


def _as_volume(x: Tensor, start: Tensor, side: Tensor) -> tuple[tuple[int, ...], np.ndarray, np.ndarray]:
    """The shape of x, corners and sides in 3D: a picture is a volume with one slice."""
    missing = 5 - x.dim()
    shape = (*x.shape[:2], *(1,) * missing, *x.shape[2:])
    return shape, F.pad(start, (missing, 0), value=0).numpy(), F.pad(side, (missing, 0), value=1).numpy()


def paint_values(x: Tensor, start: Tensor, side: Tensor, values: Tensor) -> Tensor:
    """x with values (N, boxes) in the boxes, later ones on top, the same in all channels."""
    if x.device.type != "cpu" or x.dtype != torch.float32:
        return _paint_values_tensor(x, start, side, values)
    volume, a, s = _as_volume(x, start, side)
    out = x.clone(memory_format=torch.contiguous_format)
    _values_into_boxes(a, s, values.numpy(), out.view(volume).numpy())
    return out


def _paint_values_tensor(x: Tensor, start: Tensor, side: Tensor, values: Tensor) -> Tensor:
    for i in range(start.shape[1]):
        covered = inside_boxes(start[:, i : i + 1], side[:, i : i + 1], x.shape[2:])[:, None]
        x = torch.where(covered, values[:, i].to(x.dtype).view(-1, *(1,) * (x.dim() - 1)), x)
    return x


def paint_noise(x: Tensor, start: Tensor, side: Tensor, keys: Tensor, outside: bool) -> Tensor:
    """x with independent U[0, 1) for every voxel in the boxes (or outside them), the same in all channels."""
    if x.device.type != "cpu" or x.dtype != torch.float32:
        return _paint_noise_tensor(x, start, side, keys, outside)
    volume, a, s = _as_volume(x, start, side)
    if outside:
        out = uniform_from(keys, 1, *x.shape[2:]).expand(x.shape).contiguous()
        _copy_boxes(x.contiguous().view(volume).numpy(), a, s, out.view(volume).numpy())
    else:
        out = x.clone(memory_format=torch.contiguous_format)
        _noise_into_boxes(a, s, keys.numpy().view(np.uint64), out.view(volume).numpy())
    return out


def _paint_noise_tensor(x: Tensor, start: Tensor, side: Tensor, keys: Tensor, outside: bool) -> Tensor:
    painted = inside_boxes(start, side, x.shape[2:])[:, None] ^ outside
    return torch.where(painted, uniform_from(keys, 1, *x.shape[2:]).to(x.dtype), x)


class _Paint(Op):
    """What both ops share: how many boxes, where they lie, and the fill."""

    def __init__(
        self,
        boxes: int,
        first: float,
        more: float,
        margin: float,
        fill: str | float,
        max_masked_fraction: float,
        p: float,
    ):
        super().__init__(p)
        who = type(self).__name__
        if isinstance(fill, str) and fill not in ("noise", "constant"):
            raise ScanlearnError(f"{who}: fill is noise, constant or a number, not {fill!r}.")
        if boxes < 1 or margin < 0 or not (0 <= first <= 1 and 0 <= more <= 1 and 0 < max_masked_fraction <= 1):
            raise ScanlearnError(
                f"{who}: boxes must be >= 1, margin >= 0, and first, more and max_masked_fraction between 0 and 1."
            )
        self.boxes, self.first, self.more, self.margin = boxes, first, more, margin
        self.fill, self.max_masked_fraction = fill, max_masked_fraction
        self.keeps_unit_range = isinstance(fill, str) or 0.0 <= fill <= 1.0

    def _sides(self, n: int, dims: int) -> tuple[int, int]:
        """Shortest and longest side of a box along an axis of n voxels."""
        raise NotImplementedError

    def draw(self, shape: Sequence[int], draws: Draws) -> Params:
        dims, device = len(shape) - 2, draws.device
        limits = torch.tensor([self._sides(n, dims) for n in shape[2:]], device=device)
        u = draws.uniform(self.boxes, 2 * dims + 1).double()
        side = limits[:, 0] + (u[..., :dims] * (limits[:, 1] - limits[:, 0] + 1)).long()
        free = torch.tensor(shape[2:], device=device) - side
        wanted = torch.tensor([_voxels(self.margin, n) for n in shape[2:]], device=device)
        margin = torch.minimum(free // 2, wanted)  # as much of the margin as there is room for
        start = margin + (u[..., dims : 2 * dims] * (free - 2 * margin + 1)).long()
        chance = torch.tensor([self.first] + [self.more] * (self.boxes - 1), device=device)
        drawn = (u[..., -1] < chance).long().cumprod(1)[..., None]  # a box is drawn only if all before it were
        return {"start": start, "side": side * drawn, "fill": draws.spawn_keys()}


def _voxels(length: float, n: int) -> int:
    """A length in voxels of an axis of n: below 1 it is a share of the axis, rounded."""
    return round(length * n) if length < 1 else int(length)


def _range(given: Sequence[float] | None, who: str) -> tuple[float, float] | None:
    if given is None:
        return None
    if len(given) != 2 or not 0 <= given[0] <= given[1] or (0 < given[0] < 1 <= given[1]):
        raise ScanlearnError(
            f"{who} is written as two voxel counts or two shares of the axis below 1, low first, not {list(given)}."
        )
    return given[0], given[1]


@VIEWS.register("in_paint")
class InPaint(_Paint):
    """Paint up to ``boxes`` random boxes.

    The first box is painted with probability ``first`` and each next one with probability ``more``, if the one before
    was. Sides are uniform in n//6..n//3 for each axis (at least 1), or in ``side``: two voxel counts, or two shares of
    the axis below 1. Boxes stay ``margin`` (voxels, or a share) inside the image where there is room. ``fill``:
    ``noise`` is independent U[0, 1) for every voxel,
    ``constant`` one U[0, 1) for every box (later boxes on top), a number is itself. Boxes that would bring the painted
    share, overlaps counted twice, above ``max_masked_fraction`` are left out, with all after them.
    """

    def __init__(
        self,
        boxes: int = 5,
        first: float = 0.95,
        more: float = 0.95,
        side: Sequence[float] | None = None,
        margin: float = 3,
        fill: str | float = "noise",
        max_masked_fraction: float = 1.0,
        p: float = 1.0,
    ):
        super().__init__(boxes, first, more, margin, fill, max_masked_fraction, p)
        self.side = _range(side, "in_paint: side")

    def _sides(self, n: int, dims: int) -> tuple[int, int]:
        low, high = [_voxels(side, n) for side in self.side] if self.side else (n // 6, n // 3)
        return min(max(low, 1), n), min(max(high, 1), n)

    def draw(self, shape: Sequence[int], draws: Draws) -> Params:
        params = super().draw(shape, draws)
        if self.max_masked_fraction < 1.0:
            most = self.max_masked_fraction * float(np.prod(shape[2:]))
            painted = params["side"].prod(-1).cumsum(1)
            params["side"] = params["side"] * (painted <= most)[..., None]
        return params

    def apply(self, x: Tensor, params: Params) -> Tensor:
        start, side = params["start"], params["side"]
        if self.fill == "noise":
            return paint_noise(x, start, side, params["fill"], outside=False)
        if self.fill != "constant":
            return x.masked_fill(inside_boxes(start, side, x.shape[2:])[:, None], float(self.fill))
        return paint_values(x, start, side, uniform_from(params["fill"], self.boxes))


@VIEWS.register("out_paint")
class OutPaint(_Paint):
    """Paint everything outside the union of up to ``boxes`` random windows.

    The first window is always kept, each next one with probability ``more``, if the one before was. The kept side is
    n minus a number uniform in 3n//7..4n//7 for each axis, or in ``removed`` (voxels or shares). ``fill``: ``noise``
    is independent U[0, 1) for every voxel, ``constant`` one U[0, 1) for the image, a number is itself. With
    ``max_masked_fraction`` below 1 the kept sides are at least so long that no larger share of the image is painted.
    """

    def __init__(
        self,
        boxes: int = 5,
        more: float = 0.95,
        removed: Sequence[float] | None = None,
        margin: float = 3,
        fill: str | float = "noise",
        max_masked_fraction: float = 1.0,
        p: float = 1.0,
    ):
        super().__init__(boxes, 1.0, more, margin, fill, max_masked_fraction, p)
        self.removed = _range(removed, "out_paint: removed")

    def _sides(self, n: int, dims: int) -> tuple[int, int]:
        low, high = [_voxels(cut, n) for cut in self.removed] if self.removed else (3 * n // 7, 4 * n // 7)
        least = max(1, math.ceil(n * (1.0 - self.max_masked_fraction) ** (1 / dims)))
        return max(n - high, least), max(n - low, least)

    def apply(self, x: Tensor, params: Params) -> Tensor:
        start, side = params["start"], params["side"]
        if self.fill == "noise":
            return paint_noise(x, start, side, params["fill"], outside=True)
        inside = inside_boxes(start, side, x.shape[2:])[:, None]
        if self.fill != "constant":
            return x.masked_fill(~inside, float(self.fill))
        return torch.where(inside, x, uniform_from(params["fill"], *(1,) * (x.dim() - 1)).to(x.dtype))
