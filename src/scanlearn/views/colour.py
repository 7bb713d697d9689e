"""Brightness, contrast, saturation and hue, after torchvision's ColorJitter, for grey and colour images.

All ops here treat an image with three channels as red, green, blue; any other count as grey, where saturation, hue and
grayscale have nothing to change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from scanlearn.errors import ScanlearnError
from scanlearn.randomness import Draws
from scanlearn.views.intensity import per_sample
from scanlearn.views.op import VIEWS, Op, Params

LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R 601-2, as Pillow's "L"


def luminance(x: Tensor) -> Tensor:
    """The grey image (N, 1, *spatial) of a colour image (N, 3, *spatial); any other x itself."""
    if x.shape[1] != 3:
        return x
    weights = torch.tensor(LUMINANCE, dtype=x.dtype, device=x.device).view(3, *(1,) * (x.dim() - 2))
    return (x * weights).sum(1, keepdim=True)


def blend(x: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """factor * x + (1 - factor) * other, clipped to [0, 1]; factor (N,)."""
    factor = per_sample(factor, x)
    return (x * factor + other * (1 - factor)).clamp_(0.0, 1.0)


def brightness(x: Tensor, factor: Tensor) -> Tensor:
    """x times the factor (N,), clipped to [0, 1]."""
    return (x * per_sample(factor, x)).clamp_(0.0, 1.0)


def contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Blend with the mean grey value of each image."""
    return blend(x, per_sample(luminance(x).flatten(1).mean(1), x), factor)


def saturation(x: Tensor, factor: Tensor) -> Tensor:
    """Blend with the grey image; no change without colour."""
    return blend(x, luminance(x), factor) if x.shape[1] == 3 else x


def hue(x: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue of a colour image by a share ``turn`` (N,) of the circle; no change without colour."""
    if x.shape[1] != 3:
        return x
    red, green, blue = x.unbind(1)
    value, low = x.amax(1), x.amin(1)
    span = value - low
    safe = torch.where(span == 0, torch.ones_like(span), span)
    # Position on the circle in sixths: which channel is highest, and the difference of the other two.
    place = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    place = place + 6 * per_sample(turn, place)
    # Each channel falls from `value` by `span` with its distance from its own sixth of the circle.
    phase = torch.stack([place + 5, place + 3, place + 1], dim=1).remainder(6)
    fall = torch.minimum(phase, 4 - phase).clamp(0, 1)
    return torch.where((span == 0).unsqueeze(1), x, (value.unsqueeze(1) - span.unsqueeze(1) * fall).clamp_(0.0, 1.0))


_STEPS: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (brightness, contrast, saturation, hue)


@VIEWS.register("colour_jitter")
class ColourJitter(Op):
    """Brightness, contrast, saturation and hue changes in random order, clipped to [0, 1] after each.

    The first three factors are uniform in [max(0, 1 - s), 1 + s] for the setting s; the hue turns by a share of
    the circle uniform in [-hue, hue], hue at most 0.5.
    """

    def __init__(
        self, brightness: float = 0.4, contrast: float = 0.4, saturation: float = 0.4, hue: float = 0.1, p: float = 1.0
    ):
        super().__init__(p)
        self.strengths = (brightness, contrast, saturation, hue)
        if min(self.strengths) < 0 or hue > 0.5:
            raise ScanlearnError(
                f"{type(self).__name__}: strengths {self.strengths} must be >= 0 and the hue at most 0.5."
            )

    def draw(self, shape: Sequence[int], draws: Draws) -> Params:
        u = draws.uniform(4)
        high = torch.tensor([*(1 + s for s in self.strengths[:3]), self.strengths[3]], device=draws.device)
        low = torch.tensor([*(max(0.0, 1 - s) for s in self.strengths[:3]), -self.strengths[3]], device=draws.device)
        return {"factor": u * (high - low) + low, "order": draws.permutation(4)}

    def apply(self, x: Tensor, params: Params) -> Tensor:
        active = [k for k, s in enumerate(self.strengths) if s > 0 and (k < 2 or x.shape[1] == 3)]
        out = x.clone()
        for place in params["order"].unbind(1):
            for k in active:
                rows = (place == k).nonzero()[:, 0]
                if len(rows):
                    out[rows] = _STEPS[k](out[rows], params["factor"][rows, k])
        return out


@VIEWS.register("brightness_contrast")
class BrightnessContrast(ColourJitter):
    """Brightness and contrast changes in random order: ``colour_jitter`` without colour."""

    def __init__(self, brightness: float = 0.4, contrast: float = 0.4, p: float = 1.0):
        super().__init__(brightness, contrast, 0.0, 0.0, p)


@VIEWS.register("grayscale")
class Grayscale(Op):
    """The grey image in all channels of a colour image; with ``channels: 1`` in one channel (then always, p = 1)."""

    def __init__(self, channels: int | None = None, p: float = 1.0):
        super().__init__(p)
        if channels not in (None, 1) or (channels == 1 and p != 1.0):
            raise ScanlearnError("grayscale: channels is 1 (for every image, p = 1) or left out to keep their number.")
        self.channels = channels
        self.keeps_shape = channels is None

    def apply(self, x: Tensor, params: Params) -> Tensor:
        grey = luminance(x)
        return grey if self.channels == 1 else grey.expand_as(x).contiguous()
