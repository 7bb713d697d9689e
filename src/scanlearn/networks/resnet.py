"""ResNet-10 to -200 in 2D and 3D: MONAI's network under torchvision's tensor names; dilated, that of MedicalNet.

Source: He et al., "Deep residual learning for image recognition", CVPR 2016; the stride of a bottleneck sits on its
3x3 convolution, as in torchvision. Dilated: Chen et al., "Med3D", arXiv 1904.00625.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torch.nn import functional

from scanlearn.errors import unknown
from scanlearn.networks.encoder import ENCODERS, Encoder

# name -> block, blocks in each of the four stages, channels of a stage over its width
LAYOUTS: dict[str, tuple[str, list[int], int]] = {
    "resnet10": ("basic", [1, 1, 1, 1], 1),
    "resnet18": ("basic", [2, 2, 2, 2], 1),
    "resnet34": ("basic", [3, 4, 6, 3], 1),
    "resnet50": ("bottleneck", [3, 4, 6, 3], 4),
    "resnet101": ("bottleneck", [3, 4, 23, 3], 4),
    "resnet152": ("bottleneck", [3, 8, 36, 3], 4),
    "resnet200": ("bottleneck", [3, 24, 36, 3], 4),
}

# stem -> kernel and stride of the first convolution, whether it is pooled, strides of the five maps
STEMS: dict[str, tuple[int, int, bool, list[int]]] = {
    "imagenet": (7, 2, True, [2, 4, 8, 16, 32]),
    "medium": (3, 2, False, [2, 2, 4, 8, 16]),
    "small": (3, 1, False, [1, 1, 2, 4, 8]),
}

SHORTCUTS = ("A", "B")


class _Padded(nn.Module):
    """Shortcut A: every ``stride``-th voxel, and ``more`` channels of zeros behind; no parameters."""

    def __init__(self, more: int, stride: int):
        super().__init__()
        self.more, self.stride = more, stride

    def forward(self, x: Tensor) -> Tensor:
        axes = x.ndim - 2
        thinned = x[(slice(None), slice(None), *[slice(None, None, self.stride)] * axes)]
        return functional.pad(thinned, [0, 0] * axes + [0, self.more])


class ResNetEncoder(Encoder):
    """Five maps: the stem before its pooling, then the four stages.

    Args:
        name: one of ``LAYOUTS``.
        spatial_dims: 2 or 3. In 2D with the imagenet stem the tensors are torchvision's without ``fc``.
        in_channels: channels of the input.
        width: channels of the stem and of the first stage's blocks; each stage doubles them. 64 is the published
            network, 16 or 32 give thin ones for small recipes.
        stem: ``imagenet`` (7x7, stride 2, max-pooled: for 128 pixels and more), ``medium`` (3x3, stride 2, not
            pooled: about 64 pixels) or ``small`` (3x3, stride 1, not pooled: about 32 pixels).
        zero_init_last: start the last batch norm of each block at zero, so that each block starts as the identity.
        dilated: the last two stages keep the stride of the second; their 3x3 convolutions see every 2nd and every
            4th voxel instead.
        shortcut: past the blocks that change the shape, ``B`` (1x1 convolution and batch norm) or ``A`` (thinned, with
            zeros for the new channels: no parameters).
    """

    def __init__(
        self,
        name: str,
        /,
        *,
        spatial_dims: int = 2,
        in_channels: int = 1,
        width: int = 64,
        stem: str = "imagenet",
        zero_init_last: bool = False,
        dilated: bool = False,
        shortcut: str = "B",
    ):
        if stem not in STEMS:
            raise unknown("stem", stem, STEMS)
        if shortcut not in SHORTCUTS:
            raise unknown("shortcut", shortcut, SHORTCUTS)
        kernel, stride, pooled, strides = STEMS[stem]
        block, layers, expansion = LAYOUTS[name]
        widths = [width * 2**stage for stage in range(4)]
        super().__init__(
            name,
            [width, *(w * expansion for w in widths)],
            [*strides[:3], strides[2], strides[2]] if dilated else strides,
            spatial_dims=spatial_dims,
            in_channels=in_channels,
            width=width,
            stem=stem,
            zero_init_last=zero_init_last,
            dilated=dilated,
            shortcut=shortcut,
        )
        from monai.networks.nets.resnet import ResNet  # 3 s to import

        # MONAI initialises as torchvision does: Kaiming normal over the outputs, batch norms at 1 and 0.
        net = ResNet(
            block,
            layers,
            widths,
            spatial_dims=spatial_dims,
            n_input_channels=in_channels,
            conv1_t_size=kernel,
            conv1_t_stride=stride,
            feed_forward=False,
            bias_downsample=False,
            shortcut_type=shortcut,
        )
        # Its parts stand here directly, so that the tensors bear the published names without a prefix.
        self.conv1, self.bn1, self.act = net.conv1, net.bn1, net.act
        self.maxpool = net.maxpool if pooled else nn.Identity()
        self.layer1, self.layer2, self.layer3, self.layer4 = net.layer1, net.layer2, net.layer3, net.layer4
        self._reshape(dilated, shortcut)
        if zero_init_last:
            last = "bn3.weight" if block == "bottleneck" else "bn2.weight"
            for parameter_name, parameter in self.named_parameters():
                if parameter_name.endswith(last):
                    nn.init.zeros_(parameter)

    def _reshape(self, dilated: bool, shortcut: str) -> None:
        """What MONAI's blocks cannot be told: dilation, and a shortcut A that lets the gradient pass."""
        stages = (self.layer1, self.layer2, self.layer3, self.layer4)
        strides = (1, 2, 1, 1) if dilated else (1, 2, 2, 2)
        for stage, stride, before, after in zip(stages, strides, self.channels, self.channels[1:], strict=False):
            if shortcut == "A" and stage[0].downsample is not None:
                stage[0].downsample = _Padded(after - before, stride)
        for stage, dilation in zip(stages[2:], (2, 4), strict=True) if dilated else ():
            for part in stage.modules():
                if isinstance(part, nn.Conv2d | nn.Conv3d):
                    part.stride = (1,) * self.spatial_dims
                    if part.kernel_size[0] == 3:
                        part.dilation = part.padding = (dilation,) * self.spatial_dims

    def maps(self, x: Tensor) -> list[Tensor]:
        stem = self.act(self.bn1(self.conv1(x)))
        first = self.layer1(self.maxpool(stem))
        second = self.layer2(first)
        third = self.layer3(second)
        return [stem, first, second, third, self.layer4(third)]


for _name in LAYOUTS:
    ENCODERS.register(_name)(partial(ResNetEncoder, _name))
