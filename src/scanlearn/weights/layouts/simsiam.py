"""SimSiam (Chen and He, CVPR 2021) as its authors' code saves it: the encoder is taken.

Source: spec_dira, section 8.3.
"""

from __future__ import annotations

from scanlearn.weights.layouts.layout import LAYOUTS, Plan, Shapes, blank, most_common_size
from scanlearn.weights.layouts.trunks import NORM, PICTURE, Aside, linear, norm, photograph_encoder, without

NOTICE = (
    "Terms of these weights: the authors' repository (facebookresearch/simsiam) is under CC BY-NC 4.0, which allows no "
    "commercial use; the photographs of ImageNet were given for non-commercial research. These are facts as found, not "
    "legal advice."
)
ENCODER = "encoder."
PREDICTOR_WIDTH = 512


@LAYOUTS.register("simsiam")
def simsiam(shapes: Shapes) -> Plan:
    """A ResNet under ``encoder.``; its projector of three layers, ``fc``, and the predictor are set aside.

    343 tensors on a ResNet-50.
    """
    trunk = without(ENCODER, shapes)
    encoder = photograph_encoder(trunk, densenet=False)
    network = {"encoder": encoder, "decoder": None}
    built = blank(network)
    inside = built.encoder.num_features
    outside = most_common_size(trunk, ["fc.6.weight", "fc.6.bias", *(f"fc.7.{n}" for n in NORM[2:])], inside)
    hidden = most_common_size(shapes, ["predictor.0.weight", *(f"predictor.1.{n}" for n in NORM)], PREDICTOR_WIDTH)
    projector: Aside = {"fc.0.weight": (inside, inside), **norm("fc.1", inside)}
    projector |= {"fc.3.weight": (inside, inside), **norm("fc.4", inside)}
    projector |= {**linear("fc.6", (outside, inside)), **norm("fc.7", outside, affine=False)}
    predictor: Aside = {"predictor.0.weight": (hidden, outside), **norm("predictor.1", hidden)}
    predictor |= linear("predictor.3", (outside, hidden))
    return Plan(
        f"SimSiam, {encoder['name']} (photographs)",
        network,
        {ENCODER + name: ours for name, ours in built.published_names().items()},
        aside={**{ENCODER + name: shape for name, shape in projector.items()}, **predictor},
        aside_is=f"projector and predictor of {outside} numbers",
        notes={"input_size": PICTURE},
        licence_notice=NOTICE,
    )
