"""DiRA (Haghighi et al., CVPR 2022) as its authors' code saves it: U-Net, encoder alone, or the whole of a training.

Source: spec_dira, section 8.2, whose formats A to D these are. No weights were ever published.
"""

from __future__ import annotations

from typing import Any

from scanlearn.networks.network import Network
from scanlearn.weights.layouts.layout import LAYOUTS, Plan, Shapes, blank, most_common_size
from scanlearn.weights.layouts.smp import ENCODER, decoder_of
from scanlearn.weights.layouts.trunks import PICTURE, Aside, linear, photograph_encoder, without

NOTICE = (
    "Terms of these weights: the authors' licence (Arizona State University) allows academic, non-commercial use only and "
    "must go with them wherever they go; patents are held (US 12,387,324) and applied for (US 2024/0078434, "
    "US 2025/0029372). These are facts as found, not legal advice."
)
QUERY, KEY, WRAPPED = "encoder_q.", "encoder_k.", "backbone."
QUEUE, POINTER = "queue", "queue_ptr"
DIMENSIONS = 128  # of a key
JUDGE = (0, 2, 5, 8, 11)  # its convolutions in D_checkpoint.pth
A_JUDGE = (
    "it is the adversary of DiRA, which tells restored radiographs from real ones (D_checkpoint.pth), and has no encoder "
    "to start from; give unet.pth, best_checkpoint.pth or checkpoint.pth of the same training"
)


@LAYOUTS.register("dira")
def dira(shapes: Shapes) -> Plan:
    """Of a checkpoint (format A, 770 tensors) the query U-Net; a U-Net (B, 380); a ResNet of mode di (C, 322 or 646).

    Projector, key network and queue are set aside. A judge (D, 10) is refused for what it is.
    """
    if _is_judge(shapes):
        return Plan("DiRA, adversary", {"encoder": "resnet50", "decoder": None}, {}, no_network=A_JUDGE)
    branch = QUERY if any(name.startswith(QUERY) for name in shapes) else ""
    beside = without(branch, shapes)
    wrapped = WRAPPED if any(name.startswith(WRAPPED) for name in beside) else ""
    inner = without(wrapped, beside)
    network = _network(inner)
    built = blank(network)
    # An encoder without its decoder keeps the front of its names.
    front = ENCODER if built.decoder is None and any(name.startswith(ENCODER) for name in inner) else ""
    names = {branch + wrapped + front + name: ours for name, ours in built.published_names().items()}
    head = _head(beside, built)
    aside: Aside = {branch + name: shape for name, shape in head.items()}
    if branch and any(name.startswith(KEY) for name in shapes):
        aside |= {KEY + wrapped + front + name: tuple(t.shape) for name, t in built.published_state_dict().items()}
        aside |= {KEY + name: shape for name, shape in head.items()}
    if QUEUE in shapes or POINTER in shapes:
        aside |= {QUEUE: (_keys(beside), shapes.get(QUEUE, (0,))[-1]), POINTER: (1,)}
    return Plan(
        f"DiRA, {network['encoder']['name']}{' with decoder' if built.decoder else ''} (chest radiographs)",
        network,
        names,
        aside=aside,
        aside_is=f"projector to {_keys(beside)} numbers"
        + (", key network and queue" if len(aside) > len(head) else ""),
        notes={"input_size": PICTURE},
        licence_notice=NOTICE,
    )


def _network(inner: Shapes) -> dict[str, Any]:
    """A U-Net where there is anything of a decoder, else the encoder alone; pixels as they are, which DiRA's code sees."""
    trunk = without(ENCODER, inner) or inner
    encoder = photograph_encoder(trunk, densenet=False) | {"normalise": None}
    return {"encoder": encoder, "decoder": decoder_of(inner)}


def _keys(beside: Shapes) -> int:
    return most_common_size(beside, ["fc.2.weight", "fc.2.bias"], DIMENSIONS)


def _head(beside: Shapes, built: Network) -> Aside:
    """The projector of two linear layers, where there is anything of it; files of the U-Net alone have none."""
    if not any(name.startswith("fc.") for name in beside):
        return {}
    features = built.encoder.num_features
    return {**linear("fc.0", (features, features)), **linear("fc.2", (_keys(beside), features))}


def _is_judge(shapes: Shapes) -> bool:
    """``model.`` before the numbers has been taken off as that of a wrapper, unless something else kept it there."""
    expected = {f"{number}.{kind}" for number in JUDGE for kind in ("weight", "bias")}
    return {name.removeprefix("model.") for name in shapes} == expected
