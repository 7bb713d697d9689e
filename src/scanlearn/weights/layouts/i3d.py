"""I3D: the Inception network for video, trained to name actions (Kinetics-400, from ImageNet), in its PyTorch names."""

from __future__ import annotations

from scanlearn.weights.layouts.layout import LAYOUTS, Plan, Shapes, blank, most_common_size
from scanlearn.weights.layouts.medicalnet import CUBE

NOTICE = (
    "Terms of these weights: published by DeepMind (kinetics-i3d) under the Apache License 2.0, which must go with them; "
    "the terms of the videos they were trained on are not stated. These are facts as found, not legal advice."
)
TIME = "The last axis of your scans takes the place of time in the videos."
NORMALISE = {"mean": [0.5] * 3, "std": [0.5] * 3}  # pixels were scaled to -1..1


@LAYOUTS.register("i3d")
def i3d(shapes: Shapes) -> Plan:
    """The trunk of ``rgb_imagenet.pt``; the head for the actions is set aside, if it is there."""
    norm = [f"Conv3d_1a_7x7.bn.{name}" for name in ("weight", "bias", "running_mean", "running_var")]
    width = most_common_size(shapes, norm, 64)
    encoder = {"name": "i3d", "spatial_dims": 3, "in_channels": 3, "width": width, "normalise": NORMALISE}
    network = {"encoder": encoder, "decoder": None}
    built = blank(network)
    actions = (*shapes.get("logits.conv3d.bias", ()), 0)[0]
    headed = any(name.startswith("logits.") for name in shapes)
    head = {"logits.conv3d.weight": (actions, built.encoder.num_features, 1, 1, 1), "logits.conv3d.bias": (actions,)}
    return Plan(
        "I3D (supervised on video, RGB)",
        network,
        built.published_names(),
        aside={**head} if headed else {},
        aside_is=f"head for {actions} actions",
        notes={"input_size": CUBE},
        licence_notice=NOTICE,
        advice=[TIME],
    )
