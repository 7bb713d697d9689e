"""The decoder of Boundseg: the residual U-Net's, with a second stream that draws boundaries and helps the output.

Source: spec_cpcseg §4.2; Iwasawa et al. 2020, after Hatamizadeh et al., "End-to-end boundary aware networks for medical
image segmentation", MLMI 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from scanlearn.networks.conv import CONV
from scanlearn.networks.decoder import DECODERS
from scanlearn.networks.encoder import Encoder
from scanlearn.networks.segres import ResBlock, SegResUps, Up, lecun_normal

BOUNDARY = "boundary"  # what the decoder makes beside its output


class Gate(nn.Module):
    """``stream`` times one number for each voxel, from 0 to 1, which depends on it and on the encoder's map."""

    def __init__(self, dims: int, stream: int, map_: int):
        super().__init__()
        self.conv = CONV[dims](stream + map_, 1, kernel_size=1)

    def forward(self, stream: Tensor, map_: Tensor) -> Tensor:
        return stream * torch.sigmoid(self.conv(torch.cat([stream, map_], dim=1)))


@DECODERS.register("segres_boundary")
class SegResBoundaryDecoder(SegResUps):
    """As ``segres``, but its last convolution also sees the boundary stream; the stream's own output is drawn aside.

    Args:
        encoder, out_channels, groups, align_corners: as for ``segres``.
        boundary_channels: channels of the boundary output; by default as many as the output has.
    """

    aside = (BOUNDARY,)

    def __init__(
        self,
        encoder: Encoder,
        out_channels: int,
        /,
        *,
        groups: int = 8,
        align_corners: bool = True,
        boundary_channels: int | None = None,
    ):
        own = {"boundary_channels": boundary_channels}
        super().__init__("segres_boundary", encoder, out_channels, groups=groups, align_corners=align_corners, **own)
        dims, channels = encoder.spatial_dims, encoder.channels
        self.head = nn.Sequential(CONV[dims](2 * channels[0], out_channels, kernel_size=1))
        wide = channels[-2]  # of the stream where it begins
        self.entry = nn.Sequential(CONV[dims](channels[-1], wide, kernel_size=1), ResBlock(dims, wide, groups))
        outside = [wide, *channels[-2::-1]]
        self.stream = nn.ModuleList(
            Up(dims, inside, out, groups, align_corners=align_corners) for inside, out in pairwise(outside)
        )
        self.gates = nn.ModuleList(
            Gate(dims, stream, map_) for stream, map_ in zip(outside, channels[::-1], strict=True)
        )
        self.boundary = CONV[dims](channels[0], boundary_channels or out_channels, kernel_size=1)
        lecun_normal(self)

    def forward(self, features: list[Tensor], size: Sequence[int], aside: dict[str, Tensor] | None = None) -> Tensor:
        body = self.body(features, size)
        stream = self.gates[0](self.entry(features[-1]), features[-1])
        for up, gate, map_ in zip(self.stream, list(self.gates)[1:], features[-2::-1], strict=True):
            stream = gate(up(stream), map_)
        if aside is not None:
            aside[BOUNDARY] = self.boundary(stream)
        return self.head(torch.cat([body, stream], dim=1))
