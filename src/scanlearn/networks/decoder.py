"""The contract of a decoder, and the table of their names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from scanlearn.errors import ScanlearnError
from scanlearn.networks.conv import trusted
from scanlearn.networks.encoder import Encoder, split_description
from scanlearn.registry import Registry

DECODERS = Registry(
    "decoder",
    modules=tuple(
        f"scanlearn.networks.{name}" for name in ("unet", "unet_blocks", "nnunet", "segres", "segres_boundary")
    ),
)


class Decoder(nn.Module):
    """Base of the decoders. ``forward(features, size)`` takes the encoder's maps, fine to coarse, and the spatial size
    of the image, and gives (N, out_channels, *size) before any activation.

    A decoder that makes more than its output says so in ``aside``; its ``forward`` takes a third argument, a dictionary
    that it fills with those maps (name -> (N, channels, *spatial)), or None where nobody asks for them.

    One that draws an image and classes has ``image_channels``, the first of its output; None: all are one or the other.

    Subclasses take the encoder and ``out_channels`` by position and their settings as keywords, and hand those on.
    """

    aside: tuple[str, ...] = ()
    image_channels: int | None = None

    def __init__(self, name: str, out_channels: int, **settings: Any):
        super().__init__()
        self.name = name
        self.out_channels = out_channels
        self._settings = settings

    def forward(self, features: list[Tensor], size: Sequence[int]) -> Tensor:
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """What ``build_decoder`` needs, beside the encoder, to build this decoder again."""
        split = {"image_channels": self.image_channels} if self.image_channels else {}
        return {"name": self.name, "out_channels": self.out_channels, **split, **self._settings}

    def published_name(self, name: str) -> str:
        """The published name of a tensor of the network that this decoder completes (``encoder.*``, ``decoder.*``)."""
        return name


def build_decoder(description: str | dict[str, Any], encoder: Encoder, out_channels: int | None = None) -> Decoder:
    """The decoder of a name or of a description (``{"name": "unet_blocks", "out_channels": 1}``) on an encoder.

    ``out_channels`` holds where the description says nothing; without both there is one channel for each of the
    encoder's input channels, as restoration needs. Unknown names and settings are refused with the nearest known one.
    """
    name, settings = split_description("decoder", description)
    images = settings.pop("image_channels", None)
    said = settings.pop("out_channels", None)
    channels = next(count for count in (said, out_channels, encoder.in_channels) if count is not None)
    if channels < 1:
        raise ScanlearnError(f"The decoder {name!r} needs at least 1 output channel, not {channels}.")
    if images is not None and not 0 < images < channels:
        raise ScanlearnError(
            f"Of {channels} output channels of the decoder {name!r}, {images} cannot be those of images."
        )
    decoder: Decoder = DECODERS.build(name, settings, encoder, channels)
    decoder.image_channels = images
    trusted(decoder)
    return decoder
