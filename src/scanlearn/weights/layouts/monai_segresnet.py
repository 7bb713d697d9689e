"""MONAI's ``SegResNet`` as a state dict: Myronenko's residual U-Net, 2D or 3D, of many published bundles.

Source: Myronenko, BrainLes 2018, in MONAI 1.6 (``monai.networks.nets.SegResNet``); spec_cpcseg §10.1. With these settings
the network here gives the same outputs; the one of ssCPCseg differs by a convolution, biases and its head.
"""

from __future__ import annotations

import re
from typing import Any

from scanlearn.weights.layouts.layout import LAYOUTS, Plan, Shapes, blank, most_common_size

GROUPS = 8  # of every norm, by default; no tensor tells
SIDE = 96  # voxels of a side, where the file says nothing of the crops it was trained on
NOTICE = (
    "Terms of these weights: MONAI is under the Apache 2.0 licence; those of the weights are their trainer's. These are "
    "facts as found, not legal advice."
)
UNTOLD = (
    "The file does not say how its network saw scans: MONAI's bundles for brain tumours take z-scores over non-zero voxels "
    "with channels in their own order, and scans come here as 0..1. Fine-tune, or say it with --network.normalise; norms "
    "are taken to have 8 groups."
)


@LAYOUTS.register("monai_segresnet")
def monai_segresnet(shapes: Shapes) -> Plan:
    """Encoder and decoder; width, blocks of each level, channels and classes are read from the file.

    Networks with more than one block on the way up, with learnt up-sampling or without the last convolution are refused
    by the names of their tensors.
    """
    first = (*shapes.get("convInit.conv.weight", ()), *[0] * 5)
    dims = 2 if len(shapes.get("convInit.conv.weight", ())) == 4 else 3
    width = most_common_size(shapes, [f"{norm}.{name}" for norm in _norms(0, 1) for name in ("weight", "bias")], GROUPS)
    encoder: dict[str, Any] = {
        "name": "segres",
        "spatial_dims": dims,
        "in_channels": first[1] or 1,
        "width": max(GROUPS, width - width % GROUPS),  # one that can be built, for the refusal to name the tensors
        "blocks": _blocks(shapes),
        "groups": GROUPS,
        "entry_conv": False,
        "bias": False,
    }
    decoder: dict[str, Any] = {
        "name": "segres",
        "out_channels": most_common_size(shapes, [f"conv_final.2.conv.{name}" for name in ("weight", "bias")], 2),
        "groups": GROUPS,
        "align_corners": False,
        "head_norm": True,
        "bias": False,
    }
    network = {"encoder": encoder, "decoder": decoder}
    return Plan(
        f"MONAI's SegResNet ({dims}D, {encoder['width']} filters, {decoder['out_channels']} outputs)",
        network,
        {theirs_of(name): name for name in blank(network).state_dict()},
        notes={"input_size": [SIDE] * dims},
        licence_notice=NOTICE,
        advice=[UNTOLD],
    )


def _norms(level: int, block: int) -> list[str]:
    return [f"down_layers.{level}.{block}.norm{number}" for number in (1, 2)]


def _blocks(shapes: Shapes) -> list[int]:
    """How many blocks each level has; one for a level that the numbers of the others leave out."""
    found = {tuple(map(int, match.groups())) for name in shapes if (match := _BLOCK.match(name))}
    levels = max((level for level, _ in found), default=0) + 1
    return [max((block for at, block in found if at == level), default=1) for level in range(min(levels, 8))]


_BLOCK = re.compile(r"down_layers\.(\d{1,2})\.([1-9]\d?)\.")
_PARTS = {"first.norm": "norm1", "first.conv": "conv1.conv", "second.norm": "norm2", "second.conv": "conv2.conv"}


def theirs_of(name: str) -> str:
    """MONAI's name of a tensor of the network here.

    >>> theirs_of("encoder.levels.2.1.first.conv.weight"), theirs_of("decoder.ups.0.narrow.weight")
    ('down_layers.2.1.conv1.conv.weight', 'up_samples.0.0.conv.weight')
    >>> theirs_of("encoder.levels.0.0.second.norm.bias")
    'down_layers.0.1.norm2.bias'
    """
    part, kind = name.rsplit(".", 1)
    if match := re.fullmatch(r"encoder\.levels\.(\d+)\.(\d+)(?:\.(\w+\.\w+))?", part):
        level, number, inside = int(match[1]), int(match[2]), match[3]
        # MONAI's finest level begins with something that has no tensors.
        number += level == 0
        return f"down_layers.{level}.{number}.{_PARTS[inside] if inside else 'conv'}.{kind}"
    if match := re.fullmatch(r"decoder\.ups\.(\d+)\.(?:block\.(\w+\.\w+)|narrow)", part):
        if match[2]:
            return f"up_layers.{match[1]}.0.{_PARTS[match[2]]}.{kind}"
        return f"up_samples.{match[1]}.0.conv.{kind}"
    head = {"encoder.first": "convInit.conv", "decoder.head.0": "conv_final.0", "decoder.head.2": "conv_final.2.conv"}
    return f"{head[part]}.{kind}"
