"""Models Genesis for nnU-Net v1: the network that nnU-Net planned for lung CT, trained to restore cubes."""

from __future__ import annotations

from typing import Any

from scanlearn.weights.layouts.genesis import CUBE, NOTICE
from scanlearn.weights.layouts.layout import LAYOUTS, Plan, Shapes, blank, most_common_size

FACTORS = [[2, 2, 2]] * 4 + [[1, 2, 2]]
# The network was trained on Hounsfield units less their mean over their deviation; ours sees -1000..1000 HU as 0..1.
MEAN, DEVIATION = -775.8457, 251.9326
NORMALISE = {"mean": [(MEAN + 1000) / 2000], "std": [DEVIATION / 2000]}


@LAYOUTS.register("genesis_nnunet")
def genesis_nnunet(shapes: Shapes) -> Plan:
    """98 tensors; four heads of deep supervision among them are set aside."""
    width = most_common_size(shapes, _vectors("conv_blocks_context.0.blocks"), 32)
    deepest = most_common_size(shapes, _vectors("conv_blocks_context.5.0.blocks"), 320)
    encoder = {"spatial_dims": 3, "in_channels": 1, "width": width, "most": deepest, "factors": FACTORS}
    network: dict[str, Any] = {
        "encoder": {"name": "nnunet", **encoder, "normalise": NORMALISE},
        "decoder": {"name": "nnunet", "out_channels": 2},
    }
    built = blank(network)
    heads = built.encoder.channels[:0:-1]  # of the coarser levels, coarse to fine
    return Plan(
        "Models Genesis for nnU-Net v1 (chest CT, 3D)",
        network,
        built.published_names(),
        aside={f"seg_outputs.{i}.weight": (2, channels, 1, 1, 1) for i, channels in enumerate(heads[1:])},
        aside_is="heads of deep supervision",
        notes=CUBE,
        licence_notice=NOTICE,
    )


def _vectors(stem: str) -> list[str]:
    return [f"{stem}.0.{name}" for name in ("conv.bias", "instnorm.weight", "instnorm.bias")]
