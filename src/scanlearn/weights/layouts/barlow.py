"""Barlow Twins (Zbontar et al., ICML 2021) as its authors' code saves it: the encoder is taken.

Source: spec_dira, section 8.3.
"""

from __future__ import annotations

from scanlearn.weights.layouts.layout import LAYOUTS, Plan, Shapes, blank, most_common_size
from scanlearn.weights.layouts.trunks import NORM, PICTURE, Aside, norm, photograph_encoder, without

NOTICE = (
    "Terms of these weights: the authors' repository (facebookresearch/barlowtwins) is under the MIT licence; the "
    "photographs of ImageNet were given for non-commercial research. These are facts as found, not legal advice."
)
BACKBONE = "backbone."
FEATURES = 8192


@LAYOUTS.register("barlow")
def barlow(shapes: Shapes) -> Plan:
    """``resnet50.pth``, a ResNet without ``fc`` (318 tensors), or the checkpoint of a training (334).

    The projector and the last batch norm of a checkpoint are set aside.
    """
    prefix = BACKBONE if any(name.startswith(BACKBONE) for name in shapes) else ""
    encoder = photograph_encoder(without(prefix, shapes), densenet=False)
    network = {"encoder": encoder, "decoder": None}
    built = blank(network)
    normed = [f"projector.{number}.{name}" for number in (1, 4) for name in NORM]
    width = most_common_size(shapes, normed, FEATURES)
    return Plan(
        f"Barlow Twins, {encoder['name']} (photographs)",
        network,
        {prefix + name: ours for name, ours in built.published_names().items()},
        aside=_projector(built.encoder.num_features, width) if prefix else {},
        aside_is=f"projector to {width} numbers",
        notes={"input_size": PICTURE},
        licence_notice=NOTICE,
    )


def _projector(inside: int, width: int) -> Aside:
    aside: Aside = {"projector.0.weight": (width, inside), **norm("projector.1", width)}
    aside |= {"projector.3.weight": (width, width), **norm("projector.4", width), "projector.6.weight": (width, width)}
    return aside | norm("bn", width, affine=False)
