"""Elastic deformation in the plane of the first two spatial axes (``elastic``), as in Semantic Genesis and TransVW.

Source: Haghighi et al., "Learning Semantics-Enriched Representation via Self-Discovery, Self-Classification, and
Self-Restoration", MICCAI 2020, and the transform of the released code (spec_genesis §1.5). The deformation itself is
from Simard et al., "Best Practices for Convolutional Neural Networks", ICDAR 2003.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from scanlearn.errors import ScanlearnError
from scanlearn.randomness import Draws, uniform_from
from scanlearn.views.op import VIEWS, Op, Params

_SIDE, _DIMS = 64, 3  # of the cube that the published numbers were made for: its first two sides in voxels, its axes


@functools.lru_cache(maxsize=64)
def _smoothing(length: int, sigma: float, device: torch.device) -> Tensor:
    """float32 (length, length): a Gaussian filter of a line as a banded matrix, zero outside, cut at 4 sigma."""
    radius = int(4 * sigma + 0.5)
    tap = torch.arange(-radius, radius + 1, device=device)
    kernel = torch.exp(-(tap**2).double() / (2 * sigma**2))
    at = torch.arange(length, device=device)
    offset = at[None, :] - at[:, None]
    matrix = (kernel / kernel.sum())[(offset + radius).clamp(0, 2 * radius)] * (offset.abs() <= radius)
    return matrix.float()


def smooth(noise: Tensor, sigma: float) -> Tensor:
    """Fields (N, K, *spatial), float32, after a Gaussian filter with zeros outside, cut at 4 sigma.

    The filter is a product with one banded matrix for each axis, which gives the same numbers as
    ``scipy.ndimage.gaussian_filter(mode="constant")`` in a tenth of the time. A matrix is its own transpose, as the
    filter is symmetric. The third axis comes first in memory, as ``displace`` reads slice by slice.
    """
    first, second, *third = (_smoothing(length, sigma, noise.device) for length in noise.shape[2:])
    if not third:
        return first @ noise @ second
    slices = third[0] @ noise.flatten(1, 3).transpose(1, 2)  # (N, n2, K * n0 * n1)
    slices = slices.view(-1, *noise.shape[2:4])
    smoothed = (first @ slices) @ second
    return smoothed.view(len(noise), noise.shape[4], *noise.shape[1:4]).permute(0, 2, 3, 4, 1)


def displace(x: Tensor, shift: Tensor) -> Tensor:
    """x (N, C, *spatial) read linearly at each voxel's place plus ``shift``, float32 (N, 2, *spatial), in voxels of the
    first two axes.

    Beyond its border the image goes on mirrored, the border voxel twice, as in scipy's ``mode="reflect"``.
    """
    height, width = x.shape[2:4]
    images, moves = (v if v.dim() == 4 else v.permute(0, 4, 1, 2, 3).flatten(0, 1) for v in (x.float(), shift))
    # Places go from -1 to 1, outer edge to outer edge of the image, and grid_sample takes those of the last axis first.
    row = (torch.arange(height, device=x.device)[:, None] + 0.5) * (2 / height) - 1
    column = (torch.arange(width, device=x.device) + 0.5) * (2 / width) - 1
    places = [torch.add(column, moves[:, 1], alpha=2 / width), torch.add(row, moves[:, 0], alpha=2 / height)]
    grid = torch.stack(places, dim=-1)
    read = F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    if x.dim() == 5:
        read = read.unflatten(0, (len(x), -1)).permute(0, 2, 3, 4, 1).contiguous()
    return read.to(x.dtype)


@VIEWS.register("elastic")
class Elastic(Op):
    """Push every voxel a few voxels along the first two spatial axes, by a smooth random field for each of the two.

    A field is independent U(-1, 1) for every voxel, smoothed with a Gaussian of ``sigma`` voxels along all axes (zeros
    outside the image) and multiplied by ``alpha``. The image is read linearly at the displaced places and goes on
    mirrored beyond its border; along the third axis nothing moves.

    In the middle of the image the displacement has the root mean square ``alpha / sqrt(3) / (2 sqrt(pi) sigma)^(D/2)``
    for D axes: with the published numbers 3.8 voxels in a 64x64x32 cube (3.3 over all of it), but 20 in a picture, two
    fifths of which turn inside out. ``relative`` takes the numbers as those for a 64x64x32 cube and suits them to the
    image: for s = sqrt(n0 n1) / 64 the Gaussian has ``s sigma`` voxels, and alpha gives s times the displacement, 6 %
    of the side, in 2D too. In a 64x64x32 cube it changes nothing.
    """

    moves = True

    def __init__(self, alpha: float = 991.0, sigma: float = 8.0, relative: bool = False, p: float = 1.0):
        super().__init__(p)
        if not (0 <= alpha < math.inf and 0 < sigma <= 1000):
            raise ScanlearnError(f"elastic: alpha must be >= 0 and sigma in 0..1000 voxels, not {alpha} and {sigma}.")
        self.alpha, self.sigma, self.relative = alpha, sigma, relative

    def strength(self, spatial: Sequence[int]) -> tuple[float, float]:
        """alpha and sigma for an image of this size."""
        if not self.relative:
            return self.alpha, self.sigma
        dims, scale = len(spatial), math.sqrt(spatial[0] * spatial[1]) / _SIDE
        # The root mean square goes with alpha / width^(D/2), so that equal shares of the side need this alpha.
        width = 2 * math.sqrt(math.pi) * self.sigma
        return self.alpha * scale ** (1 + dims / 2) * width ** ((dims - _DIMS) / 2), self.sigma * scale

    def draw(self, shape: Sequence[int], draws: Draws) -> Params:
        return {"field": draws.spawn_keys()}

    def apply(self, x: Tensor, params: Params) -> Tensor:
        alpha, sigma = self.strength(x.shape[2:])
        noise = uniform_from(params["field"], 2, *x.shape[2:]).sub_(0.5)
        return displace(x, smooth(noise, sigma).mul_(2 * alpha))
