"""Linear resampling of images and volumes, with the filter that an image needs that becomes smaller; masks by place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch.nn.functional as F
from torch import Tensor


def resample(x: Tensor, size: Sequence[int], antialias: bool = True) -> Tensor:
    """Linear resampling of float x (N, C, *spatial), 2D or 3D, to ``size``; pixel edges (not centres) are aligned.

    With ``antialias`` the filter widens where the image shrinks, as in Pillow's ``resize``. The 3D form filters two
    axes and then the third, which is exact because linear resampling is separable.
    """
    size = tuple(size)
    if tuple(x.shape[2:]) == size:
        return x
    if x.dim() == 4:
        return _plane(x, size, antialias)
    n, c, i, j, k = x.shape
    if (j, k) != size[1:]:
        x = _plane(x.reshape(n, c * i, j, k), size[1:], antialias)
    x = x.reshape(n, c, i, size[1] * size[2])
    if i != size[0]:
        x = _plane(x, (size[0], x.shape[3]), antialias)
    return x.reshape(n, c, *size)


def nearest(mask: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """An integer mask (*spatial) at ``size``: each voxel has the value at its place in the old grid."""
    if mask.shape == tuple(size):
        return mask
    at = [np.floor((np.arange(n) + 0.5) * m / n).astype(np.intp) for n, m in zip(size, mask.shape, strict=True)]
    return mask[np.ix_(*at)]


def _plane(x: Tensor, size: tuple[int, ...], antialias: bool) -> Tensor:
    # torch 2.13 filters the wrong axis where the last one of the result has one pixel (off by up to 0.9 in 0..1).
    turned = size[1] == 1
    if turned:
        x, size = x.transpose(2, 3).contiguous(), size[::-1]
    x = F.interpolate(x, size, mode="bilinear", antialias=antialias, align_corners=False)
    return x.transpose(2, 3) if turned else x
