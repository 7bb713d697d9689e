"""Layers by the number of axes; convolutions that can be trusted: PyTorch's own, but where its CPU library computes rubbish."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CONV = {2: nn.Conv2d, 3: nn.Conv3d}  # by the number of spatial axes
TRANSPOSED = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
BATCH_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class Conv3d(nn.Conv3d):
    """``nn.Conv3d``, in float32 where a map of depth 2 would be computed in bfloat16 on the CPU.

    There oneDNN's gradient of the weights reads memory that nobody wrote (PyTorch 2.13, kernel 3, stride 1: one call in
    four gives values that are not finite). Maps this small cost nothing in float32.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if input.device.type == "cpu" and input.shape[2] == 2 and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return super()._conv_forward(input.float(), weight, bias)
        return super()._conv_forward(input, weight, bias)


def trusted(module: nn.Module) -> None:
    """Make every ``nn.Conv3d`` inside ``module`` one of ours, in place: parameters, names and settings stay."""
    for part in module.modules():
        if type(part) is nn.Conv3d:
            part.__class__ = Conv3d
