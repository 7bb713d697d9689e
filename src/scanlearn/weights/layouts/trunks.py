"""ResNets and DenseNet-121 under torchvision's tensor names: which of them a file holds, and what stands beside them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from scanlearn.networks.resnet import LAYOUTS as DEPTHS
from scanlearn.weights.layouts.layout import Shapes, most_common_size

NORM = ("weight", "bias", "running_mean", "running_var")
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}  # of the photographs, values in 0..1
PICTURE = [224, 224]  # pixels
Aside = dict[str, tuple[int, ...] | None]


def resnet_name(shapes: Shapes) -> str:
    """The ResNet whose blocks differ least from those in the file, so that one absent tensor changes nothing."""
    found = {match.groups() for name in shapes if (match := re.match(r"layer([1-4])\.(\d+)\.", name))}
    blocks = [sum(stage == str(number) for stage, _ in found) for number in range(1, 5)]
    kind = "bottleneck" if any(".conv3." in name for name in shapes) else "basic"
    same_kind = [name for name in DEPTHS if DEPTHS[name][0] == kind]
    return min(same_kind, key=lambda name: sum(abs(a - b) for a, b in zip(DEPTHS[name][1], blocks, strict=True)))


def photograph_encoder(shapes: Shapes, densenet: bool = True) -> dict[str, Any]:
    """The description of a 2D trunk on three channels that sees them as the networks of ImageNet do.

    Args:
        shapes: of the trunk's tensors by torchvision's names.
        densenet: whether DenseNet-121 is looked for too.
    """
    dense = densenet and any(name.startswith("features.") for name in shapes)
    first = "features.norm0" if dense else "bn1"
    width = most_common_size(shapes, [f"{first}.{name}" for name in NORM], 64)
    return {
        "name": "densenet121" if dense else resnet_name(shapes),
        "spatial_dims": 2,
        "in_channels": 3,
        "width": max(2, width - width % 2),  # one that can be built, for the refusal to name the tensors
        "normalise": IMAGENET,
    }


def linear(stem: str, shape: tuple[int, int]) -> Aside:
    """Weight and bias of a linear layer with (outputs, inputs)."""
    return {f"{stem}.weight": shape, f"{stem}.bias": shape[:1]}


def norm(stem: str, size: int, affine: bool = True) -> Aside:
    """Batch norm; without ``affine`` its statistics alone."""
    return {f"{stem}.{name}": (size,) for name in (NORM if affine else NORM[2:])} | {f"{stem}.num_batches_tracked": ()}


def without(prefix: str, shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """The tensors under ``prefix``, by their names behind it."""
    return {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}


def common_prefix(names: Iterable[str], pieces: Iterable[str]) -> str:
    """What stands before most of the names, made of ``pieces``, outermost first.

    >>> common_prefix(["encoder.module.conv1.weight", "encoder.module.fc.bias", "more"], ["module.", "encoder."])
    'encoder.module.'
    """
    names, pieces, prefix = list(names), list(pieces), ""
    while True:
        having = {piece: sum(name.startswith(prefix + piece) for name in names) for piece in pieces}
        piece = max(having, key=having.__getitem__)
        if 2 * having[piece] <= len(names):
            return prefix
        prefix += piece
