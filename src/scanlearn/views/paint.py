"""Painting over boxes (``in_paint``) and over everything but some boxes (``out_paint``), after Models Genesis.

Source: Zhou et al., "Models Genesis", Medical Image Analysis 2021, sections on in-painting and out-painting.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scanlearn.errors import ScanlearnError
from scanlearn.randomness import Draws, uniform_from
from scanlearn.views.op import VIEWS, Op, Params


def place(side: Tensor, image: Tensor, margin: int, draws: Draws) -> Tensor:
    """Uniform first corners (N, boxes, dims) that leave ``margin`` voxels at both ends, or what there is room for."""
    free = image - side
    least = (free // 2).clamp(max=margin)
    return draws.integers(least, free - least, *side.shape[1:])


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


class _Paint(Op):
    """What both ops share: how many boxes, and the fill."""

    def __init__(
        self,
        boxes: int,
        first: float,
        more: float,
        margin: int,
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

    def _boxes(self, side: Tensor, image: Tensor, draws: Draws) -> Params:
        """Places for boxes of these sides (N, boxes, dims); those that were not to be drawn get sides of 0."""
        start = place(side, image, self.margin, draws)
        chance = torch.tensor([self.first] + [self.more] * (self.boxes - 1), device=draws.device)
        drawn = (draws.uniform(self.boxes) < chance).int().cumprod(1)[..., None]
        return {"start": start, "side": side * drawn, "fill": draws.spawn_keys()}

    def _noise(self, x: Tensor, params: Params) -> Tensor:
        """Independent U[0, 1) for every voxel, the same in all channels."""
        return uniform_from(params["fill"], 1, *x.shape[2:]).to(x.dtype)


def _between(low: Tensor, high: Tensor, draws: Draws, boxes: int) -> Tensor:
    return draws.integers(low, high, boxes, len(low))


@VIEWS.register("in_paint")
class InPaint(_Paint):
    """Paint up to ``boxes`` random boxes.

    The first box is painted with probability ``first`` and each next one with probability ``more``, if the one before
    was. Sides are uniform in n//6..n//3 for each axis, or in ``side`` (two numbers of voxels); boxes stay ``margin``
    voxels inside the image where there is room. ``fill``: ``noise`` is independent U[0, 1) for every voxel,
    ``constant`` one U[0, 1) for every box (later boxes on top), a number is itself. Boxes that would bring the painted
    share, overlaps counted twice, above ``max_masked_fraction`` are left out, with all after them.
    """

    def __init__(
        self,
        boxes: int = 5,
        first: float = 0.95,
        more: float = 0.95,
        side: Sequence[int] | None = None,
        margin: int = 3,
        fill: str | float = "noise",
        max_masked_fraction: float = 1.0,
        p: float = 1.0,
    ):
        super().__init__(boxes, first, more, margin, fill, max_masked_fraction, p)
        self.side = side

    def draw(self, shape: Sequence[int], draws: Draws) -> Params:
        image = torch.tensor(shape[2:], device=draws.device)
        low, high = image // 6, image // 3
        if self.side is not None:
            low, high = torch.full_like(image, self.side[0]), torch.full_like(image, self.side[1])
        high = torch.minimum(high, image).clamp(min=1)
        params = self._boxes(_between(torch.minimum(low, high).clamp(min=1), high, draws, self.boxes), image, draws)
        if self.max_masked_fraction < 1.0:
            volume = params["side"].prod(-1).cumsum(1)
            params["side"] = params["side"] * (volume <= self.max_masked_fraction * image.prod())[..., None]
        return params

    def apply(self, x: Tensor, params: Params) -> Tensor:
        start, side = params["start"], params["side"]
        if self.fill != "constant":
            value = (
                self._noise(x, params)
                if self.fill == "noise"
                else torch.tensor(self.fill, dtype=x.dtype, device=x.device)
            )
            return torch.where(inside_boxes(start, side, x.shape[2:])[:, None], value, x)
        values = uniform_from(params["fill"], self.boxes).to(x.dtype)
        for i in range(self.boxes):
            covered = inside_boxes(start[:, i : i + 1], side[:, i : i + 1], x.shape[2:])[:, None]
            x = torch.where(covered, values[:, i].view(-1, *(1,) * (x.dim() - 1)), x)
        return x


@VIEWS.register("out_paint")
class OutPaint(_Paint):
    """Paint everything outside the union of up to ``boxes`` random windows.

    The first window is always kept, each next one with probability ``more``, if the one before was. The kept side is
    n minus a number uniform in 3n//7..4n//7 for each axis, or in ``removed`` (two voxel counts). ``fill``: ``noise``
    is independent U[0, 1) for every voxel, ``constant`` one U[0, 1) for the image, a number is itself. With
    ``max_masked_fraction`` below 1 the kept sides are at least so long that no larger share of the image is painted.
    """

    def __init__(
        self,
        boxes: int = 5,
        more: float = 0.95,
        removed: Sequence[int] | None = None,
        margin: int = 3,
        fill: str | float = "noise",
        max_masked_fraction: float = 1.0,
        p: float = 1.0,
    ):
        super().__init__(boxes, 1.0, more, margin, fill, max_masked_fraction, p)
        self.removed = removed

    def draw(self, shape: Sequence[int], draws: Draws) -> Params:
        image = torch.tensor(shape[2:], device=draws.device)
        low, high = 3 * image // 7, 4 * image // 7
        if self.removed is not None:
            low, high = torch.full_like(image, self.removed[0]), torch.full_like(image, self.removed[1])
        high = torch.minimum(high, image - 1)
        kept = image - _between(torch.minimum(low, high), high, draws, self.boxes)
        least = (image * (1.0 - self.max_masked_fraction) ** (1 / len(image))).ceil().long()
        return self._boxes(torch.maximum(kept, least), image, draws)

    def apply(self, x: Tensor, params: Params) -> Tensor:
        if self.fill == "noise":
            value = self._noise(x, params)
        elif self.fill == "constant":
            value = uniform_from(params["fill"], *(1,) * (x.dim() - 1)).to(x.dtype)
        else:
            value = torch.tensor(self.fill, dtype=x.dtype, device=x.device)
        return torch.where(inside_boxes(params["start"], params["side"], x.shape[2:])[:, None], x, value)
