"""The four-block convolutional encoder of few-shot learning.

Source: Snell, Swersky, Zemel, "Prototypical networks for few-shot learning", NIPS 2017, and its released code
(spec_fewshot §3): four times 3x3 convolution, batch norm, ReLU, 2x2 max pooling. An image of 28 pixels ends as one
pixel of 64 channels, one of 84 pixels as 5 x 5.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from scanlearn.networks.conv import BATCH_NORM, CONV
from scanlearn.networks.encoder import ENCODERS, Encoder

BLOCKS = 4
POOL = {2: functional.max_pool2d, 3: functional.max_pool3d}


class _Block(nn.Module):
    """Convolution of 3 per axis with bias, batch norm, ReLU, max pooling of 2 per axis (what is left over is cut)."""

    def __init__(self, dims: int, inside: int, outside: int):
        super().__init__()
        self.pool = POOL[dims]
        self.conv1 = CONV[dims](inside, outside, kernel_size=3, padding=1)
        self.bn1 = BATCH_NORM[dims](outside)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(functional.relu(self.bn1(self.conv1(x)), inplace=True), 2)


@ENCODERS.register("conv4")
class Conv4Encoder(Encoder):
    """Four maps of ``width`` channels at strides 2, 4, 8 and 16.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input.
        width: channels of every block; 64 is the published network.
    """

    def __init__(self, *, spatial_dims: int = 2, in_channels: int = 1, width: int = 64):
        super().__init__(
            "conv4",
            [width] * BLOCKS,
            [2, 4, 8, 16],
            spatial_dims=spatial_dims,
            in_channels=in_channels,
            width=width,
        )
        inside = [in_channels, *[width] * (BLOCKS - 1)]
        self.blocks = nn.ModuleList(_Block(spatial_dims, channels, width) for channels in inside)

    def maps(self, x: Tensor) -> list[Tensor]:
        maps = []
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        return maps
