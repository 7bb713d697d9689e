"""The contract of an encoder, and the table of their names.

An encoder gives feature maps, fine to coarse, and describes itself in a small JSON from which the same encoder is
built again for fine-tuning, embedding and export.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from scanlearn.errors import ScanlearnError
from scanlearn.registry import Registry

ENCODERS = Registry(
    "encoder",
    modules=tuple(f"scanlearn.networks.{name}" for name in ("resnet", "densenet", "unet")),
)


class Encoder(nn.Module):
    """Base of the encoders. ``forward(x)`` takes (N, in_channels, *spatial) and gives a list of maps, fine to coarse.

    Attributes:
        channels: channels of each map.
        strides: size of the input over the size of each map, per axis.
        num_features: channels of the last map; its global average is the scan's descriptor.
        spatial_dims: 2 or 3.
        in_channels: channels of the input.

    Subclasses take their settings as keywords and hand all of them to this constructor.
    """

    def __init__(
        self,
        name: str,
        channels: Sequence[int],
        strides: Sequence[int],
        *,
        spatial_dims: int,
        in_channels: int,
        **settings: Any,
    ):
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ScanlearnError(f"The encoder {name!r} has 2 or 3 spatial dimensions, not {spatial_dims}.")
        if in_channels < 1 or min(channels) < 1:
            raise ScanlearnError(
                f"The encoder {name!r} needs at least 1 input channel and 1 channel in each map, "
                f"not {in_channels} and {list(channels)}."
            )
        self.name = name
        self.channels = list(channels)
        self.strides = list(strides)
        self.spatial_dims = spatial_dims
        self.in_channels = in_channels
        self._settings = settings

    @property
    def num_features(self) -> int:
        return self.channels[-1]

    def forward(self, x: Tensor) -> list[Tensor]:
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """What ``build_encoder`` needs to build this encoder again (values that JSON knows)."""
        dimensions = {"spatial_dims": self.spatial_dims, "in_channels": self.in_channels}
        return {"name": self.name, **dimensions, **self._settings}


def build_encoder(description: str | dict[str, Any], **defaults: Any) -> Encoder:
    """The encoder of a name or of a description (``{"name": "resnet18", "width": 16}``), freshly initialised.

    ``defaults`` are settings that hold where the description says nothing, for example those that the data fix
    (``spatial_dims``, ``in_channels``). Unknown names and settings are refused with the nearest known one.
    """
    name, settings = split_description("encoder", description)
    return ENCODERS.build(name, {**defaults, **settings})


def split_description(kind: str, description: str | dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """``("resnet18", {"width": 16})`` of a description; a bare name has no settings."""
    if isinstance(description, str):
        return description, {}
    settings = dict(description)
    if "name" not in settings:
        raise ScanlearnError(f"The description of the {kind} has no 'name': {description}.")
    return settings.pop("name"), settings
