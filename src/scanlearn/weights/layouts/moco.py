"""MoCo v1 and v2 (He et al., 2019; Chen et al., 2020) as their authors' code saves them: the query encoder is taken."""

from __future__ import annotations

from scanlearn.weights.layouts.layout import LAYOUTS, Plan, Shapes, blank, most_common_size
from scanlearn.weights.layouts.trunks import PICTURE, Aside, linear, photograph_encoder, without

NOTICE = (
    "Terms of these weights: the authors' repository (facebookresearch/moco) was published under CC BY-NC 4.0; the "
    "photographs of ImageNet were given for non-commercial research. These are facts as found, not legal advice."
)
QUERY, KEY, QUEUE, POINTER = "encoder_q.", "encoder_k.", "queue", "queue_ptr"
DIMENSIONS = 128  # of a key


@LAYOUTS.register("moco")
def moco(shapes: Shapes) -> Plan:
    """A ResNet under ``encoder_q.``; its head, and the key encoder and the queue where the file has them, stay behind.

    The head of v1 is one linear layer, ``fc``; that of v2 two, ``fc.0`` and ``fc.2``. The authors' published files have
    the query encoder alone, checkpoints of a training all of it.
    """
    trunk = without(QUERY, shapes)
    encoder = photograph_encoder(trunk, densenet=False)
    network = {"encoder": encoder, "decoder": None}
    built = blank(network)
    two = any(name.startswith("fc.0.") for name in trunk)
    layers = ["fc.0", "fc.2"] if two else ["fc"]
    keys = most_common_size(trunk, [f"{layers[-1]}.{name}" for name in ("weight", "bias")], DIMENSIONS)
    features = built.encoder.num_features
    head = {**linear("fc.0", (features, features)), **linear("fc.2", (keys, features))}
    head = head if two else linear("fc", (keys, features))
    aside: Aside = {QUERY + name: shape for name, shape in head.items()}
    if any(name.startswith(KEY) for name in shapes):
        aside |= {KEY + name: tuple(tensor.shape) for name, tensor in built.published_state_dict().items()}
        aside |= {KEY + name: shape for name, shape in head.items()}
    if QUEUE in shapes or POINTER in shapes:
        aside |= {QUEUE: (keys, shapes.get(QUEUE, (0,))[-1]), POINTER: (1,)}
    return Plan(
        f"MoCo {'v2' if two else 'v1'}, {encoder['name']} (photographs)",
        network,
        {QUERY + name: ours for name, ours in built.published_names().items()},
        aside=aside,
        aside_is=f"head for keys of {keys} numbers" + (", key encoder and queue" if len(aside) > len(head) else ""),
        notes={"input_size": PICTURE},
        licence_notice=NOTICE,
    )
