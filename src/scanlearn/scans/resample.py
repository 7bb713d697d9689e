"""Linear resampling of images and volumes, with the filter that an image needs that becomes smaller."""

from __future__ import annotations

from collections.abc import Sequence

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
        return F.interpolate(x, size, mode="bilinear", antialias=antialias, align_corners=False)
    n, c, i, j, k = x.shape
    if (j, k) != size[1:]:
        plane = x.reshape(n, c * i, j, k)
        x = F.interpolate(plane, size[1:], mode="bilinear", antialias=antialias, align_corners=False)
    x = x.reshape(n, c, i, size[1] * size[2])
    if i != size[0]:
        x = F.interpolate(x, (size[0], x.shape[3]), mode="bilinear", antialias=antialias, align_corners=False)
    return x.reshape(n, c, *size)
