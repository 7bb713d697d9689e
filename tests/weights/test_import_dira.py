"""DiRA in its four formats, SimSiam, Barlow Twins and U-Nets of smp: every tensor is accounted for, or the file refused."""

import re

import pytest
import torch

from networks.names import batch_norm, dira_unet, resnet
from scanlearn.errors import ScanlearnError
from scanlearn.networks.network import build_network
from scanlearn.weights.encoder import load_network, read_card
from scanlearn.weights.layouts import import_weights
from scanlearn.weights.layouts.account import faults, plain_names
from scanlearn.weights.layouts.layout import LAYOUTS, blank

TRUNK = resnet([3, 4, 6, 3], True)
PROJECTOR = [("fc.0.weight", (2048, 2048)), ("fc.0.bias", (2048,)), ("fc.2.weight", (128, 2048)), ("fc.2.bias", (128,))]
QUEUE = [("queue", (128, 65536)), ("queue_ptr", (1,))]
JUDGE = [((64, 1), 0), ((128, 64), 2), ((256, 128), 5), ((512, 256), 8), ((1, 512), 11)]


def under(prefix, tensors):
    return [(prefix + name, shape) for name, shape in tensors]


def statistics_of(stem, size):
    """Batch norm without weights."""
    return batch_norm(stem, size)[2:]


def dira(which):
    """Names and shapes of the published formats, by their rules."""
    query = [*under("backbone.", dira_unet()), *PROJECTOR]
    flat = [*TRUNK, *PROJECTOR]
    return {
        "checkpoint": [*QUEUE, *under("encoder_q.", query), *under("encoder_k.", query)],
        "U-Net": dira_unet(),
        "di": flat,
        "di checkpoint": [*QUEUE, *under("encoder_q.", flat), *under("encoder_k.", flat)],
    }[which]


def simsiam():
    projector = [("fc.0.weight", (2048, 2048)), *batch_norm("fc.1", 2048), ("fc.3.weight", (2048, 2048))]
    projector += [*batch_norm("fc.4", 2048), ("fc.6.weight", (2048, 2048)), ("fc.6.bias", (2048,))]
    projector += statistics_of("fc.7", 2048)
    predictor = [("0.weight", (512, 2048)), *batch_norm("1", 512), ("3.weight", (2048, 512)), ("3.bias", (2048,))]
    return [*under("encoder.", [*TRUNK, *projector]), *under("predictor.", predictor)]


def barlow():
    projector = [("0.weight", (8192, 2048)), *batch_norm("1", 8192), ("3.weight", (8192, 8192))]
    projector += [*batch_norm("4", 8192), ("6.weight", (8192, 8192))]
    return [*under("backbone.", TRUNK), *under("projector.", projector), *statistics_of("bn", 8192)]


def plan_of(layout, tensors):
    """The plan for tensors of these names and shapes, and what keeps them from fitting it."""
    plan = LAYOUTS.get(layout)(dict(tensors))
    values = {name: torch.empty(shape, device="meta") for name, shape in tensors}
    return plan, faults(plan, blank(plan.network).state_dict(), values)


# ---------------------------------------------------------------- the published lists


@pytest.mark.parametrize(
    ("layout", "tensors", "count", "taken"),
    [
        pytest.param("dira", dira("checkpoint"), 770, 380, id="A"),
        pytest.param("dira", dira("U-Net"), 380, 380, id="B"),
        pytest.param("dira", dira("di"), 322, 318, id="C"),
        pytest.param("dira", dira("di checkpoint"), 646, 318, id="C-checkpoint"),
        pytest.param("smp", dira("U-Net"), 380, 380, id="smp"),
        pytest.param("simsiam", simsiam(), 343, 318, id="simsiam"),
        pytest.param("barlow", barlow(), 334, 318, id="barlow"),
        pytest.param("barlow", TRUNK, 318, 318, id="barlow-flat"),
    ],
)
def test_published_formats_are_known_and_whole(layout, tensors, count, taken):
    plan, found = plan_of(layout, tensors)
    assert not found and len(tensors) == count
    assert (len(plan.names), len(plan.names) + len(plan.aside)) == (taken, count)
    assert set(plan.names.values()) == set(blank(plan.network).state_dict())
    encoder = plan.network["encoder"]
    assert (encoder["name"], encoder["width"], encoder["in_channels"]) == ("resnet50", 64, 3)
    # DiRA was trained on pixels as they are, the others on photographs less the mean of ImageNet.
    assert (encoder["normalise"] is None) == (layout in ("dira", "smp"))
    assert (plan.network["decoder"] is not None) == (taken == 380)


def test_of_a_checkpoint_the_query_network_is_taken_and_never_the_key_network_or_the_queue():
    plan, _ = plan_of("dira", dira("checkpoint"))
    assert all(name.startswith("encoder_q.backbone.") for name in plan.names)
    assert sum(name.startswith("encoder_k.") for name in plan.aside) == 384
    assert plan.aside_is == "projector to 128 numbers, key network and queue"


def test_an_encoder_without_its_decoder_is_taken_under_its_prefix():
    plan, found = plan_of("dira", under("encoder.", TRUNK))
    assert not found and plan.network["decoder"] is None and len(plan.names) == 318


@pytest.mark.parametrize(
    ("layout", "make"), [("dira", lambda: dira("checkpoint")), ("simsiam", simsiam), ("barlow", barlow)]
)
def test_one_absent_tensor_refuses_the_file_by_its_name(layout, make):
    tensors = [(name, shape) for name, shape in make() if not name.endswith("tracked")]
    for at in (2, len(tensors) // 2, -1):
        name, shape = tensors[at]
        rest = [tensor for tensor in tensors if tensor[0] != name]
        told = "x".join(map(str, shape))
        assert plan_of(layout, rest)[1] == [f"{name!r} is missing ({told})"]


# ---------------------------------------------------------------- files


def unet(classes=1, channels=(8, 6, 4, 4, 2), encoder="resnet18", in_channels=3):
    """The tensors of a thin U-Net under the published names, with random values."""
    decoder = {"name": "unet_blocks", "out_channels": classes, "channels": list(channels)}
    trunk = {"name": encoder, "width": 4, "spatial_dims": 2, "in_channels": in_channels}
    network = build_network({"encoder": trunk, "decoder": decoder})
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.uniform_(0.1, 1) if tensor.is_floating_point() else tensor.fill_(7)
    return {name: tensor.clone() for name, tensor in network.published_state_dict().items()}


def training(query, key=None):
    """As the authors' code saves a training: format A."""
    head = {"fc.0.weight": (32, 32), "fc.0.bias": (32,), "fc.2.weight": (128, 32), "fc.2.bias": (128,)}
    both = {}
    for branch, tensors in (("encoder_q", query), ("encoder_k", key or {n: t * 0 for n, t in query.items()})):
        both |= {f"module.{branch}.backbone.{name}": tensor for name, tensor in tensors.items()}
        both |= {f"module.{branch}.{name}": torch.rand(shape) for name, shape in head.items()}
    both |= {"module.queue": torch.rand(128, 16), "module.queue_ptr": torch.zeros(1, dtype=torch.int64)}
    return {"epoch": 4, "arch": "resnet18", "state_dict": both, "optimizer": {}, "best_loss": torch.tensor(0.5)}


def test_a_checkpoint_comes_in_to_the_bit_encoder_and_decoder(tmp_path, capsys):
    tensors = unet()
    torch.save(training(tensors), tmp_path / "checkpoint.pth")
    account = import_weights(tmp_path / "checkpoint.pth", "dira", tmp_path / "out")
    network = load_network(tmp_path / "out")
    ours = network.published_state_dict()
    assert ours.keys() == tensors.keys() and all(torch.equal(ours[name], t) for name, t in tensors.items())
    assert account.beside == ["epoch", "arch", "optimizer", "best_loss"] and account.prefixes == ["module."]
    said = " ".join(capsys.readouterr().err.split())
    assert "US 12,387,324" in said and "120 into the encoder and 62 into the decoder" in said
    assert read_card(tmp_path / "out")["notes"]["licence_notice"].startswith("Terms of these weights")
    x = torch.rand(1, 1, 32, 32)
    assert torch.equal(network.encoder.prepared(x), x.expand(-1, 3, -1, -1))  # pixels as they are


def test_the_loader_of_the_authors_readme_loads_nothing_in_silence_and_ours_takes_everything(tmp_path):
    tensors = unet()
    content = training(tensors)
    # The published example: a prefix replaced wherever it stands, keys that do not fit ignored.
    stripped = {name.replace("module.encoder_q.", ""): tensor for name, tensor in content["state_dict"].items()}
    theirs = build_network({"encoder": {"name": "resnet18", "width": 4, "in_channels": 3}, "decoder": None}).encoder
    before = {name: tensor.clone() for name, tensor in theirs.state_dict().items()}
    missing = theirs.load_state_dict(stripped, strict=False).missing_keys
    weights = [name for name in before if not name.endswith("tracked")]
    assert set(weights) <= set(missing)
    assert all(torch.equal(tensor, before[name]) for name, tensor in theirs.state_dict().items())

    torch.save(content, tmp_path / "checkpoint.pth")
    import_weights(tmp_path / "checkpoint.pth", "dira", tmp_path / "out")
    loaded = load_network(tmp_path / "out").encoder.state_dict()
    assert all(torch.equal(loaded[name], tensors[f"encoder.{name}"]) for name in before)
    for wrong in ("torchvision", "moco"):
        with pytest.raises(ScanlearnError, match=r"is refused.* try --layout dira\."):
            import_weights(tmp_path / "checkpoint.pth", wrong, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_prefix_inside_a_name_stays(tmp_path):
    tensors = unet() | {"decoder.module.encoder_q.weight": torch.rand(2)}
    torch.save(tensors, tmp_path / "unet.pth")
    with pytest.raises(ScanlearnError, match=re.escape("'decoder.module.encoder_q.weight' (2) is none of its tensors")):
        import_weights(tmp_path / "unet.pth", "dira", tmp_path / "out")


@pytest.mark.parametrize("prefix", ["module.model.", "model.", ""])
def test_the_judge_is_refused_for_what_it_is(tmp_path, prefix):
    state = {}
    for shape, number in JUDGE:
        state |= {f"{prefix}{number}.weight": torch.rand(*shape, 3, 3), f"{prefix}{number}.bias": torch.rand(shape[0])}
    torch.save({"epoch": 4, "arch": "resnet50", "state_dict": state}, tmp_path / "D_checkpoint.pth")
    with pytest.raises(ScanlearnError, match=r"it is the adversary of DiRA.* give unet\.pth") as told:
        import_weights(tmp_path / "D_checkpoint.pth", "dira", tmp_path / "out")
    assert "\n" not in str(told.value) and not (tmp_path / "out").exists()
    with pytest.raises(ScanlearnError, match="not one of its 10 tensors fits"):
        import_weights(tmp_path / "D_checkpoint.pth", "moco", tmp_path / "out")


@pytest.mark.parametrize("classes", [1, 3])
def test_a_unet_of_smp_comes_in_whatever_its_depth_widths_and_classes(tmp_path, classes):
    tensors = unet(classes, (10, 8, 6, 4, 4), "resnet34", in_channels=1)
    torch.save({"state_dict": tensors}, tmp_path / "best.pth")
    import_weights(tmp_path / "best.pth", "smp", tmp_path / "out")
    network = load_network(tmp_path / "out")
    assert (network.encoder.name, network.encoder.in_channels, network.decoder.out_channels) == ("resnet34", 1, classes)
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in network.published_state_dict().items())


@pytest.mark.parametrize(
    "absent", ["decoder.blocks.0.conv1.0.weight", "segmentation_head.0.bias", "encoder.bn1.weight"]
)
def test_a_unet_that_lacks_a_tensor_is_refused_by_its_name(tmp_path, absent):
    tensors = {name: tensor for name, tensor in unet().items() if name != absent}
    torch.save(tensors, tmp_path / "unet.pth")
    for layout in ("dira", "smp"):
        with pytest.raises(ScanlearnError, match=f"is refused: '{absent}' is missing"):
            import_weights(tmp_path / "unet.pth", layout, tmp_path / "out")


def test_simsiam_and_barlow_come_in_to_the_bit_behind_their_wrappers(tmp_path):
    trunk = {name.removeprefix("encoder."): t for name, t in unet().items() if name.startswith("encoder.")}
    heads = {"simsiam": [n for n in simsiam() if ".fc." in n[0] or n[0].startswith("predictor")]}
    heads["barlow"] = [n for n in barlow() if not n[0].startswith("backbone")]
    thin = {2048: 32, 8192: 16, 512: 8}
    for layout, branch, key in (("simsiam", "encoder.", "state_dict"), ("barlow", "backbone.", "model")):
        whole = {f"module.{branch}{name}": tensor for name, tensor in trunk.items()}
        for name, shape in heads[layout]:
            whole[f"module.{name}"] = torch.rand(tuple(thin[size] for size in shape))
        torch.save({"epoch": 1, key: whole}, tmp_path / f"{layout}.pth.tar")
        account = import_weights(tmp_path / f"{layout}.pth.tar", layout, tmp_path / layout)
        assert (len(account.taken), len(account.aside)) == (120, len(heads[layout]))
        state = load_network(tmp_path / layout).encoder.state_dict()
        assert all(torch.equal(tensor, trunk[name]) for name, tensor in state.items())
        other = {"simsiam": "barlow", "barlow": "simsiam"}[layout]
        with pytest.raises(ScanlearnError, match=rf"try --layout {layout}\."):
            import_weights(tmp_path / f"{layout}.pth.tar", other, tmp_path / "other")


def test_most_names_decide_what_a_wrapper_is():
    names = [f"module.{name}" for name, _ in dira("checkpoint")]
    assert plain_names(names)[1] == ["module."]
