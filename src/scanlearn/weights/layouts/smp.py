"""The U-Net of segmentation_models.pytorch on a ResNet, as a state dict; DiRA's is one (380 tensors on a ResNet-50)."""

from __future__ import annotations

from typing import Any

from scanlearn.weights.layouts.layout import LAYOUTS, Plan, Shapes, blank, most_common_size
from scanlearn.weights.layouts.trunks import NORM, PICTURE, photograph_encoder, without

NOTICE = (
    "Terms of these weights: segmentation_models.pytorch is under the MIT licence; those of the weights are their "
    "trainer's, and encoders that began from photographs of ImageNet inherit terms for non-commercial research. These "
    "are facts as found, not legal advice."
)
SCALE = (
    "This network sees pixels as 0 to 1. If it was trained on pixels less the mean of ImageNet over its deviation, say so "
    "with --network.normalise."
)
ENCODER, DECODER, HEAD = "encoder.", "decoder.", "segmentation_head."
BLOCKS = 5  # one for each map of the encoder
CHANNELS = (256, 128, 64, 32, 16)  # that they give by default


@LAYOUTS.register("smp")
def smp(shapes: Shapes) -> Plan:
    """Encoder, decoder and last convolution; depth, widths, channels and classes are read from the file."""
    encoder = photograph_encoder(without(ENCODER, shapes), densenet=False) | {"normalise": None}
    encoder["in_channels"] = (*shapes.get("encoder.conv1.weight", ()), 0, 0)[1] or 3
    network = {"encoder": encoder, "decoder": decoder_of(shapes) or decoder_of({"decoder.": ()})}
    return Plan(
        f"U-Net of segmentation_models.pytorch on {encoder['name']}",
        network,
        blank(network).published_names(),
        notes={"input_size": PICTURE},
        licence_notice=NOTICE,
        advice=[SCALE],
    )


def decoder_of(shapes: Shapes) -> dict[str, Any] | None:
    """The description of the decoder whose tensors these are, None where there is none of it."""
    if not any(name.startswith((DECODER, HEAD)) for name in shapes):
        return None
    channels = [
        most_common_size(shapes, [f"decoder.blocks.{i}.conv{c}.1.{n}" for c in (1, 2) for n in NORM], CHANNELS[i])
        for i in range(BLOCKS)
    ]
    classes = most_common_size(shapes, [f"{HEAD}0.{name}" for name in ("weight", "bias")], 1)
    return {"name": "unet_blocks", "out_channels": classes, "channels": channels}
