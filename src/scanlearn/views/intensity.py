"""Ops on grey values that treat all channels alike: blur, noise, normalisation, range and channel count."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from scanlearn.errors import ScanlearnError
from scanlearn.randomness import Draws, uniform_from
from scanlearn.views.op import VIEWS, Op, Params


def per_sample(value: Tensor, x: Tensor) -> Tensor:
    """A number for each sample (N,), shaped to multiply x (N, C, *spatial), in the type of x."""
    return value.to(x.dtype).view(-1, *(1,) * (x.dim() - 1))


def blur_matrix(sigma: Tensor, length: int, radius: int) -> Tensor:
    """float32 (N, length, length): Gaussian smoothing of a line as a matrix, for sigma (N,) in pixels.

    The kernel is cut at ``radius`` and sums to one; the line continues with its end values.
    """
    tap = torch.arange(-radius, radius + 1, device=sigma.device)
    kernel = torch.exp(-(tap**2) / (2 * sigma.double()[:, None] ** 2))
    kernel = (kernel / kernel.sum(1, keepdim=True)).float()
    at = torch.arange(length, device=sigma.device)
    offset = at[None, :] - at[:, None]
    matrix = kernel[:, (offset + radius).clamp(0, 2 * radius)] * (offset.abs() <= radius)
    # All taps that fall before the line are taken from its first value; the end is the mirror image.
    before = kernel.cumsum(1)[:, (radius - at).clamp(min=0)] * (at <= radius)
    matrix[:, :, 0] = before
    matrix[:, :, -1] = before.flip(1)
    return matrix if length > 1 else torch.ones_like(matrix)


@VIEWS.register("gaussian_blur")
class GaussianBlur(Op):
    """Gaussian smoothing with a standard deviation uniform in ``sigma`` (pixels of this image), edges continued.

    Pillow's ``GaussianBlur(radius)`` approximates the same filter with sigma = radius.
    """

    def __init__(self, sigma: Sequence[float] = (0.1, 2.0), p: float = 1.0):
        super().__init__(p)
        if not 0 < sigma[0] <= sigma[1]:
            raise ScanlearnError(f"gaussian_blur: sigma {list(sigma)} must be two positive numbers, low first.")
        self.sigma = tuple(sigma)

    def draw(self, shape: Sequence[int], draws: Draws) -> Params:
        return {"sigma": draws.uniform(low=self.sigma[0], high=self.sigma[1])}

    def apply(self, x: Tensor, params: Params) -> Tensor:
        radius = math.ceil(4 * self.sigma[1])
        out = x
        for axis, length in enumerate(x.shape[2:], start=2):
            matrix = blur_matrix(params["sigma"], length, radius).to(x.dtype)
            if axis == x.dim() - 1:
                out = torch.matmul(out.flatten(1, -2), matrix.transpose(1, 2)).view_as(x)
            else:
                lines = out.reshape(len(x), math.prod(x.shape[1:axis]), length, -1)
                out = torch.matmul(matrix[:, None], lines).view_as(x)
        return out


@VIEWS.register("gaussian_noise")
class GaussianNoise(Op):
    """Add independent normal noise with a standard deviation uniform in ``std``, then clip to [0, 1]."""

    def __init__(self, std: Sequence[float] = (0.0, 0.1), p: float = 1.0):
        super().__init__(p)
        if not 0 <= std[0] <= std[1]:
            raise ScanlearnError(f"gaussian_noise: std {list(std)} must be two numbers >= 0, low first.")
        self.std = tuple(std)

    def draw(self, shape: Sequence[int], draws: Draws) -> Params:
        return {
            "std": draws.uniform(low=self.std[0], high=self.std[1]),
            "radius": draws.spawn_keys(),
            "phase": draws.spawn_keys(),
        }

    def apply(self, x: Tensor, params: Params) -> Tensor:
        radius = torch.sqrt(-2.0 * torch.log1p(-uniform_from(params["radius"], *x.shape[1:])))
        noise = radius * torch.cos(uniform_from(params["phase"], *x.shape[1:]) * (2.0 * math.pi))
        return (x + noise.to(x.dtype) * per_sample(params["std"], x)).clamp_(0.0, 1.0)


@VIEWS.register("intensity_shift")
class IntensityShift(Op):
    """Add to each channel a number uniform between -amount and amount, then clip to [0, 1] (spec_cpcseg §6.2)."""

    def __init__(self, amount: float = 0.1, p: float = 1.0):
        super().__init__(p)
        if amount < 0:
            raise ScanlearnError(f"intensity_shift: amount {amount} must be 0 or more.")
        self.amount = amount

    def draw(self, shape: Sequence[int], draws: Draws) -> Params:
        return {"shift": draws.uniform(shape[1], low=-self.amount, high=self.amount)}

    def apply(self, x: Tensor, params: Params) -> Tensor:
        shift = params["shift"].to(x.dtype)
        return (x + shift.view(*shift.shape, *[1] * (x.dim() - 2))).clamp_(0.0, 1.0)


@VIEWS.register("solarise")
class Solarise(Op):
    """Values of ``threshold`` and more are turned round, x becomes 1 - x: the op of Barlow Twins (Pillow's from 128)."""

    def __init__(self, threshold: float = 128 / 255, p: float = 1.0):
        super().__init__(p)
        self.threshold = threshold

    def apply(self, x: Tensor, params: Params) -> Tensor:
        return torch.where(x < self.threshold, x, 1 - x)


@VIEWS.register("normalise")
class Normalise(Op):
    """(x - mean) / std with one number for each channel or one for all; without settings each image's own (z-score).

    The z-score is taken over all channels and voxels of an image; a constant image becomes 0.
    """

    keeps_unit_range = False

    def __init__(self, mean: float | Sequence[float] | None = None, std: float | Sequence[float] | None = None):
        super().__init__()
        if (mean is None) != (std is None):
            raise ScanlearnError("normalise: give both mean and std, or neither for each image's own.")
        self.mean, self.std = mean, std

    def apply(self, x: Tensor, params: Params) -> Tensor:
        if self.mean is None:
            std, mean = torch.std_mean(x.flatten(1), dim=1, correction=0)
            return (x - per_sample(mean, x)) / per_sample(std.clamp(min=1e-6), x)
        return (x - self._channels(self.mean, x)) / self._channels(self.std, x)

    @staticmethod
    def _channels(value: float | Sequence[float] | None, x: Tensor) -> Tensor:
        numbers = torch.as_tensor(value, dtype=x.dtype, device=x.device).reshape(-1)
        if len(numbers) not in (1, x.shape[1]):
            raise ScanlearnError(
                f"normalise: {len(numbers)} numbers for an image with {x.shape[1]} channels; "
                "give one number, or repeat_channels first."
            )
        return numbers.view(-1, *(1,) * (x.dim() - 2))


@VIEWS.register("clamp")
class Clamp(Op):
    """Values below ``low`` become ``low``, above ``high`` become ``high``."""

    def __init__(self, low: float = 0.0, high: float = 1.0):
        super().__init__()
        self.low, self.high = low, high

    def apply(self, x: Tensor, params: Params) -> Tensor:
        return x.clamp(self.low, self.high)


@VIEWS.register("repeat_channels")
class RepeatChannels(Op):
    """Repeat a grey image to ``channels`` equal channels; an image that has them already is passed through."""

    keeps_shape = False

    def __init__(self, channels: int = 3):
        super().__init__()
        self.channels = channels

    def apply(self, x: Tensor, params: Params) -> Tensor:
        if x.shape[1] == self.channels:
            return x
        if x.shape[1] != 1:
            raise ScanlearnError(
                f"repeat_channels: an image with {x.shape[1]} channels cannot be repeated to {self.channels}."
            )
        return x.repeat(1, self.channels, *(1,) * (x.dim() - 2))
