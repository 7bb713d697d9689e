"""The U-Net of Models Genesis and Semantic Genesis, 2D and 3D, as an encoder and a decoder with the published names.

Source: Zhou et al., "Models Genesis", MedIA 2021; Haghighi et al., "Semantic Genesis", MICCAI 2020. Encoder and
decoder together have the 106 tensors of the published files, in their order. PyTorch's default initialisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from scanlearn.errors import ScanlearnError, unknown
from scanlearn.networks.conv import BATCH_NORM, CONV, TRANSPOSED
from scanlearn.networks.decoder import DECODERS, Decoder
from scanlearn.networks.encoder import ENCODERS, Encoder
from scanlearn.networks.norm import SplitBatchNorm

_POOL = {2: functional.max_pool2d, 3: functional.max_pool3d}

# The names of the levels, fine to coarse, are the published ones whatever the width.
_DOWN = ("down_tr64", "down_tr128", "down_tr256", "down_tr512")
_UP = ("up_tr64", "up_tr128", "up_tr256")
_UPSAMPLE = ("transpose", "nearest")


class _Unit(nn.Module):
    """Convolution of 3 per axis with bias, batch norm, ReLU."""

    def __init__(self, dims: int, inside: int, outside: int, always_batch_stats: bool, eps: float):
        super().__init__()
        self.conv1 = CONV[dims](inside, outside, kernel_size=3, padding=1)
        norm: nn.Module = (
            SplitBatchNorm(outside, always_batch_stats=True, eps=eps)
            if always_batch_stats
            else BATCH_NORM[dims](outside, eps=eps)
        )
        self.bn1 = norm

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn1(self.conv1(x)), inplace=True)


class _Down(nn.Module):
    """Two units; pooling is left to the encoder, because the map before it is the skip."""

    def __init__(self, dims: int, inside: int, outside: int, *norm: Any):
        super().__init__()
        self.ops = nn.Sequential(
            _Unit(dims, inside, outside // 2, *norm),
            _Unit(dims, outside // 2, outside, *norm),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.ops(x)


class _Up(nn.Module):
    """Twice the size, then the skip behind it, then two units."""

    def __init__(self, dims: int, below: int, skip: int, outside: int, upsample: str, *norm: Any):
        super().__init__()
        if upsample == "transpose":
            self.up_conv: nn.Module = TRANSPOSED[dims](below, below, kernel_size=2, stride=2)
        else:
            self.up_conv = nn.Upsample(scale_factor=2, mode="nearest")
        self.ops = nn.Sequential(
            _Unit(dims, below + skip, outside, *norm),
            _Unit(dims, outside, outside, *norm),
        )

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        x = self.up_conv(x)
        return self.ops(x if skip is None else torch.cat([x, skip], dim=1))


class _Out(nn.Module):
    def __init__(self, dims: int, inside: int, outside: int):
        super().__init__()
        self.final_conv = CONV[dims](inside, outside, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.final_conv(x)


@ENCODERS.register("unet")
class UNetEncoder(Encoder):
    """The four levels of the way down: maps of 2, 4, 8 and 16 times ``width`` channels at strides 1, 2, 4 and 8.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input.
        width: channels of the first convolution; 32 is the published network.
        always_batch_stats: normalise with the statistics of the batch in evaluation too, to get the outputs of the
            published code; otherwise re-estimate the running statistics of published weights before evaluation.
        norm_eps: what batch norm adds to the variance; 1e-3 in the published Keras network.
    """

    def __init__(
        self,
        *,
        spatial_dims: int = 3,
        in_channels: int = 1,
        width: int = 32,
        always_batch_stats: bool = False,
        norm_eps: float = 1e-5,
    ):
        channels = [2 * width * 2**level for level in range(4)]
        super().__init__(
            "unet",
            channels,
            [1, 2, 4, 8],
            spatial_dims=spatial_dims,
            in_channels=in_channels,
            width=width,
            always_batch_stats=always_batch_stats,
            norm_eps=norm_eps,
        )
        for name, inside, outside in zip(_DOWN, [in_channels, *channels], channels, strict=False):
            self.add_module(name, _Down(spatial_dims, inside, outside, always_batch_stats, norm_eps))

    def maps(self, x: Tensor) -> list[Tensor]:
        levels: list[Tensor] = []
        for name in _DOWN:
            levels.append(self.get_submodule(name)(_POOL[self.spatial_dims](levels[-1], 2) if levels else x))
        return levels


@DECODERS.register("unet")
class UNetDecoder(Decoder):
    """The way up. It fits encoders with maps at strides 1, 2, 4 and 8; the sizes must be divisible by 8.

    Args:
        encoder: the encoder below it.
        out_channels: channels of the output.
        upsample: ``transpose`` (transposed convolution, the published PyTorch network) or ``nearest`` (nearest
            neighbour without parameters, the published Keras network).
        skips: whether the encoder's finer maps are concatenated; without them the network is an auto-encoder.
        always_batch_stats, norm_eps: as for the encoder.
    """

    def __init__(
        self,
        encoder: Encoder,
        out_channels: int,
        /,
        *,
        upsample: str = "transpose",
        skips: bool = True,
        always_batch_stats: bool = False,
        norm_eps: float = 1e-5,
    ):
        norm: dict[str, Any] = {"always_batch_stats": always_batch_stats, "norm_eps": norm_eps}
        settings: dict[str, Any] = {"upsample": upsample, "skips": skips, **norm}
        super().__init__("unet", out_channels, **settings)
        if upsample not in _UPSAMPLE:
            raise unknown("upsample", upsample, _UPSAMPLE)
        if encoder.strides != [1, 2, 4, 8]:
            raise ScanlearnError(
                f"The decoder 'unet' needs an encoder with maps at strides 1, 2, 4 and 8, but those of "
                f"{encoder.name!r} are at {encoder.strides}: use the decoder 'unet_blocks'."
            )
        dims, channels = encoder.spatial_dims, encoder.channels
        for level in (2, 1, 0):
            below, skip = channels[level + 1], channels[level] if skips else 0
            self.add_module(_UP[level], _Up(dims, below, skip, channels[level], upsample, *norm.values()))
        self.out_tr = _Out(dims, channels[0], out_channels)
        self.skips = skips

    def forward(self, features: list[Tensor], size: Sequence[int]) -> Tensor:
        if any(side % 8 for side in size):
            sides = " x ".join(map(str, size))
            raise ScanlearnError(f"The U-Net needs sizes divisible by 8, not {sides}: choose another size, or pad.")
        x = features[-1]
        for level in (2, 1, 0):
            x = self.get_submodule(_UP[level])(x, features[level] if self.skips else None)
        return self.out_tr(x)

    def published_name(self, name: str) -> str:
        return name.split(".", 1)[1]  # neither part has a prefix in the published files
