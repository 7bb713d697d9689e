"""The image larger or smaller about its centre (``random_scale``), as ssCPCseg scales its volumes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scanlearn.errors import ScanlearnError
from scanlearn.randomness import Draws
from scanlearn.views.op import VIEWS, Op, Params


def scaled(x: Tensor, factor: Tensor) -> Tensor:
    """x (N, C, *spatial) made ``factor`` (N,) times as large about its centre, read linearly, 0 beyond its border.

    Linear reading is a product with one banded matrix for each axis, whose row says what each voxel is made of.
    """
    for axis, length in enumerate(x.shape[2:], 2):
        at = torch.arange(length, device=x.device, dtype=x.dtype)
        middle = (length - 1) / 2
        places = middle + (at - middle) / factor.to(x.dtype)[:, None]
        weights = (1 - (places[:, :, None] - at).abs()).clamp(min=0)  # (N, length, length)
        first = x.transpose(1, axis)
        x = (weights @ first.flatten(2)).view(first.shape).transpose(1, axis)
    return x.contiguous()


@VIEWS.register("random_scale")
class RandomScale(Op):
    """Make the image ``low`` to ``high`` times as large, alike along all axes; its size in voxels stays.

    Args:
        low, high: bounds of the factor, which is uniform between them.
        fill: what comes from beyond the image, where it becomes smaller; 0 is the low end of intensities.

    Source: spec_cpcseg §6.2; Iwasawa et al. 2020 scale the whole volume before a patch is cut out, this op the patch.
    """

    moves = True

    def __init__(self, low: float = 0.9, high: float = 1.1, fill: float = 0.0, p: float = 1.0):
        super().__init__(p)
        if not 0.1 <= low <= high <= 10:
            raise ScanlearnError(f"random_scale: low and high are factors from 0.1 to 10, not {low} and {high}.")
        self.low, self.high, self.fill = low, high, fill
        self.keeps_unit_range = 0.0 <= fill <= 1.0

    def draw(self, shape: Sequence[int], draws: Draws) -> Params:
        return {"factor": draws.uniform(low=self.low, high=self.high)}

    def apply(self, x: Tensor, params: Params) -> Tensor:
        return scaled(x - self.fill, params["factor"]) + self.fill
