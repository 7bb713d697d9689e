"""The U-Net that nnU-Net v1 plans, 2D and 3D, as an encoder and a decoder with its tensor names.

Source: Isensee et al., "nnU-Net", Nature Methods 2021: strided convolutions down, transposed ones up, instance norm and
leaky ReLU. Of the heads of deep supervision only the one at full resolution is kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn

from scanlearn.errors import ScanlearnError
from scanlearn.networks.conv import CONV, TRANSPOSED
from scanlearn.networks.decoder import DECODERS, Decoder
from scanlearn.networks.encoder import ENCODERS, Encoder

_NORM = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
_SLOPE = 0.01  # of the leaky ReLU


class _Unit(nn.Module):
    """Convolution of 3 per axis with bias, instance norm, leaky ReLU."""

    def __init__(self, dims: int, inside: int, outside: int, stride: Sequence[int] | int):
        super().__init__()
        self.conv = CONV[dims](inside, outside, kernel_size=3, stride=stride, padding=1)  # type: ignore[arg-type]
        self.instnorm = _NORM[dims](outside, eps=1e-5, affine=True)
        self.lrelu = nn.LeakyReLU(_SLOPE, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lrelu(self.instnorm(self.conv(x)))


class _Stage(nn.Module):
    """Units one after the other, the first with a stride."""

    def __init__(self, dims: int, inside: int, outside: int, units: int, stride: Sequence[int] | int = 1):
        super().__init__()
        self.blocks = nn.Sequential(
            _Unit(dims, inside, outside, stride), *(_Unit(dims, outside, outside, 1) for _ in range(units - 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


def _twice(dims: int, inside: int, outside: int, stride: Sequence[int] | int = 1) -> nn.Sequential:
    """Two stages of one unit: how nnU-Net groups the bottleneck and the way up."""
    return nn.Sequential(_Stage(dims, inside, outside, 1, stride), _Stage(dims, outside, outside, 1))


def _initialise(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
            nn.init.kaiming_normal_(part.weight, a=_SLOPE)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


@ENCODERS.register("nnunet")
class NNUNetEncoder(Encoder):
    """One map for each level; by default six of 32, 64, 128, 256, 320 and 320 channels at strides 1 to 32.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input.
        width: channels of the first level; each level doubles them.
        most: at most so many channels.
        factors: how many times smaller than the level above each further level is, per axis; by default 2 along every
            axis, five times.
    """

    def __init__(
        self,
        *,
        spatial_dims: int = 3,
        in_channels: int = 1,
        width: int = 32,
        most: int = 320,
        factors: Sequence[Sequence[int]] | None = None,
    ):
        steps = [tuple(factor) for factor in factors] if factors else [(2,) * spatial_dims] * 5
        if any(len(step) != spatial_dims or not {*step} <= {1, 2, 3, 4} for step in steps):
            raise ScanlearnError(
                f"factors of the encoder 'nnunet' are {spatial_dims} whole numbers from 1 to 4 for each level, "
                f"not {factors}."
            )
        factors_of = [(1,) * spatial_dims, *steps]
        sizes = list(accumulate(factors_of, lambda above, step: tuple(a * b for a, b in zip(above, step, strict=True))))
        channels = [min(width * 2**level, most) for level in range(len(sizes))]
        super().__init__(
            "nnunet",
            channels,
            [max(size) for size in sizes],
            spatial_dims=spatial_dims,
            in_channels=in_channels,
            width=width,
            most=most,
            factors=None if factors is None else [list(step) for step in steps],
        )
        self._factors, self._divisors = factors_of, sizes[-1]
        blocks: list[nn.Module] = []
        for level, (inside, outside) in enumerate(zip([in_channels, *channels], channels, strict=False)):
            if level < len(steps):
                blocks.append(_Stage(spatial_dims, inside, outside, 2, self._factors[level]))
            else:
                blocks.append(_twice(spatial_dims, inside, outside, self._factors[level]))
        self.conv_blocks_context = nn.ModuleList(blocks)
        _initialise(self)

    @property
    def factors(self) -> list[tuple[int, ...]]:
        return self._factors

    def maps(self, x: Tensor) -> list[Tensor]:
        if all(side <= divisor for side, divisor in zip(x.shape[2:], self._divisors, strict=True)):
            raise ScanlearnError(
                "The encoder 'nnunet' normalises each map over its own voxels, so the coarsest needs more than one: "
                f"take sizes above {' x '.join(map(str, self._divisors))}."
            )
        levels: list[Tensor] = []
        for block in self.conv_blocks_context:
            x = block(x)
            levels.append(x)
        return levels


@DECODERS.register("nnunet")
class NNUNetDecoder(Decoder):
    """The way up: transposed convolution, the skip behind it, two units. Sizes must be divisible by the strides.

    Args:
        encoder: any encoder whose finest map is as large as the image.
        out_channels: channels of the output.
    """

    def __init__(self, encoder: Encoder, out_channels: int, /):
        super().__init__("nnunet", out_channels)
        if encoder.strides[0] != 1:
            raise ScanlearnError(
                f"The decoder 'nnunet' needs a map as large as the image, but the finest of {encoder.name!r} is at "
                f"stride {encoder.strides[0]}: use the decoder 'unet_blocks'."
            )
        dims, channels = encoder.spatial_dims, encoder.channels
        up = list(zip(channels[:0:-1], channels[-2::-1], encoder.factors[:0:-1], strict=True))
        self.conv_blocks_localization = nn.ModuleList(_twice(dims, 2 * skip, skip) for _, skip, _ in up)
        self.tu = nn.ModuleList(
            TRANSPOSED[dims](below, skip, kernel_size=factor, stride=factor, bias=False)  # type: ignore[arg-type]
            for below, skip, factor in up
        )
        # The name counts the heads of the coarser levels, which deep supervision has and this network has not.
        head = CONV[dims](channels[0], out_channels, kernel_size=1, bias=False)
        self.seg_outputs = nn.ModuleDict({str(len(up) - 1): head})
        self._divisors = [math.prod(axis) for axis in zip(*encoder.factors, strict=True)]
        _initialise(self)

    def forward(self, features: list[Tensor], size: Sequence[int]) -> Tensor:
        if any(side % divisor for side, divisor in zip(size, self._divisors, strict=True)):
            sides, divisors = (" x ".join(map(str, numbers)) for numbers in (size, self._divisors))
            raise ScanlearnError(
                f"This network needs sizes divisible by {divisors}, not {sides}: choose another size, or pad."
            )
        x = features[-1]
        for up, block, skip in zip(self.tu, self.conv_blocks_localization, features[-2::-1], strict=True):
            x = block(torch.cat([up(x), skip], dim=1))
        return next(iter(self.seg_outputs.values()))(x)

    def published_name(self, name: str) -> str:
        return name.split(".", 1)[1]  # neither part has a prefix in the published files
