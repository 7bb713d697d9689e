"""Ops that choose a part of the image or its size: random resized crop, random and central crop, resize."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from scanlearn.errors import ScanlearnError
from scanlearn.randomness import Draws
from scanlearn.scans.resample import resample
from scanlearn.views.op import VIEWS, Op, Params


def full_size(size: int | Sequence[int], dims: int, who: str) -> tuple[int, ...]:
    """``size`` as one number for each of ``dims`` spatial axes; a single number stands for all of them."""
    whole = (size,) * dims if isinstance(size, int) else tuple(size)
    if len(whole) != dims or min(whole) < 1:
        raise ScanlearnError(
            f"{who}: size {size} does not fit an image with {dims} spatial axes; give {dims} numbers >= 1."
        )
    return whole


def cut(x: Tensor, start: Sequence[int], side: Sequence[int]) -> Tensor:
    """The box of one sample's image (C, *spatial) that begins at ``start`` and has the given sides."""
    return x[(slice(None), *(slice(a, a + s) for a, s in zip(start, side, strict=True)))]


@VIEWS.register("resize")
class Resize(Op):
    """Stretch the image to ``size`` (a number or one per axis), linearly."""

    keeps_shape = False
    moves = True

    def __init__(self, size: int | Sequence[int], antialias: bool = True):
        super().__init__()
        self.size, self.antialias = size, antialias

    def apply(self, x: Tensor, params: Params) -> Tensor:
        return resample(x, full_size(self.size, x.dim() - 2, "resize"), self.antialias)


class _Crop(Op):
    keeps_shape = False
    moves = True

    def __init__(self, size: int | Sequence[int]):
        super().__init__()
        self.size = size

    def _free(self, spatial: Sequence[int], who: str) -> tuple[tuple[int, ...], list[int]]:
        """The size, and by how many voxels the image is longer along each axis."""
        size = full_size(self.size, len(spatial), who)
        free = [n - s for n, s in zip(spatial, size, strict=True)]
        if min(free) < 0:
            raise ScanlearnError(f"{who}: the image {tuple(spatial)} is smaller than the crop {size}; resize it first.")
        return size, free


@VIEWS.register("centre_crop")
class CentreCrop(_Crop):
    """The central part of ``size``."""

    def __init__(self, size: int | Sequence[int]):
        super().__init__(size)

    def apply(self, x: Tensor, params: Params) -> Tensor:
        size, free = self._free(x.shape[2:], "centre_crop")
        for axis, (s, f) in enumerate(zip(size, free, strict=True), start=2):
            x = x.narrow(axis, f // 2, s)
        return x.contiguous()


@VIEWS.register("random_crop")
class RandomCrop(_Crop):
    """A part of ``size``, uniform over all places."""

    def __init__(self, size: int | Sequence[int]):
        super().__init__(size)

    def draw(self, shape: Sequence[int], draws: Draws) -> Params:
        _, free = self._free(shape[2:], "random_crop")
        return {"start": draws.integers(0, torch.tensor(free, device=draws.device), len(free))}

    def apply(self, x: Tensor, params: Params) -> Tensor:
        size, _ = self._free(x.shape[2:], "random_crop")
        return torch.stack([cut(image, start, size) for image, start in zip(x, params["start"].tolist(), strict=True)])


@VIEWS.register("random_resized_crop")
class RandomResizedCrop(Op):
    """A box with a random share of the area and a random aspect ratio, resized to ``size``.

    Torchvision's rule: the area is ``scale`` (uniform), the aspect ratio ``ratio`` (log-uniform); ten tries to find a
    box that fits, else the largest central box with a permitted ratio. In 3D the share is of the volume, and a ratio is
    drawn for every pair of axes, half of its logarithm going to each pair, so that every pair stays within
    ``ratio``. Ratios are relative to those of ``size``: a slab 64x64x32 is cut from boxes of about that form.
    """

    keeps_shape = False
    moves = True

    def __init__(
        self,
        size: int | Sequence[int],
        scale: Sequence[float] = (0.2, 1.0),
        ratio: Sequence[float] = (3 / 4, 4 / 3),
        antialias: bool = True,
    ):
        super().__init__()
        if not (0 < scale[0] <= scale[1] <= 1 and 0 < ratio[0] <= ratio[1]):
            raise ScanlearnError(
                f"random_resized_crop: scale {scale} must lie in 0..1 and ratio {ratio} must be positive, low first."
            )
        self.size, self.scale, self.ratio, self.antialias = size, tuple(scale), tuple(ratio), antialias

    def draw(self, shape: Sequence[int], draws: Draws) -> Params:
        dims, device = len(shape) - 2, draws.device
        size = torch.tensor(full_size(self.size, dims, "random_resized_crop"), device=device)
        image = torch.tensor(shape[2:], device=device)
        pairs = list(itertools.combinations(range(dims), 2))
        share = draws.uniform(10, low=self.scale[0], high=self.scale[1]).double()
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        twist = draws.uniform(10, len(pairs), low=low, high=high).double()
        log_side = (torch.log(share) / dims)[..., None] + self._form(image, size)
        for k, (i, j) in enumerate(pairs):
            log_side[..., i] -= twist[..., k] / (2 * (dims - 1))
            log_side[..., j] += twist[..., k] / (2 * (dims - 1))
        sides = log_side.exp().round().long()  # (N, 10, dims)
        fits = ((sides >= 1) & (sides <= image)).all(-1)
        first = fits.int().argmax(1)
        side = torch.where(
            fits.any(1)[:, None], sides[torch.arange(len(sides), device=device), first], self._central(image, size)
        )
        start = draws.integers(0, image - side, dims)
        start = torch.where(fits.any(1)[:, None], start, (image - side) // 2)
        return {"start": start, "side": side}

    @staticmethod
    def _form(image: Tensor, size: Tensor) -> Tensor:
        """Logarithm of the sides of a box with the form of ``size`` and the volume of the image."""
        log_image, log_size = image.double().log(), size.double().log()
        return log_size + (log_image.sum() - log_size.sum()) / len(size)

    def _central(self, image: Tensor, size: Tensor) -> Tensor:
        """Sides of the largest box whose ratios, relative to ``size``, are permitted."""
        units = image.double() / size
        sides = []
        for i in range(len(size)):
            bounds = [units[i]]
            bounds += [
                units[j] / self.ratio[0] if j > i else units[j] * self.ratio[1] for j in range(len(size)) if j != i
            ]
            sides.append(torch.stack(bounds).min() * size[i])
        return torch.stack(sides).round().long().clamp(min=1)

    def apply(self, x: Tensor, params: Params) -> Tensor:
        size = full_size(self.size, x.dim() - 2, "random_resized_crop")
        boxes = zip(x, params["start"].tolist(), params["side"].tolist(), strict=True)
        # Every box has its own size, hence its own filter: one resampling for each sample.
        return torch.cat(
            [resample(cut(image, start, side)[None], size, self.antialias) for image, start, side in boxes]
        )
