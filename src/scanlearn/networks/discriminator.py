"""A judge of images, patch by patch: is it a scan, or was it painted by a network? (spec_dira §1.4, §3)

Isola et al., "Image-to-image translation with conditional adversarial networks", CVPR 2017, with the layers of DiRA
(Haghighi et al., CVPR 2022).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from scanlearn.errors import ScanlearnError
from scanlearn.networks.conv import CONV, trusted

INSTANCE_NORM = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
SLOPE = 0.2  # of the leaky ReLUs
SPREAD = 0.02  # standard deviation of the first convolution weights


class PatchDiscriminator(nn.Module):
    """(N, in_channels, *spatial) of any size -> a map of judgements (N, 1, *spatial / 8), without any activation.

    Five convolutions of 3 voxels, three of them with stride 2; the middle ones with instance norm. The tensors have their
    published names, ``model.0`` to ``model.11``. 1,554,433 parameters in 2D and 4,661,377 in 3D for one channel.

    Args:
        in_channels: channels of what is judged.
        spatial_dims: 2 or 3.
        width: channels after the first convolution, 64 as published; the others have 2, 4 and 8 times as many.
    """

    def __init__(self, in_channels: int = 1, spatial_dims: int = 2, width: int = 64):
        super().__init__()
        if spatial_dims not in CONV or in_channels < 1 or width < 1:
            raise ScanlearnError(
                "A patch discriminator has 2 or 3 spatial dimensions and 1 or more channels and width, "
                f"not {spatial_dims}, {in_channels} and {width}."
            )
        self.settings = (in_channels, spatial_dims, width)
        conv, norm = CONV[spatial_dims], INSTANCE_NORM[spatial_dims]
        layers: list[nn.Module] = [conv(in_channels, width, 3, stride=2, padding=1), nn.LeakyReLU(SLOPE)]
        for times, stride in ((2, 2), (4, 2), (8, 1)):
            layers += [conv(width * times // 2, width * times, 3, stride=stride, padding=1), norm(width * times)]
            layers += [nn.LeakyReLU(SLOPE)]
        layers += [conv(width * 8, 1, 3, padding=1)]
        self.model = nn.Sequential(*layers)
        trusted(self)
        for part in self.model:
            if isinstance(part, nn.Conv2d | nn.Conv3d):
                nn.init.normal_(part.weight, 0.0, SPREAD)  # biases stay as PyTorch draws them

    def forward(self, image: Tensor) -> Tensor:
        if max(image.shape[2:]) <= 8:  # the maps would be one voxel, which instance norm makes 0 whatever it shows
            raise ScanlearnError(
                f"A patch discriminator judges images of more than 8 voxels along an axis, not {tuple(image.shape[2:])}: "
                "take larger patches."
            )
        return self.model(image)

    @torch.no_grad()
    def renew(self) -> None:
        """Draw all weights again, in place, from PyTorch's generator."""
        for old, drawn in zip(self.parameters(), PatchDiscriminator(*self.settings).parameters(), strict=True):
            new = drawn.detach().to(old.device)
            if isinstance(old.data, DTensor):  # a part of it on each rank
                new = distribute_tensor(new, old.data.device_mesh, old.data.placements)
            old.copy_(new)
