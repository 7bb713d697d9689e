"""The residual U-Net of the ssCPCseg family, 2D and 3D, as an encoder and a decoder; with two settings MONAI's SegResNet.

Source: Iwasawa et al., "Label-efficient multi-task segmentation using contrastive learning", BrainLes 2020, arXiv
2009.11160 (spec_cpcseg §1), after Myronenko, "3D MRI brain tumor segmentation using autoencoder regularization",
BrainLes 2018. Group norm and ReLU stand before each convolution of a block, skips are added, every convolution has a
bias, and neither the coarsest map nor the output is normalised.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from scanlearn.errors import ScanlearnError
from scanlearn.networks.conv import CONV
from scanlearn.networks.decoder import DECODERS, Decoder
from scanlearn.networks.encoder import ENCODERS, Encoder
from scanlearn.networks.norm import GroupNorm

_LINEAR = {2: "bilinear", 3: "trilinear"}


def group_norm(groups: int, channels: int) -> nn.GroupNorm:
    """Group norm of so many groups, of fewer where they would not divide the channels."""
    return GroupNorm(gcd(groups, channels), channels)


class NormReluConv(nn.Module):
    """Group norm, ReLU, convolution of 3 per axis."""

    def __init__(self, dims: int, inside: int, outside: int, groups: int, stride: int = 1, bias: bool = True):
        super().__init__()
        self.norm = group_norm(groups, inside)
        self.conv = CONV[dims](inside, outside, kernel_size=3, stride=stride, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(functional.relu(self.norm(x)))


class ResBlock(nn.Module):
    """``x + f(f(x))`` with the same number of channels; nothing after the sum."""

    def __init__(self, dims: int, channels: int, groups: int, bias: bool = True):
        super().__init__()
        self.first, self.second = (NormReluConv(dims, channels, channels, groups, bias=bias) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.first(x))


def doubled(x: Tensor, align_corners: bool = True) -> Tensor:
    """(N, C, *spatial) at twice the size, linear."""
    return functional.interpolate(x, scale_factor=2, mode=_LINEAR[x.ndim - 2], align_corners=align_corners)


class Up(nn.Module):
    """To ``outside`` channels, to twice the size, plus the skip, a residual block."""

    def __init__(
        self, dims: int, inside: int, outside: int, groups: int, bias: bool = True, align_corners: bool = True
    ):
        super().__init__()
        self.align_corners = align_corners
        self.narrow = CONV[dims](inside, outside, kernel_size=1, bias=bias)
        self.block = ResBlock(dims, outside, groups, bias)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        x = doubled(self.narrow(x), self.align_corners)
        return self.block(x if skip is None else x + skip)


def lecun_normal(module: nn.Module) -> None:
    """Weights of convolutions and linear layers from N(0, 1 / fan_in), biases 0 (spec_cpcseg §1.6)."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Conv3d | nn.Linear):
            nn.init.normal_(part.weight, std=part.weight[0].numel() ** -0.5)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


@ENCODERS.register("segres")
class SegResEncoder(Encoder):
    """Maps of 1, 2, 4 and 8 times ``width`` channels at strides 1, 2, 4 and 8.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input.
        width: channels of the first map; 32 as published.
        blocks: residual blocks of each level; (1, 2, 2, 4) as published.
        groups: of every group norm, fewer where they do not divide its channels.
        dropout: share of single values set to 0 after the first convolution, in training.
        entry_conv: a second convolution before the blocks of the finest level, which MONAI's SegResNet lacks.
        bias: of the convolutions, which MONAI's SegResNet lacks.
    """

    def __init__(
        self,
        *,
        spatial_dims: int = 3,
        in_channels: int = 1,
        width: int = 32,
        blocks: Sequence[int] = (1, 2, 2, 4),
        groups: int = 8,
        dropout: float = 0.2,
        entry_conv: bool = True,
        bias: bool = True,
    ):
        channels = [width * 2**level for level in range(len(blocks))]
        super().__init__(
            "segres",
            channels,
            [2**level for level in range(len(blocks))],
            spatial_dims=spatial_dims,
            in_channels=in_channels,
            width=width,
            blocks=list(blocks),
            groups=groups,
            dropout=dropout,
            entry_conv=entry_conv,
            bias=bias,
        )
        conv = CONV[spatial_dims]
        self.first = conv(in_channels, width, kernel_size=3, padding=1, bias=bias)
        self.dropout = nn.Dropout(dropout)
        self.levels = nn.ModuleList()
        for level, count in enumerate(blocks):
            inside, outside = channels[max(level - 1, 0)], channels[level]
            down = conv(inside, outside, kernel_size=3, stride=2 if level else 1, padding=1, bias=bias)
            entry: list[nn.Module] = [down] if level or entry_conv else []
            self.levels.append(
                nn.Sequential(*entry, *(ResBlock(spatial_dims, outside, groups, bias) for _ in range(count)))
            )
        lecun_normal(self)

    def maps(self, x: Tensor) -> list[Tensor]:
        x = self.dropout(self.first(x))
        levels: list[Tensor] = []
        for level in self.levels:
            x = level(x)
            levels.append(x)
        return levels


class SegResUps(Decoder):
    """Up through all maps of the encoder, each added as a skip; what the output is made of them is its subclasses' own.

    Args:
        name, encoder, out_channels: of the decoder.
        groups: of every group norm.
        align_corners: whether up-sampling keeps the outermost voxel centres where they are (published); MONAI's does not.
        settings: those of the decoder beside these; ``bias`` (True) is that of the convolutions.
    """

    def __init__(
        self, name: str, encoder: Encoder, out_channels: int, /, *, groups: int, align_corners: bool, **settings: Any
    ):
        super().__init__(name, out_channels, groups=groups, align_corners=align_corners, **settings)
        check_maps(name, encoder)
        bias = settings.get("bias", True)
        dims, channels = encoder.spatial_dims, encoder.channels
        self.factor = encoder.strides[-1]
        self.ups = nn.ModuleList(
            Up(dims, below, skip, groups, bias, align_corners)
            for below, skip in zip(channels[:0:-1], channels[-2::-1], strict=True)
        )

    def body(self, features: list[Tensor], size: Sequence[int]) -> Tensor:
        """What the output is made of: (N, channels of the first map, *size)."""
        check_size(size, self.factor)
        x = features[-1]
        for up, skip in zip(self.ups, features[-2::-1], strict=True):
            x = up(x, skip)
        return x


@DECODERS.register("segres")
class SegResDecoder(SegResUps):
    """A convolution of 1 per axis gives the output.

    Args:
        encoder: one whose maps halve in size from the first, at the image's size, to the last.
        out_channels: channels of the output.
        groups, align_corners: see ``SegResUps``.
        head_norm: group norm and ReLU before the output, as MONAI's SegResNet has.
        bias: of the convolutions inside; the output's always has one.
    """

    def __init__(
        self,
        encoder: Encoder,
        out_channels: int,
        /,
        *,
        groups: int = 8,
        align_corners: bool = True,
        head_norm: bool = False,
        bias: bool = True,
    ):
        own = {"head_norm": head_norm, "bias": bias}
        super().__init__("segres", encoder, out_channels, groups=groups, align_corners=align_corners, **own)
        first = encoder.channels[0]
        head: list[nn.Module] = [group_norm(groups, first), nn.ReLU()] if head_norm else []
        self.head = nn.Sequential(*head, CONV[encoder.spatial_dims](first, out_channels, kernel_size=1))
        lecun_normal(self)

    def forward(self, features: list[Tensor], size: Sequence[int]) -> Tensor:
        return self.head(self.body(features, size))


def check_maps(decoder: str, encoder: Encoder) -> None:
    """Refuse an encoder whose maps do not go 1, 2, 4, ... in stride."""
    if encoder.strides != [2**level for level in range(len(encoder.channels))]:
        raise ScanlearnError(
            f"The decoder {decoder!r} needs an encoder with maps at strides 1, 2, 4, ..., but those of "
            f"{encoder.name!r} are at {encoder.strides}: use the decoder 'unet_blocks'."
        )


def check_size(size: Sequence[int], factor: int) -> None:
    """Refuse images that cannot be halved often enough."""
    if any(side % factor for side in size):
        sides = " x ".join(map(str, size))
        raise ScanlearnError(
            f"The residual U-Net needs sizes divisible by {factor}, not {sides}: choose another size, or pad."
        )
