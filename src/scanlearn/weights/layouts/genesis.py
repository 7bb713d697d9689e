"""Models Genesis, Semantic Genesis and TransVW in PyTorch: one 3D U-Net, the last two with a head for words."""

from __future__ import annotations

from functools import partial
from typing import Any

from scanlearn.weights.layouts.layout import LAYOUTS, Plan, Shapes, blank, most_common_size

CUBE = {"input_size": [64, 64, 32], "window": [-1000, 1000]}  # voxels; Hounsfield units that became 0..1
NOTICE = (
    "Terms of these weights: the authors' licence (Arizona State University) allows academic, non-commercial use only and "
    "must go with them wherever they go; patents are claimed (US 11,763,952, US 12,469,315, WO 2021/016087). These are "
    "facts as found, not legal advice."
)
STATISTICS = (
    "The authors' code normalises by the batch in evaluation too. Here evaluation takes the running statistics of the "
    "file, so fine-tune, or estimate them anew with --store, before you trust an output; --batch-stats always computes "
    "as the authors' code does."
)
HEAD_WIDTH = 1024  # channels of the convolution in the head for words


def unet(width: int, decoder: bool = True, **settings: Any) -> dict[str, Any]:
    """The description of the published U-Net: grey cubes in, one restored channel out."""
    encoder = {"name": "unet", "spatial_dims": 3, "in_channels": 1, "width": width}
    return {"encoder": encoder, "decoder": {"name": "unet", "out_channels": 1, **settings} if decoder else None}


@LAYOUTS.register("genesis")
def genesis(shapes: Shapes) -> Plan:
    """Models Genesis: encoder and decoder, 106 tensors at the published width."""
    network = unet(_width(shapes))
    return Plan(
        "Models Genesis (chest CT, 3D)",
        network,
        blank(network).published_names(),
        notes=CUBE,
        licence_notice=NOTICE,
        advice=[STATISTICS],
    )


def with_words(title: str, shapes: Shapes) -> Plan:
    """U-Net and head, 115 tensors, or encoder and head, 65; the number of words is read from the head."""
    width = _width(shapes)
    network = unet(width, decoder=any(name.startswith(("up_tr", "out_tr")) for name in shapes))
    words = most_common_size(shapes, ["clc_out.fc1.weight", "clc_out.fc1.bias"], 0)
    return Plan(
        title,
        network,
        blank(network).published_names(),
        aside=_head(16 * width, words),
        aside_is=f"head for {words} words",
        notes={**CUBE, "words": words},
        licence_notice=NOTICE,
        advice=[STATISTICS],
    )


def _width(shapes: Shapes) -> int:
    first = "down_tr64.ops.0"
    names = [f"{first}.conv1.bias", *(f"{first}.bn1.{n}" for n in ("weight", "bias", "running_mean", "running_var"))]
    return most_common_size(shapes, names, 32)


def _head(below: int, words: int) -> dict[str, tuple[int, ...] | None]:
    norm = {f"clc_out.bn1.{name}": (HEAD_WIDTH,) for name in ("weight", "bias", "running_mean", "running_var")}
    return {
        "clc_out.conv1.weight": (HEAD_WIDTH, below, 3, 3, 3),
        "clc_out.conv1.bias": (HEAD_WIDTH,),
        **norm,
        "clc_out.bn1.num_batches_tracked": (),
        "clc_out.fc1.weight": (words, HEAD_WIDTH),
        "clc_out.fc1.bias": (words,),
    }


LAYOUTS.register("semantic_genesis")(partial(with_words, "Semantic Genesis (chest CT, 3D)"))
LAYOUTS.register("transvw")(partial(with_words, "TransVW (chest CT, 3D)"))
