"""The published tensor names and shapes, written as rules."""

from __future__ import annotations

import itertools

Tensors = list[tuple[str, tuple[int, ...]]]


def batch_norm(stem: str, channels: int) -> Tensors:
    sizes = {"weight": (channels,), "bias": (channels,), "running_mean": (channels,), "running_var": (channels,)}
    return [(f"{stem}.{name}", shape) for name, shape in {**sizes, "num_batches_tracked": ()}.items()]


def resnet(blocks: list[int], bottleneck: bool, in_channels: int = 3, dims: int = 2, shortcut: str = "B") -> Tensors:
    """Names and shapes of torchvision's ResNets without ``fc``; with 1 channel in 3D, those of MedicalNet."""
    expansion = 4 if bottleneck else 1
    tensors: Tensors = [("conv1.weight", (64, in_channels, *[7] * dims)), *batch_norm("bn1", 64)]
    inside = 64
    for stage, count in enumerate(blocks):
        width = 64 * 2**stage
        outside = width * expansion
        for number in range(count):
            stem = f"layer{stage + 1}.{number}"
            convolutions = [(width, inside, 1), (width, width, 3), (outside, width, 1)]
            if not bottleneck:
                convolutions = [(width, inside, 3), (width, width, 3)]
            for index, (after, before, side) in enumerate(convolutions, 1):
                tensors += [(f"{stem}.conv{index}.weight", (after, before, *[side] * dims))]
                tensors += batch_norm(f"{stem}.bn{index}", after)
            if number == 0 and inside != outside and shortcut == "B":
                tensors += [(f"{stem}.downsample.0.weight", (outside, inside, *[1] * dims))]
                tensors += batch_norm(f"{stem}.downsample.1", outside)
            inside = outside
    return tensors


def i3d(in_channels: int = 3) -> Tensors:
    """Names and shapes of the published PyTorch conversion of I3D without ``logits``."""

    def unit(stem: str, outside: int, inside: int, side: int) -> Tensors:
        return [(f"{stem}.conv3d.weight", (outside, inside, side, side, side)), *batch_norm(f"{stem}.bn", outside)]

    tensors = unit("Conv3d_1a_7x7", 64, in_channels, 7) + unit("Conv3d_2b_1x1", 64, 64, 1)
    tensors += unit("Conv3d_2c_3x3", 192, 64, 3)
    inside = 192
    for stem, (b0, b1a, b1b, b2a, b2b, b3b) in {
        "Mixed_3b": (64, 96, 128, 16, 32, 32),
        "Mixed_3c": (128, 128, 192, 32, 96, 64),
        "Mixed_4b": (192, 96, 208, 16, 48, 64),
        "Mixed_4c": (160, 112, 224, 24, 64, 64),
        "Mixed_4d": (128, 128, 256, 24, 64, 64),
        "Mixed_4e": (112, 144, 288, 32, 64, 64),
        "Mixed_4f": (256, 160, 320, 32, 128, 128),
        "Mixed_5b": (256, 160, 320, 32, 128, 128),
        "Mixed_5c": (384, 192, 384, 48, 128, 128),
    }.items():
        tensors += unit(f"{stem}.b0", b0, inside, 1)
        tensors += unit(f"{stem}.b1a", b1a, inside, 1) + unit(f"{stem}.b1b", b1b, b1a, 3)
        tensors += unit(f"{stem}.b2a", b2a, inside, 1) + unit(f"{stem}.b2b", b2b, b2a, 3)
        tensors += unit(f"{stem}.b3b", b3b, inside, 1)
        inside = b0 + b1b + b2b + b3b
    return tensors


def torchvision_densenet(layers: tuple[int, ...] = (6, 12, 24, 16), in_channels: int = 3) -> Tensors:
    """Names and shapes of torchvision's densenet121 without ``classifier``."""
    tensors: Tensors = [("features.conv0.weight", (64, in_channels, 7, 7)), *batch_norm("features.norm0", 64)]
    channels = 64
    for block, count in enumerate(layers, 1):
        for layer in range(1, count + 1):
            stem = f"features.denseblock{block}.denselayer{layer}"
            tensors += [*batch_norm(f"{stem}.norm1", channels), (f"{stem}.conv1.weight", (128, channels, 1, 1))]
            tensors += [*batch_norm(f"{stem}.norm2", 128), (f"{stem}.conv2.weight", (32, 128, 3, 3))]
            channels += 32
        if block < len(layers):
            stem = f"features.transition{block}"
            tensors += [*batch_norm(f"{stem}.norm", channels), (f"{stem}.conv.weight", (channels // 2, channels, 1, 1))]
            channels //= 2
    return tensors + batch_norm("features.norm5", channels)


def genesis_unet() -> Tensors:
    """The 106 tensors of the published Models Genesis U-Net, in the order of the file."""

    def units(stem: str, *widths: int) -> Tensors:
        tensors: Tensors = []
        for index, (inside, outside) in enumerate(itertools.pairwise(widths)):
            unit = f"{stem}.ops.{index}"
            tensors += [(f"{unit}.conv1.weight", (outside, inside, 3, 3, 3)), (f"{unit}.conv1.bias", (outside,))]
            tensors += batch_norm(f"{unit}.bn1", outside)
        return tensors

    tensors = units("down_tr64", 1, 32, 64) + units("down_tr128", 64, 64, 128)
    tensors += units("down_tr256", 128, 128, 256) + units("down_tr512", 256, 256, 512)
    for stem, below, outside in (("up_tr256", 512, 256), ("up_tr128", 256, 128), ("up_tr64", 128, 64)):
        tensors += [(f"{stem}.up_conv.weight", (below, below, 2, 2, 2)), (f"{stem}.up_conv.bias", (below,))]
        tensors += units(stem, below + outside, outside, outside)
    return [*tensors, ("out_tr.final_conv.weight", (1, 64, 1, 1, 1)), ("out_tr.final_conv.bias", (1,))]


def dira_unet() -> Tensors:
    """The 380 tensors of DiRA's U-Net on a ResNet-50, in the order of the file."""
    tensors: Tensors = [(f"encoder.{name}", shape) for name, shape in resnet([3, 4, 6, 3], True)]
    blocks = [(3072, 256), (768, 128), (384, 64), (128, 32), (32, 16)]
    for index, (inside, outside) in enumerate(blocks):
        for conv, channels in (("conv1", inside), ("conv2", outside)):
            stem = f"decoder.blocks.{index}.{conv}"
            tensors += [(f"{stem}.0.weight", (outside, channels, 3, 3)), *batch_norm(f"{stem}.1", outside)]
    return [*tensors, ("segmentation_head.0.weight", (1, 16, 3, 3)), ("segmentation_head.0.bias", (1,))]


def genesis_nnunet() -> Tensors:
    """The 98 tensors of Models Genesis for nnU-Net v1, in the order of the file."""

    def unit(stem: str, inside: int, outside: int) -> Tensors:
        sizes = {"conv.weight": (outside, inside, 3, 3, 3), "conv.bias": (outside,)}
        return [
            (f"{stem}.{name}", shape)
            for name, shape in {**sizes, "instnorm.weight": (outside,), "instnorm.bias": (outside,)}.items()
        ]

    tensors: Tensors = []
    widths = [32, 64, 128, 256, 320, 320]
    for index, skip in enumerate(widths[-2::-1]):
        tensors += unit(f"conv_blocks_localization.{index}.0.blocks.0", 2 * skip, skip)
        tensors += unit(f"conv_blocks_localization.{index}.1.blocks.0", skip, skip)
    for level, (inside, outside) in enumerate(itertools.pairwise([1, *widths])):
        parts = ("0.blocks.0", "1.blocks.0") if level == 5 else ("blocks.0", "blocks.1")
        tensors += unit(f"conv_blocks_context.{level}.{parts[0]}", inside, outside)
        tensors += unit(f"conv_blocks_context.{level}.{parts[1]}", outside, outside)
    for index, (below, skip) in enumerate(itertools.pairwise(widths[::-1])):
        tensors += [(f"tu.{index}.weight", (below, skip, 2 if index else 1, 2, 2))]
    return tensors + [(f"seg_outputs.{i}.weight", (2, width, 1, 1, 1)) for i, width in enumerate(widths[-2::-1])]
