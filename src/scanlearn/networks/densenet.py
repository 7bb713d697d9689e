"""DenseNet-121 in 2D and 3D: MONAI's network under torchvision's tensor names.

Source: Huang et al., "Densely connected convolutional networks", CVPR 2017.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from scanlearn.errors import ScanlearnError
from scanlearn.networks.encoder import ENCODERS, Encoder

LAYERS = (6, 12, 24, 16)  # dense layers in each of the four blocks


class _DenseLayer(nn.Sequential):
    """norm, ReLU, 1x1, norm, ReLU, 3x3; what it makes is put behind its input."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, super().forward(x)], dim=1)


@ENCODERS.register("densenet121")
class DenseNetEncoder(Encoder):
    """Five maps: the stem before its pooling, then the four dense blocks, each after its batch norm and ReLU.

    Args:
        spatial_dims: 2 or 3. In 2D the tensors are torchvision's without ``classifier``.
        in_channels: channels of the input.
        width: channels of the stem; every dense layer adds half as many. 64 is the published network.
    """

    def __init__(self, *, spatial_dims: int = 2, in_channels: int = 1, width: int = 64):
        if width < 2 or width % 2:
            raise ScanlearnError(f"The encoder 'densenet121' needs an even width, not {width}.")
        growth = width // 2
        channels, before = [width], width
        for layers in LAYERS:
            channels.append(before + layers * growth)
            before = channels[-1] // 2
        super().__init__(
            "densenet121",
            channels,
            [2, 4, 8, 16, 32],
            spatial_dims=spatial_dims,
            in_channels=in_channels,
            width=width,
        )
        from monai.networks.nets.densenet import DenseNet  # 3 s to import

        net = DenseNet(spatial_dims, in_channels, 1, init_features=width, growth_rate=growth, block_config=LAYERS)
        self.features = net.features
        # MONAI keeps the parts of a dense layer under one more name, which torchvision's tensors do not have.
        for number in range(1, len(LAYERS) + 1):
            block = self.features.get_submodule(f"denseblock{number}")
            for name, layer in list(block.named_children()):
                setattr(block, name, _DenseLayer(OrderedDict(layer.get_submodule("layers").named_children())))

    def maps(self, x: Tensor) -> list[Tensor]:
        parts = dict(self.features.named_children())
        x = parts["relu0"](parts["norm0"](parts["conv0"](x)))
        maps = [x]
        x = parts["pool0"](x)
        for number in range(1, len(LAYERS)):
            transition = dict(parts[f"transition{number}"].named_children())
            x = transition["relu"](transition["norm"](parts[f"denseblock{number}"](x)))
            maps.append(x)
            x = transition["pool"](transition["conv"](x))
        maps.append(torch.relu(parts["norm5"](parts[f"denseblock{len(LAYERS)}"](x))))
        return maps
