"""RetinaNet on the maps of any 2D encoder: a feature pyramid, two heads that all its levels share, and anchors.

Source: Lin et al., "Focal loss for dense object detection", ICCV 2017, arXiv 1708.02002; the parts are MONAI's, whose
heads normalise by groups. Boxes are corners (top, left, bottom, right) in voxels of the image that the encoder saw.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from scanlearn.errors import ScanlearnError
from scanlearn.networks.encoder import Encoder

GROUPS = 8  # of the group norms in MONAI's heads
LARGEST_LOG = math.log(1000 / 16)  # of a decoded side over its anchor's: beyond it exp() would run away


class RetinaNet(nn.Module):
    """``forward(features)`` -> logits (N, A) and offsets (N, A, 4) of all anchors, fine levels first.

    Args:
        encoder: gives the maps.
        channels: of the pyramid and the heads, a multiple of 8.
        maps: how many of the encoder's maps are used, the coarsest ones (RetinaNet: 3).
        extra: 0 or 2 levels on top of them, each half as fine.
        anchor: side of an anchor over the stride of its level (RetinaNet: 4).
        scales: sizes of the anchors of a place, relative to that side.
        ratios: their second side over the first (width over height).
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        channels: int = 256,
        maps: int = 3,
        extra: int = 2,
        anchor: float = 4.0,
        scales: Sequence[float] = (1.0,),
        ratios: Sequence[float] = (0.5, 1.0, 2.0),
    ):
        super().__init__()
        self._check(encoder, channels, maps, extra, anchor, scales, ratios)
        from monai.apps.detection.networks.retinanet_network import (
            RetinaNetClassificationHead,
            RetinaNetRegressionHead,
        )
        from monai.networks.blocks.feature_pyramid_network import FeaturePyramidNetwork, LastLevelP6P7

        # What builds this head again.
        self.settings: dict[str, Any] = {"channels": channels, "maps": maps, "extra": extra, "anchor": anchor}
        self.settings |= {"scales": list(scales), "ratios": list(ratios)}
        self.maps = min(maps, len(encoder.channels))
        last = encoder.strides[-1]
        self.strides = [*encoder.strides[-self.maps :], *(last * 2**i for i in range(1, extra + 1))]
        self.shapes = [(anchor * s, r) for s in scales for r in ratios]
        top = LastLevelP6P7(2, encoder.num_features, channels) if extra else None
        self.pyramid = FeaturePyramidNetwork(2, encoder.channels[-self.maps :], channels, top)
        self.classification = RetinaNetClassificationHead(channels, len(self.shapes), 1, spatial_dims=2)
        self.regression = RetinaNetRegressionHead(channels, len(self.shapes), spatial_dims=2)

    @staticmethod
    def _check(
        encoder: Encoder,
        channels: int,
        maps: int,
        extra: int,
        anchor: float,
        scales: Sequence[float],
        ratios: Sequence[float],
    ) -> None:
        if encoder.spatial_dims != 2:
            raise ScanlearnError(f"Boxes are found in 2D images; the encoder {encoder.name!r} is 3D.")
        if channels < GROUPS or channels % GROUPS:
            raise ScanlearnError(f"channels of the detector must be a multiple of {GROUPS}, not {channels}.")
        if maps < 1 or extra not in (0, 2):
            raise ScanlearnError(f"The detector takes maps of 1 or more and extra 0 or 2, not {maps} and {extra}.")
        if not scales or not ratios or min([anchor, *scales, *ratios]) <= 0:
            raise ScanlearnError("anchor, scales and ratios of the detector must be above 0, and none of them empty.")

    def forward(self, features: list[Tensor]) -> tuple[Tensor, Tensor]:
        levels = self.pyramid({str(i): x for i, x in enumerate(features[-self.maps :])}).values()
        # The heads' own forward looks for NaN, which waits for the device at every level; the engine looks at the loss.
        logits, offsets = [], []
        for level in levels:
            logits.append(_by_anchor(self.classification.cls_logits(self.classification.conv(level)), 1))
            offsets.append(_by_anchor(self.regression.bbox_reg(self.regression.conv(level)), 4))
        return torch.cat(logits, dim=1)[..., 0], torch.cat(offsets, dim=1)

    def grids(self, features: list[Tensor]) -> list[tuple[int, int]]:
        """Places (rows, columns) of each level of the pyramid."""
        grids = [(int(x.shape[2]), int(x.shape[3])) for x in features[-self.maps :]]
        for _ in self.strides[self.maps :]:
            grids.append(((grids[-1][0] + 1) // 2, (grids[-1][1] + 1) // 2))
        return grids

    def places(self, features: list[Tensor]) -> list[int]:
        """Places of each level; each has an anchor of every shape."""
        return [rows * columns for rows, columns in self.grids(features)]

    def anchors(self, features: list[Tensor]) -> Tensor:
        """Corners (A, 4) of all anchors, float32, in the order of ``forward``; a place lies half a stride in its cell."""
        device = features[-1].device
        anchors = []
        for (rows, columns), stride in zip(self.grids(features), self.strides, strict=True):
            y, x = ((torch.arange(n, device=device) + 0.5) * stride for n in (rows, columns))
            centres = torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1).reshape(-1, 1, 2)
            half = self._half.to(device) * stride
            anchors.append(torch.cat([centres - half, centres + half], dim=-1).reshape(-1, 4))
        return torch.cat(anchors)

    @cached_property
    def _half(self) -> Tensor:
        """Half sides (k, 2) of the anchors of a place, in strides."""
        return torch.tensor([(side / ratio**0.5, side * ratio**0.5) for side, ratio in self.shapes]) / 2


def _by_anchor(x: Tensor, values: int) -> Tensor:
    """(N, k * values, H, W) -> (N, H * W * k, values), the anchors of a place side by side."""
    return x.permute(0, 2, 3, 1).reshape(len(x), -1, values)


def encode(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Offsets (..., 4) that lead from anchors to boxes: of the centre in sides of the anchor, and log of the sides'
    ratio."""
    (box_centre, box_side), (centre, side) = (_centre_and_side(x) for x in (boxes, anchors))
    return torch.cat([(box_centre - centre) / side, (box_side / side).log()], dim=-1)


def decode(offsets: Tensor, anchors: Tensor) -> Tensor:
    """The boxes (..., 4) that offsets lead to, the inverse of ``encode``; sides are at most 62 times the anchor's."""
    centre, side = _centre_and_side(anchors)
    shift, log_ratio = offsets.chunk(2, dim=-1)
    centre, half = centre + shift * side, log_ratio.clamp(max=LARGEST_LOG).exp() * side / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def _centre_and_side(boxes: Tensor) -> tuple[Tensor, Tensor]:
    low, high = boxes.chunk(2, dim=-1)
    return (low + high) / 2, high - low
