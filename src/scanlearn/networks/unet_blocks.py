"""A U-Net decoder for any encoder, 2D and 3D: the one that DiRA uses, with the published tensor names.

Source: Haghighi et al., "DiRA", CVPR 2022, whose network is the Unet of segmentation_models.pytorch: in each block
nearest-neighbour up-sampling, concatenation of the skip, two convolutions with batch norm. The image itself is no skip.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from scanlearn.errors import ScanlearnError
from scanlearn.networks.conv import BATCH_NORM, CONV
from scanlearn.networks.decoder import DECODERS, Decoder
from scanlearn.networks.encoder import Encoder


class _Block(nn.Module):
    """Up to a size, the skip behind it, then twice convolution, batch norm, ReLU."""

    def __init__(self, dims: int, inside: int, outside: int):
        super().__init__()
        self.conv1, self.conv2 = (
            nn.Sequential(
                CONV[dims](channels, outside, kernel_size=3, padding=1, bias=False),
                BATCH_NORM[dims](outside),
                nn.ReLU(inplace=True),
            )
            for channels in (inside, outside)
        )

    def forward(self, x: Tensor, size: Sequence[int], skip: Tensor | None) -> Tensor:
        if tuple(x.shape[2:]) != tuple(size):
            x = functional.interpolate(x, size=tuple(size), mode="nearest")
        return self.conv2(self.conv1(x if skip is None else torch.cat([x, skip], dim=1)))


@DECODERS.register("unet_blocks")
class UNetBlocksDecoder(Decoder):
    """One block for each map of the encoder: up to the next finer map, the last up to the image; then a convolution.

    Any size will do, odd ones too: every block goes up to the size of the map that it meets.

    Args:
        encoder: the encoder below it.
        out_channels: channels of the output.
        channels: outputs of the blocks, coarse to fine, as many as the encoder has maps; by default 16 for the last
            and twice as many for each one before, (256, 128, 64, 32, 16) for five maps as published.
    """

    def __init__(self, encoder: Encoder, out_channels: int, /, *, channels: Sequence[int] | None = None):
        outputs = list(channels) if channels else [16 * 2**i for i in range(len(encoder.channels))][::-1]
        super().__init__("unet_blocks", out_channels, channels=outputs)
        if len(outputs) != len(encoder.channels):
            raise ScanlearnError(
                f"The decoder 'unet_blocks' needs {len(encoder.channels)} channels, one for each map of the encoder "
                f"{encoder.name!r}, but got {outputs}."
            )
        dims = encoder.spatial_dims
        below = [encoder.num_features, *outputs[:-1]]
        skips = [*encoder.channels[-2::-1], 0]
        self.blocks = nn.ModuleList(
            _Block(dims, b + s, outside) for b, s, outside in zip(below, skips, outputs, strict=True)
        )
        self.segmentation_head = nn.Sequential(CONV[dims](outputs[-1], out_channels, kernel_size=3, padding=1))
        self._initialise()

    def _initialise(self) -> None:
        for name, parameter in self.named_parameters():
            if name.startswith("segmentation_head"):
                nn.init.zeros_(parameter) if name.endswith("bias") else nn.init.xavier_uniform_(parameter)
            elif parameter.ndim > 1:
                nn.init.kaiming_uniform_(parameter, mode="fan_in", nonlinearity="relu")

    def forward(self, features: list[Tensor], size: Sequence[int]) -> Tensor:
        x = features[-1]
        for block, skip in zip(self.blocks, [*features[-2::-1], None], strict=True):
            x = block(x, size if skip is None else skip.shape[2:], skip)
        return self.segmentation_head(x)

    def published_name(self, name: str) -> str:
        return name.removeprefix("decoder.") if name.startswith("decoder.segmentation_head") else name
