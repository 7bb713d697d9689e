"""MedicalNet: 3D ResNets of depth 10 to 200, trained to segment CT and MR of 8 or 23 data sets (Chen et al., 2019)."""

from __future__ import annotations

from scanlearn.weights.layouts.layout import LAYOUTS, Plan, Shapes, blank, most_common_size
from scanlearn.weights.layouts.trunks import NORM, resnet_name

CUBE = [64, 64, 32]  # voxels: not what these weights were trained at, but the cubes they are compared on
NOTICE = (
    "Terms of these weights: MIT licence, Copyright (C) 2019 THL A29 Limited, a Tencent company (MedicalNet); the terms "
    "of the data sets they were trained on are not stated. These are facts as found, not legal advice."
)
SCALE = (
    "MedicalNet saw volumes of mean 0 and deviation 1, and scans come here as 0..1, so the running statistics of the file "
    "are not those of your scans: fine-tune, or estimate them anew with --store, before you trust an output."
)
HEAD_WIDTH = 32  # channels between the trunk and the classes


@LAYOUTS.register("medicalnet")
def medicalnet(shapes: Shapes) -> Plan:
    """The trunk of a ``resnet_{depth}.pth`` or ``resnet_{depth}_23dataset.pth``; depth and shortcut are read from it.

    Published files end with the trunk. Where a head is there, as in files that the authors' code writes, it is set aside.
    """
    norm = [f"bn1.{name}" for name in NORM]
    encoder = {
        "name": resnet_name(shapes),
        "spatial_dims": 3,
        "in_channels": 1,
        "width": most_common_size(shapes, norm, 64),
        "dilated": True,
        "shortcut": "B" if any(".downsample." in name for name in shapes) else "A",
    }
    network = {"encoder": encoder, "decoder": None}
    built = blank(network)
    classes = (*shapes.get("conv_seg.6.weight", ()), 0)[0]
    headed = any(name.startswith("conv_seg.") for name in shapes)
    return Plan(
        f"MedicalNet {encoder['name']} (supervised, 3D)",
        network,
        built.published_names(),
        aside=_head(built.encoder.num_features, classes) if headed else {},
        aside_is=f"head for {classes} classes",
        notes={"input_size": CUBE},
        licence_notice=NOTICE,
        advice=[SCALE],
    )


def _head(below: int, classes: int) -> dict[str, tuple[int, ...] | None]:
    """Transposed convolution, batch norm, convolution, batch norm, convolution."""
    tensors: dict[str, tuple[int, ...] | None] = {
        "conv_seg.0.weight": (below, HEAD_WIDTH, 2, 2, 2),
        "conv_seg.0.bias": (HEAD_WIDTH,),
        "conv_seg.3.weight": (HEAD_WIDTH, HEAD_WIDTH, 3, 3, 3),
        "conv_seg.6.weight": (classes, HEAD_WIDTH, 1, 1, 1),
    }
    for norm in ("conv_seg.1", "conv_seg.4"):
        tensors |= {f"{norm}.{name}": (HEAD_WIDTH,) for name in NORM}
        tensors[f"{norm}.num_batches_tracked"] = ()
    return tensors
