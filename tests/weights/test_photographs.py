"""torchvision, MoCo and C2L: their published files, built from the rules of their names, come in whole or not at all."""

import argparse

import numpy as np
import pytest
import torch

from networks.names import resnet, torchvision_densenet
from scanlearn.errors import ScanlearnError
from scanlearn.networks.encoder import build_encoder
from scanlearn.networks.resnet import LAYOUTS as DEPTHS
from scanlearn.weights.encoder import load_network, read_card
from scanlearn.weights.layouts import import_weights
from scanlearn.weights.layouts.account import faults
from scanlearn.weights.layouts.layout import LAYOUTS, blank
from scanlearn.weights.layouts.trunks import common_prefix

BASIC = ("resnet10", "resnet18", "resnet34")


def plan_of(layout, tensors):
    """The plan for tensors of these names and shapes, and what keeps them from fitting it."""
    shapes = dict(tensors)
    plan = LAYOUTS.get(layout)(shapes)
    values = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    return plan, faults(plan, blank(plan.network).state_dict(), values)


def under(prefix, tensors):
    return [(prefix + name, shape) for name, shape in tensors]


def linear(stem, outside, inside):
    return [(f"{stem}.weight", (outside, inside)), (f"{stem}.bias", (outside,))]


def old(tensors):
    """As DenseNets were spelt before PyTorch 0.4, and without counters, which were not there yet."""
    swaps = {"norm1.": "norm.1.", "norm2.": "norm.2.", "conv1.": "conv.1.", "conv2.": "conv.2."}
    found = []
    for name, shape in tensors:
        for now, then in swaps.items():
            name = name.replace(now, then) if "denselayer" in name else name
        found += [] if name.endswith("tracked") else [(name, shape)]
    return found


# ---------------------------------------------------------------- the published lists


@pytest.mark.parametrize("name", sorted(set(DEPTHS) - {"resnet10", "resnet200"}))
def test_every_resnet_of_torchvision_is_known_by_its_tensors(name):
    kind, blocks, _ = DEPTHS[name]
    tensors = resnet(blocks, kind == "bottleneck")
    plan, found = plan_of("torchvision", [*tensors, *linear("fc", 1000, 512 if name in BASIC else 2048)])
    assert not found and len(plan.names) == len(tensors)
    encoder = plan.network["encoder"]
    assert (encoder["name"], encoder["width"], encoder["in_channels"]) == (name, 64, 3)
    assert encoder["normalise"] == {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def test_the_densenet_of_torchvision_is_known_in_both_spellings():
    tensors = [*torchvision_densenet(), *linear("classifier", 1000, 1024)]
    assert len(tensors) == 727
    for spelt, count in ((tensors, 727), (old(tensors), 606)):
        plan, found = plan_of("torchvision", spelt)
        assert not found and len(spelt) == count and plan.aside_is == "head for 1000 classes"
        assert set(plan.names.values()) == {f"encoder.{name}" for name, _ in torchvision_densenet()}
    names = dict(old(tensors))
    assert names["features.denseblock4.denselayer16.norm.2.running_var"] == (128,)
    assert names["features.denseblock1.denselayer1.conv.1.weight"] == (128, 64, 1, 1)
    assert plan.names["features.denseblock1.denselayer1.conv.1.weight"].endswith("denselayer1.conv1.weight")


def test_two_spellings_in_one_file_are_refused():
    tensors = dict(torchvision_densenet())
    tensors["features.denseblock1.denselayer1.norm.1.weight"] = tensors.pop(
        "features.denseblock1.denselayer1.norm1.weight"
    )
    assert plan_of("torchvision", tensors.items())[1]


def test_moco_v1_and_v2_are_known_as_published_and_as_the_training_saves_them():
    trunk = resnet([3, 4, 6, 3], True)
    heads = {"v1": linear("fc", 128, 2048), "v2": [*linear("fc.0", 2048, 2048), *linear("fc.2", 128, 2048)]}
    queue = [("queue", (128, 65536)), ("queue_ptr", (1,))]
    for version, head in heads.items():
        query, key = (under(prefix, [*trunk, *head]) for prefix in ("encoder_q.", "encoder_k."))
        for tensors in (query, [*queue, *query, *key]):
            plan, found = plan_of("moco", tensors)
            assert not found and f"MoCo {version}, resnet50" in plan.title
            assert len(plan.names) == 318 and len(plan.names) + len(plan.aside) == len(tensors)
            assert ("queue" in plan.aside_is) == (tensors is not query)
    assert len(query) == 322  # v2, as in its checkpoints
    assert plan_of("moco", [*query, *key[1:]])[1] == ["'encoder_k.conv1.weight' is missing (64x3x7x7)"]
    assert plan_of("moco", [*query, queue[0]])[1] == ["'queue_ptr' is missing (1)"]


@pytest.mark.parametrize("wrapped", ["encoder.module.", "module.encoder.", "encoder.", ""])
def test_c2l_resnets_are_known_behind_every_wrapper(wrapped):
    tensors = under(wrapped, [*resnet([2, 2, 2, 2], False), *linear("fc", 128, 512)])
    plan, found = plan_of("c2l", tensors)
    assert not found and (len(tensors), len(plan.names)) == (122, 120) and "resnet18" in plan.title
    assert list(plan.aside) == [f"{wrapped}fc.weight", f"{wrapped}fc.bias"]


def test_c2l_densenet_is_known():
    tensors = under("densenet121.module.", [*torchvision_densenet(), *linear("classifier", 128, 1024)])
    plan, found = plan_of("c2l", tensors)
    assert not found and (len(tensors), len(plan.names)) == (727, 725) and "densenet121" in plan.title


def test_a_prefix_is_made_of_the_pieces_that_most_names_have():
    names = ["encoder.module.conv1.weight", "encoder.module.fc.bias", "module.x"]
    assert common_prefix(names, ["module.", "encoder."]) == "encoder.module."
    assert common_prefix(names[1:], ["module.", "encoder."]) == common_prefix([], ["module."]) == ""


# ---------------------------------------------------------------- files


def made(description, **more):
    """A trained trunk's tensors under torchvision's names, and others with random values."""
    encoder = build_encoder({"spatial_dims": 2, "in_channels": 3, **description})
    with torch.no_grad():
        for tensor in encoder.state_dict().values():
            tensor.uniform_(0.1, 1) if tensor.is_floating_point() else tensor.fill_(7)
    whole = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    return whole | {name.replace("__", "."): torch.rand(shape) for name, shape in more.items()}


THIN = {"name": "resnet18", "width": 4}
DENSE = {"name": "densenet121", "width": 4}
HEAD = {"fc.weight": (128, 32), "fc.bias": (128,)}


def c2l_file(tensors):
    """As the authors' training saves it: settings of the command line, both networks, the queue."""
    settings = argparse.Namespace(model="resnet18", nce_k=16384, crop=0.2, gpu=None)
    both = {f"encoder.module.{name}": tensor for name, tensor in tensors.items()}
    contrast = {"params": torch.tensor([-1]), "memory": torch.rand(8, 128)}
    return {"opt": settings, "model": both, "model_ema": both, "contrast": contrast, "optimizer": {}, "epoch": 120}


def moco_file(tensors):
    whole = {f"module.encoder_{which}.{name}": tensor.clone() for which in "qk" for name, tensor in tensors.items()}
    whole |= {"module.queue": torch.rand(128, 16), "module.queue_ptr": torch.zeros(1, dtype=torch.int64)}
    return {"epoch": 200, "arch": "resnet18", "state_dict": whole, "optimizer": {"state": {}, "param_groups": []}}


CASES = [
    pytest.param("torchvision", lambda tensors: tensors, "layer3.1.bn2.running_var", 122, id="torchvision"),
    pytest.param("moco", moco_file, "layer2.0.downsample.0.weight", 246, id="moco"),
    pytest.param("c2l", c2l_file, "layer4.1.conv2.weight", 122, id="c2l"),
]


@pytest.mark.parametrize(("layout", "wrap", "name", "count"), CASES)
def test_a_file_comes_in_to_the_bit_with_its_head_aside_and_its_terms(layout, wrap, name, count, tmp_path, capsys):
    tensors = made(THIN, **HEAD)
    torch.save(wrap(tensors), tmp_path / "file.pth")
    account = import_weights(tmp_path / "file.pth", layout, tmp_path / "out")
    assert (account.facts()["tensors"], len(account.taken), account.dropped) == (count, 120, [])
    assert "Set aside" in capsys.readouterr().err
    network = load_network(tmp_path / "out")
    state = network.encoder.state_dict()
    assert len(state) == 120 and all(torch.equal(tensor, tensors[name]) for name, tensor in state.items())
    notes = read_card(tmp_path / "out")["notes"]
    assert notes["input_size"] == [224, 224] and "Terms of these weights" in notes["licence_notice"]
    grey = torch.rand(1, 1, 32, 32)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    assert torch.allclose(network.encoder.prepared(grey), (grey - mean) / std)


def test_c2l_takes_the_student_and_names_what_lies_beside_it(tmp_path):
    tensors = made(THIN, **HEAD)
    content = c2l_file(tensors)
    content["model_ema"] = {name: torch.zeros_like(tensor) for name, tensor in content["model"].items()}
    torch.save(content, tmp_path / "current.pth")
    account = import_weights(tmp_path / "current.pth", "c2l", tmp_path / "out")
    assert account.beside == ["opt", "model_ema", "contrast", "optimizer", "epoch"]
    assert torch.equal(load_network(tmp_path / "out").encoder.conv1.weight, tensors["conv1.weight"])


def test_moco_takes_the_query_encoder(tmp_path):
    content = moco_file(made(THIN, **HEAD))
    content["state_dict"] = {
        name: torch.zeros_like(tensor) if "encoder_k" in name else tensor
        for name, tensor in content["state_dict"].items()
    }
    torch.save(content, tmp_path / "file.pth.tar")
    account = import_weights(tmp_path / "file.pth.tar", "moco", tmp_path / "out")
    assert all(name.startswith("module.encoder_q.") for name in account.taken)
    assert load_network(tmp_path / "out").encoder.conv1.weight.abs().min() > 0


def test_an_old_densenet_comes_in_to_the_bit(tmp_path):
    tensors = made(DENSE)
    renamed = dict(zip([n for n, _ in old(tensors.items())], [t for _, t in old(tensors.items())], strict=True))
    assert "features.denseblock1.denselayer1.norm.1.weight" in renamed
    torch.save(renamed, tmp_path / "densenet121.pth")
    account = import_weights(tmp_path / "densenet121.pth", "torchvision", tmp_path / "out")
    state = load_network(tmp_path / "out").encoder.state_dict()
    assert (len(account.taken), account.uncounted) == (604, 121)
    assert all(torch.equal(t, tensors[name]) for name, t in state.items() if not name.endswith("tracked"))


@pytest.mark.parametrize(("layout", "wrap", "name", "count"), CASES)
def test_a_missing_an_extra_and_a_misshapen_tensor_are_refused_by_name(layout, wrap, name, count, tmp_path):
    whole = made(THIN, **HEAD)
    lacking = {key: tensor for key, tensor in whole.items() if key != name}
    for tensors, message in (
        (lacking, f"{name}' is missing"),
        (whole | {name: whole[name][1:]}, f"{name}' is .* where .* is needed"),
        (whole | {"layer9.weight": torch.zeros(2)}, "layer9.weight' .* is none of its tensors"),
        ({key: tensor for key, tensor in whole.items() if key != "fc.bias"}, "fc.bias' is missing"),
    ):
        torch.save(wrap(tensors), tmp_path / "file.pth")
        with pytest.raises(ScanlearnError, match=f"is refused: .*{message}"):
            import_weights(tmp_path / "file.pth", layout, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_each_is_told_from_the_others(tmp_path):
    content = {
        "c2l": c2l_file(made(THIN, **HEAD)),
        "moco": moco_file(made(THIN, **HEAD)),
        "torchvision": made(THIN, **{"fc.weight": (1000, 32), "fc.bias": (1000,)}),
    }
    for layout, file in content.items():
        torch.save(file, tmp_path / f"{layout}.pth")
        for other in content.keys() - {layout}:
            with pytest.raises(ScanlearnError, match=rf"try --layout {layout}\."):
                import_weights(tmp_path / f"{layout}.pth", other, tmp_path / "out")


def test_a_densenet_of_odd_width_is_refused_by_name(tmp_path):
    tensors = made(DENSE)
    tensors |= {f"features.norm0.{n}": torch.rand(5) for n in ("weight", "bias", "running_mean", "running_var")}
    torch.save(tensors, tmp_path / "file.pth")
    with pytest.raises(ScanlearnError, match=r"'features\.norm0\.weight' is 5 where 4 is needed"):
        import_weights(tmp_path / "file.pth", "torchvision", tmp_path / "out")


def test_settings_of_a_command_line_are_read_without_running_anything(tmp_path):
    class Runs(argparse.Namespace):
        def __reduce__(self):
            return (print, ("the file ran its code",))

    content = c2l_file(made(THIN, **HEAD))
    content["opt"] = argparse.Namespace(inner=Runs())
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(ScanlearnError, match="code would run"):
        import_weights(tmp_path / "file.pth", "c2l", tmp_path / "out")


def test_the_imported_resnet_computes_what_the_published_one_does(tmp_path):
    from torch.nn import functional as F

    tensors = made(THIN, **HEAD)
    tensors = {n: t if n.endswith("tracked") else t * (0.1 if "conv" in n else 1.0) for n, t in tensors.items()}
    torch.save(tensors, tmp_path / "file.pth")
    import_weights(tmp_path / "file.pth", "torchvision", tmp_path / "out")

    def unit(x, conv, norm, stride, padding):
        parts = [tensors[f"{norm}.{n}"] for n in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(F.conv2d(x, tensors[f"{conv}.weight"], stride=stride, padding=padding), *parts)

    x = torch.rand(2, 1, 64, 48)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    out = F.max_pool2d(unit((x - mean) / std, "conv1", "bn1", 2, 3).relu(), 3, 2, 1)
    for stage, block in np.ndindex(4, 2):
        stem, stride = f"layer{stage + 1}.{block}", 2 if stage and not block else 1
        past = unit(out, f"{stem}.downsample.0", f"{stem}.downsample.1", 2, 0) if stride == 2 else out
        inside = unit(out, f"{stem}.conv1", f"{stem}.bn1", stride, 1).relu()
        out = (unit(inside, f"{stem}.conv2", f"{stem}.bn2", 1, 1) + past).relu()
    ours = load_network(tmp_path / "out").eval().features(x)[-1]
    assert torch.allclose(ours, out, rtol=1e-4)
