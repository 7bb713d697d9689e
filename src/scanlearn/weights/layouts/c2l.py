"""C2L ("Comparing to Learn", Zhou et al., MICCAI 2020) as its authors' code saves it: the student is taken."""

from __future__ import annotations

from scanlearn.weights.layouts.layout import LAYOUTS, Plan, Shapes, blank
from scanlearn.weights.layouts.trunks import PICTURE, common_prefix, linear, photograph_encoder, without

NOTICE = (
    "Terms of these weights: the authors' repository (C2L_MICCAI2020) is under the MIT licence, Copyright (c) 2021 "
    "funnyzhou; the terms of the radiographs they were trained on are their owners'. These are facts as found, not legal "
    "advice."
)
WRAPPERS = ("module.", "encoder.", "encoder_q.", "densenet121.", "resnet18.")
DIMENSIONS = 128  # of a key


@LAYOUTS.register("c2l")
def c2l(shapes: Shapes) -> Plan:
    """A ResNet-18 or DenseNet-121 and its head of one linear layer, which is set aside.

    Names are those of torchvision behind ``encoder.module.`` or ``densenet121.module.``, or what is left of it.
    """
    prefix = common_prefix(shapes, WRAPPERS)
    encoder = photograph_encoder(without(prefix, shapes))
    stem = "classifier" if encoder["name"] == "densenet121" else "fc"
    network = {"encoder": encoder, "decoder": None}
    built = blank(network)
    return Plan(
        f"C2L, {encoder['name']} (radiographs)",
        network,
        {prefix + name: ours for name, ours in built.published_names().items()},
        aside=linear(prefix + stem, (DIMENSIONS, built.encoder.num_features)),
        aside_is=f"head for keys of {DIMENSIONS} numbers",
        notes={"input_size": PICTURE},
        licence_notice=NOTICE,
    )
