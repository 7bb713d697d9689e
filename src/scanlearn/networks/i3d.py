"""I3D, the Inception network inflated to video, in 3D and (not inflated) 2D, under the names of its PyTorch conversion.

Source: Carreira and Zisserman, "Quo vadis, action recognition?", CVPR 2017; the blocks are those of Szegedy et al.,
"Going deeper with convolutions", CVPR 2015. Names: the conversion ``pytorch-i3d`` of the published weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from scanlearn.networks.conv import BATCH_NORM, CONV
from scanlearn.networks.encoder import ENCODERS, Encoder

_POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}

# block -> channels of: the 1x1 branch; the two 3x3 branches, each before and after its 3x3; the 1x1 behind the pooling
BLOCKS: dict[str, tuple[int, int, int, int, int, int]] = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}

# Kernel and stride of the pooling before a layer: over time, and over the two axes of a frame.
POOLS: dict[str, tuple[tuple[int, int], tuple[int, int]]] = {
    "Conv3d_2b_1x1": ((1, 1), (3, 2)),
    "Mixed_3b": ((1, 1), (3, 2)),
    "Mixed_4b": ((3, 2), (3, 2)),
    "Mixed_5b": ((2, 2), (2, 2)),
}

MAPS = ("Conv3d_1a_7x7", "Conv3d_2c_3x3", "Mixed_3c", "Mixed_4f", "Mixed_5c")  # the last layer at each stride


def _same(x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Zeros around ``x``, one more behind than before where odd, so that a map has ceil(size / stride) voxels."""
    padding: list[int] = []
    for size, k, s in zip(x.shape[:1:-1], kernel[::-1], stride[::-1], strict=True):
        total = max((-(-size // s) - 1) * s + k - size, 0)
        padding += [total // 2, total - total // 2]
    return functional.pad(x, padding) if any(padding) else x


class _Unit(nn.Module):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(self, dims: int, inside: int, outside: int, kernel: int, stride: int = 1):
        super().__init__()
        self.conv3d = CONV[dims](
            inside, outside, kernel, stride=stride, padding=kernel // 2 if stride == 1 else 0, bias=False
        )
        self.bn = BATCH_NORM[dims](outside, eps=1e-3, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        if self.conv3d.stride[0] > 1:
            x = _same(x, self.conv3d.kernel_size, self.conv3d.stride)
        return functional.relu(self.bn(self.conv3d(x)), inplace=True)


class _Block(nn.Module):
    """Four branches side by side; their channels one behind the other."""

    def __init__(self, dims: int, inside: int, widths: Sequence[int]):
        super().__init__()
        w0, w1a, w1b, w2a, w2b, w3 = widths
        self.b0 = _Unit(dims, inside, w0, 1)
        self.b1a, self.b1b = _Unit(dims, inside, w1a, 1), _Unit(dims, w1a, w1b, 3)
        self.b2a, self.b2b = _Unit(dims, inside, w2a, 1), _Unit(dims, w2a, w2b, 3)
        self.b3a, self.b3b = _POOL[dims](3, stride=1, padding=1), _Unit(dims, inside, w3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(
            [self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x))],
            dim=1,
        )


@ENCODERS.register("i3d")
class I3DEncoder(Encoder):
    """Five maps, each the last at its stride.

    In 3D the last axis (the slices, for most scans) is the network's time: kernels are as published along it, and the
    first two poolings leave it as it is, so that the maps have strides 2, 2, 2, 4, 8 there; ``strides`` are those of
    the other axes, and ``factors`` tell both.

    Args:
        spatial_dims: 2 or 3. In 3D with 3 channels the tensors are those of the published file without ``logits``.
        in_channels: channels of the input.
        width: channels of the first layer; 64 is the published network, others scale every layer.
    """

    def __init__(self, *, spatial_dims: int = 3, in_channels: int = 3, width: int = 64):
        def scaled(channels: int) -> int:
            return max(1, channels * width // 64)

        outside = {name: sum(scaled(widths[i]) for i in (0, 2, 4, 5)) for name, widths in BLOCKS.items()}
        outside |= {"Conv3d_1a_7x7": width, "Conv3d_2b_1x1": width, "Conv3d_2c_3x3": 3 * width}
        super().__init__(
            "i3d",
            [outside[name] for name in MAPS],
            [2, 4, 8, 16, 32],
            spatial_dims=spatial_dims,
            in_channels=in_channels,
            width=width,
        )
        self.Conv3d_1a_7x7 = _Unit(spatial_dims, in_channels, width, 7, stride=2)
        self.Conv3d_2b_1x1 = _Unit(spatial_dims, width, width, 1)
        self.Conv3d_2c_3x3 = _Unit(spatial_dims, width, 3 * width, 3)
        inside = 3 * width
        for name, widths in BLOCKS.items():
            self.add_module(name, _Block(spatial_dims, inside, [scaled(channels) for channels in widths]))
            inside = outside[name]

    @property
    def factors(self) -> list[tuple[int, ...]]:
        """How many times smaller each map is than the one before it, per axis."""
        return [(2, 2)] * 5 if self.spatial_dims == 2 else [(2, 2, step) for step in (2, 1, 1, 2, 2)]

    def maps(self, x: Tensor) -> list[Tensor]:
        if self.spatial_dims == 3:
            x = x.movedim(-1, 2)
        levels: list[Tensor] = []
        for name, layer in self.named_children():
            if name in POOLS:
                x = self._pooled(x, *POOLS[name])
            x = layer(x)
            if name in MAPS:
                levels.append(x)
        return [level.movedim(2, -1) for level in levels] if self.spatial_dims == 3 else levels

    def _pooled(self, x: Tensor, time: tuple[int, int], frame: tuple[int, int]) -> Tensor:
        """Maxima; the zeros around are no greater than any value, as every layer ends in a ReLU."""
        kernel, stride = zip(*[time, frame, frame][-self.spatial_dims :], strict=True)
        pool = functional.max_pool3d if self.spatial_dims == 3 else functional.max_pool2d
        return pool(_same(x, kernel, stride), kernel, stride)
