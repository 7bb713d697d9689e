"""Models Genesis and Semantic Genesis in Keras: the same U-Net with nearest up-sampling, its layers numbered."""

from __future__ import annotations

import re

from torch import Tensor

from scanlearn.weights.layouts.genesis import CUBE, NOTICE, unet
from scanlearn.weights.layouts.layout import LAYOUTS, Plan, Shapes, most_common_size

_STEMS = ("down_tr64", "down_tr128", "down_tr256", "down_tr512", "up_tr256", "up_tr128", "up_tr64")
_CONV = {"kernel": "weight", "bias": "bias"}
_NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
_HEAD = ("depth_14_", "cls_")


@LAYOUTS.register("genesis_keras")
def genesis_keras(shapes: Shapes) -> Plan:
    """86 tensors, or 96 with the head for words of Semantic Genesis. Names are ``layer/weight``."""
    width = most_common_size(shapes, ["depth_0_conv/bias", *(f"depth_0_bn/{name}" for name in _NORM)], 32)
    network = unet(width, upsample="nearest", norm_eps=1e-3)
    network["encoder"]["norm_eps"] = 1e-3  # Keras's own; PyTorch's is 1e-5
    words = most_common_size(shapes, ["cls_output/bias"], (0, *shapes.get("cls_output/kernel", ()))[-1])
    headed = any(name.startswith(_HEAD) for name in shapes)
    return Plan(
        "Models Genesis or Semantic Genesis (chest CT, 3D, Keras)",
        network,
        _names(shapes),
        aside=_head(16 * width, words) if headed else {},
        aside_is=f"head for {words} words",
        arrange=_arrange,
        notes={**CUBE, "words": words} if headed else CUBE,
        licence_notice=NOTICE,
    )


def _names(shapes: Shapes) -> dict[str, str]:
    names: dict[str, str] = {}
    for number in range(14):
        stem = _STEMS[number // 2]
        unit = f"{'encoder' if stem.startswith('down') else 'decoder'}.{stem}.ops.{number % 2}"
        names |= {f"depth_{number}_conv/{theirs}": f"{unit}.conv1.{ours}" for theirs, ours in _CONV.items()}
        names |= {f"depth_{number}_bn/{theirs}": f"{unit}.bn1.{ours}" for theirs, ours in _NORM.items()}
    # Models Genesis gave its last layer no name, so Keras numbered it.
    unnamed = [name.split("/")[0] for name in shapes if re.fullmatch(r"conv3d_\d+/kernel", name)]
    last = unnamed[0] if len(unnamed) == 1 and "final_conv/kernel" not in shapes else "final_conv"
    return names | {f"{last}/{theirs}": f"decoder.out_tr.final_conv.{ours}" for theirs, ours in _CONV.items()}


def _head(below: int, words: int) -> dict[str, tuple[int, ...] | None]:
    return {
        "depth_14_conv/kernel": (below, below, 3, 3, 3),
        "depth_14_conv/bias": (below,),
        **{f"depth_14_bn/{name}": (below,) for name in _NORM},
        "cls_fc/kernel": (below, 1024),
        "cls_fc/bias": (1024,),
        "cls_output/kernel": (1024, words),
        "cls_output/bias": (words,),
    }


def _arrange(name: str, tensor: Tensor) -> Tensor:
    """Kernels lie as (x, y, z, in, out); PyTorch has (out, in, x, y, z)."""
    return tensor.permute(4, 3, 0, 1, 2) if tensor.ndim == 5 else tensor
