"""Swapping pairs of patches (``swap_patches``), the distortion of context restoration and one of DiRA's.

Source: Chen et al., "Self-supervised learning for medical image analysis using image context restoration", Medical
Image Analysis 2019 (spec_genesis §3.2); Haghighi et al., "DiRA", CVPR 2022 (spec_dira §1.3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from scanlearn.errors import ScanlearnError
from scanlearn.randomness import Draws
from scanlearn.views.op import VIEWS, Op, Params


def place_outside(u: Tensor, places: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """A place of the grid ``places`` (voxels per axis) that is not in the box low..high-1, all equally probable.

    u (..., D + 1) in [0, 1); places, low, high int64 (..., D) with 0 <= low and high <= places. A box with high <= low
    on any axis is empty. At least one place must lie outside.
    """
    taken = (high - low).clamp(min=0)
    free = places - taken
    # The first axis k on which the place lies outside the box: the axes before it are inside, those after it are any.
    before = torch.cat([torch.ones_like(taken[..., :1]), taken[..., :-1].cumprod(-1)], dim=-1)
    after = torch.cat([places[..., 1:].flip(-1).cumprod(-1).flip(-1), torch.ones_like(places[..., :1])], dim=-1)
    upto = (before * free * after).cumsum(-1)
    first = (u[..., :1] * upto[..., -1:] >= upto[..., :-1]).sum(-1, keepdim=True)
    axis = torch.arange(places.shape[-1], device=u.device)
    count = torch.where(axis < first, taken, torch.where(axis == first, free, places))
    at = (u[..., 1:] * count).long()
    outside = at + taken * (at >= low)
    return torch.where(axis < first, low + at, torch.where(axis == first, outside, at))


@VIEWS.register("swap_patches")
class SwapPatches(Op):
    """Exchange two patches of equal sides that do not overlap, ``swaps`` times; all channels move together.

    The sides of a pair are uniform for each axis between the two numbers of ``side``: shares of the axis below 1,
    voxels from 1 on, at least one voxel and at most the axis. The default gives (8, 8, 4) to (16, 16, 8) in a 64x64x32
    cube. A pair may lie across an earlier one and then exchanges what it finds there. Grey values change their places
    only: the histogram stays the same.

    With ``snapshot`` every patch shows what the image had there before the first swap, as in DiRA: a pair across an
    earlier one overwrites it, so that a region may be seen twice and another one not at all.
    """

    moves = True

    def __init__(self, swaps: int = 10, side: Sequence[float] = (1 / 8, 1 / 4), snapshot: bool = False, p: float = 1.0):
        super().__init__(p)
        if swaps < 0:
            raise ScanlearnError(f"swap_patches: swaps is a number >= 0, not {swaps}.")
        if len(side) != 2 or not 0 < side[0] <= side[1] or (side[0] < 1 <= side[1]):
            raise ScanlearnError(
                "swap_patches: side is written as two shares of the axis below 1 or two voxel counts, low first, "
                f"not {list(side)}."
            )
        self.swaps, self.side, self.snapshot = swaps, tuple(side), snapshot

    def sides(self, spatial: Sequence[int]) -> tuple[list[int], list[int]]:
        """Shortest and longest side along each axis; refused where two of the longest patches have no room."""
        low, high = ([min(max(int(s * n + 1e-6 if s < 1 else s), 1), n) for n in spatial] for s in self.side)
        if self.swaps > 0 and all(2 * side > n for side, n in zip(high, spatial, strict=True)):
            raise ScanlearnError(
                f"swap_patches: two patches of {'x'.join(map(str, high))} voxels do not fit side by side in an image "
                f"of {'x'.join(map(str, spatial))}; make `side` smaller or the image larger."
            )
        return low, high

    def draw(self, shape: Sequence[int], draws: Draws) -> Params:
        dims, device = len(shape) - 2, draws.device
        low, high = (torch.tensor(sides, device=device) for sides in self.sides(shape[2:]))
        n = torch.tensor(shape[2:], device=device)
        # In double, whose products with the counts are exact; a share of 24 bits leaves no place of an axis out.
        u = draws.uniform(self.swaps, 3 * dims + 2).double()
        side = low + (u[..., :dims] * (high - low + 1)).long()
        places = n - side + 1
        # The first patch lies where another one has room beside it, the second beside the first.
        u_first, u_second = u[..., dims : 2 * dims + 1], u[..., 2 * dims + 1 :]
        first = place_outside(u_first, places, (places - side).clamp(min=0), torch.minimum(side, places))
        beside = (first - side + 1).clamp(min=0), torch.minimum(first + side, places)
        second = place_outside(u_second, places, *beside)
        return {"side": side, "first": first, "second": second}

    def apply(self, x: Tensor, params: Params) -> Tensor:
        _, longest = self.sides(x.shape[2:])
        steps = [torch.arange(side, device=x.device) for side in longest]
        cells = torch.stack(torch.meshgrid(*steps, indexing="ij"), dim=-1).flatten(0, -2)  # (M, D)
        strides = torch.tensor([math.prod(x.shape[axis + 1 :]) for axis in range(2, x.dim())], device=x.device)
        voxels, channels = math.prod(x.shape[2:]), x.shape[1]
        # One more voxel, past the end of the image, is what the cells outside a patch exchange with itself.
        out = torch.cat([x.flatten(2), x.new_zeros(len(x), channels, 1)], dim=2)
        shown = out.clone() if self.snapshot else out
        for swap in range(self.swaps):
            inside = (cells < params["side"][:, swap, None]).all(-1)[:, None]  # (N, 1, M)
            starts = (params["first"][:, swap], params["second"][:, swap])
            flat = [(((start[:, None] + cells) * strides).sum(-1))[:, None] for start in starts]
            a, b = (torch.where(inside, at, voxels).expand(-1, channels, -1) for at in flat)
            here, there = shown.gather(2, a), shown.gather(2, b)
            out.scatter_(2, b, here).scatter_(2, a, there)
        return out[..., :voxels].reshape(x.shape)
