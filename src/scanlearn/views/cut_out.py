"""Square holes (``cut_out``). Source: DeVries and Taylor, "Improved regularization of convolutional neural networks
with cutout", arXiv 1708.04552; as C2L uses it, three holes in every image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scanlearn.errors import ScanlearnError
from scanlearn.randomness import Draws
from scanlearn.views.crop import full_size
from scanlearn.views.op import VIEWS, Op, Params
from scanlearn.views.paint import inside_boxes


@VIEWS.register("cut_out")
class CutOut(Op):
    """Fill ``holes`` boxes whose centres are uniform over the voxels; what lies beyond the border is cut off.

    ``side`` is in voxels, one number or one per axis; a hole begins side // 2 before its centre. ``fill`` is one number
    or one per channel. Published: zeros after normalisation, which is the mean that the network normalises by
    (``network.normalise``), filled in before: an image in [0, 1] stays one.
    """

    def __init__(
        self, holes: int = 3, side: int | Sequence[int] = 32, fill: float | Sequence[float] = 0.0, p: float = 1.0
    ):
        super().__init__(p)
        values = [float(value) for value in ([fill] if isinstance(fill, (int, float)) else fill)]
        if holes < 1 or not values:
            raise ScanlearnError(f"cut_out: needs 1 hole or more and a fill, not {holes} and {fill!r}.")
        self.holes, self.side, self.fill = holes, side, values
        self.keeps_unit_range = all(0.0 <= value <= 1.0 for value in values)

    def draw(self, shape: Sequence[int], draws: Draws) -> Params:
        dims = len(shape) - 2
        side = torch.tensor(full_size(self.side, dims, "cut_out"), device=draws.device)
        centre = draws.integers(0, torch.tensor(shape[2:], device=draws.device) - 1, self.holes, dims)
        return {"start": centre - side // 2}

    def apply(self, x: Tensor, params: Params) -> Tensor:
        if len(self.fill) not in (1, x.shape[1]):
            raise ScanlearnError(
                f"cut_out: {len(self.fill)} numbers for an image with {x.shape[1]} channels; give one number, or "
                "repeat_channels first."
            )
        start, dims = params["start"], x.dim() - 2
        side = torch.tensor(full_size(self.side, dims, "cut_out"), device=x.device).expand_as(start)
        fill = torch.tensor(self.fill, dtype=x.dtype, device=x.device).view(-1, *(1,) * dims)
        return torch.where(inside_boxes(start, side, x.shape[2:])[:, None], fill, x)
