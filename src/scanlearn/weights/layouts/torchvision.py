"""torchvision's ResNets and DenseNet-121, trained to name what photographs show (ImageNet-1k)."""

from __future__ import annotations

import re

from scanlearn.weights.layouts.layout import LAYOUTS, Plan, Shapes, blank
from scanlearn.weights.layouts.trunks import PICTURE, linear, photograph_encoder

NOTICE = (
    "Terms of these weights: torchvision's code is under the BSD 3-Clause License and states no others for its weights; "
    "the photographs of ImageNet were given for non-commercial research. These are facts as found, not legal advice."
)


@LAYOUTS.register("torchvision")
def torchvision(shapes: Shapes) -> Plan:
    """The trunk of a ``resnet*.pth`` or ``densenet121*.pth``; the head for the classes is set aside, if it is there.

    Which network it is, and its width, are read from the file. DenseNets saved before PyTorch 0.4, torchvision's own
    among them, spell ``norm.1`` where others have ``norm1``.
    """
    encoder = photograph_encoder(shapes)
    stem = "classifier" if encoder["name"] == "densenet121" else "fc"
    classes = (*shapes.get(f"{stem}.weight", ()), 0)[0]
    headed = any(name.startswith(f"{stem}.") for name in shapes)
    network = {"encoder": encoder, "decoder": None}
    built = blank(network)
    names = built.published_names()
    if any(re.search(r"\.denselayer\d+\.norm\.1\.", name) for name in shapes):
        names = {_old_spelling(name): ours for name, ours in names.items()}
    return Plan(
        f"torchvision's {encoder['name']} (supervised, photographs)",
        network,
        names,
        aside=linear(stem, (classes, built.encoder.num_features)) if headed else {},
        aside_is=f"head for {classes} classes",
        notes={"input_size": PICTURE},
        licence_notice=NOTICE,
    )


def _old_spelling(name: str) -> str:
    """``...denselayer1.norm1.weight`` as ``...denselayer1.norm.1.weight``."""
    return re.sub(r"(\.denselayer\d+\.)(norm|conv)(\d)\.", r"\1\2.\3.", name)
