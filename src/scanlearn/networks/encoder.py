"""The contract of an encoder, and the table of their names.

An encoder gives feature maps, fine to coarse, and describes itself in a small JSON from which the same encoder is
built again for fine-tuning, embedding and export.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from scanlearn.errors import ScanlearnError
from scanlearn.networks.conv import trusted
from scanlearn.registry import Registry

ENCODERS = Registry(
    "encoder",
    modules=tuple(
        f"scanlearn.networks.{name}" for name in ("resnet", "densenet", "unet", "i3d", "nnunet", "conv4", "segres")
    ),
)


class Encoder(nn.Module):
    """Base of the encoders: ``forward(x)`` takes (N, channels, *spatial) and gives a list of maps, fine to coarse.

    A grey image is repeated for an encoder of several channels, and normalised if the encoder says so; that this
    happens here means that every copy and every export of the encoder sees the same input.

    Attributes:
        channels: channels of each map.
        strides: size of the input over the size of each map, per axis; where axes differ, the largest.
        num_features: channels of the last map; its global average is the scan's descriptor.
        spatial_dims: 2 or 3.
        in_channels: channels of the input.

    Subclasses give ``maps``, take their settings as keywords and hand all of them to this constructor.
    """

    mean: Tensor | None
    std: Tensor | None

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
        self.normalise(None)

    @property
    def num_features(self) -> int:
        return self.channels[-1]

    @property
    def factors(self) -> list[tuple[int, ...]]:
        """How many times smaller each map is than the one before it (the first: than the input), per axis."""
        steps = [after // before for before, after in zip([1, *self.strides], self.strides, strict=False)]
        return [(step,) * self.spatial_dims for step in steps]

    def normalise(self, statistics: dict[str, Sequence[float]] | None) -> None:
        """From now on see (x - mean) / std: ``{"mean": [...], "std": [...]}`` of each channel, or None."""
        self._normalise = statistics
        counts = [len(statistics.get(part, ())) for part in ("mean", "std")] if statistics else [self.in_channels] * 2
        if set(counts) != {self.in_channels} or (statistics and not all(value > 0 for value in statistics["std"])):
            raise ScanlearnError(
                f"normalise needs mean and std of {self.in_channels} channel(s), std above 0, not {statistics}: "
                "set network.normalise."
            )
        shape = (1, self.in_channels, *[1] * self.spatial_dims)
        for part in ("mean", "std"):
            values = torch.tensor(statistics[part], dtype=torch.float32).view(shape) if statistics else None
            self.register_buffer(part, values, persistent=False)  # a setting, not a weight

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.maps(self.prepared(x))

    def prepared(self, x: Tensor) -> Tensor:
        """The input as the first layer sees it, (N, in_channels, *spatial)."""
        dims, channels = self.spatial_dims, self.in_channels
        if x.ndim == dims + 2 and x.shape[1] == 1:
            x = x.expand(-1, channels, *x.shape[2:])
        if x.ndim != dims + 2 or x.shape[1] != channels:
            raise ScanlearnError(
                f"The encoder {self.name!r} takes {dims}D images of {channels} channel(s) as (N, {channels}, "
                f"{'H, W' if dims == 2 else 'X, Y, Z'}), not a batch of shape {tuple(x.shape)}."
            )
        return x if self.mean is None or self.std is None else (x - self.mean) / self.std

    def maps(self, x: Tensor) -> list[Tensor]:
        """Feature maps, fine to coarse, of a prepared input."""
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """What ``build_encoder`` needs to build this encoder again (values that JSON knows)."""
        dimensions = {"spatial_dims": self.spatial_dims, "in_channels": self.in_channels}
        return {"name": self.name, **dimensions, **self._settings, "normalise": self._normalise}


def build_encoder(description: str | dict[str, Any], **defaults: Any) -> Encoder:
    """The encoder of a name or of a description (``{"name": "resnet18", "width": 16}``), freshly initialised.

    ``defaults`` are settings that hold where the description says nothing, for example those that the data fix
    (``spatial_dims``, ``in_channels``). Every encoder has the setting ``normalise`` (see ``Encoder.normalise``).
    Unknown names and settings are refused with the nearest known one.
    """
    name, settings = split_description("encoder", description)
    settings = {**defaults, **settings}
    statistics = settings.pop("normalise", None)  # the one setting that every encoder has
    encoder: Encoder = ENCODERS.build(name, settings)
    encoder.normalise(statistics)
    trusted(encoder)
    return encoder


def split_description(kind: str, description: str | dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """``("resnet18", {"width": 16})`` of a description; a bare name has no settings."""
    if isinstance(description, str):
        return description, {}
    settings = dict(description)
    if "name" not in settings:
        raise ScanlearnError(f"The description of the {kind} has no 'name': {description}.")
    return settings.pop("name"), settings
