"""MedicalNet and I3D: their published files, built from the rules of their names, come in whole or not at all."""

import json

import numpy as np
import pytest
import torch

from networks.names import i3d, resnet
from scanlearn.errors import ScanlearnError
from scanlearn.networks.encoder import build_encoder
from scanlearn.networks.resnet import LAYOUTS as DEPTHS
from scanlearn.scans.prepare import prepare
from scanlearn.tasks.finetune import finetune
from scanlearn.weights.encoder import load_network, read_card
from scanlearn.weights.layouts import import_weights
from scanlearn.weights.layouts.account import faults
from scanlearn.weights.layouts.layout import LAYOUTS, blank

ACTIONS = {"logits.conv3d.weight": (400, 1024, 1, 1, 1), "logits.conv3d.bias": (400,)}
MEDICALNET = {"name": "resnet10", "spatial_dims": 3, "width": 4, "dilated": True}
I3D = {"name": "i3d", "spatial_dims": 3, "width": 8}


def plan_of(layout, tensors):
    """The plan for tensors of these names and shapes, and what keeps them from fitting it."""
    shapes = dict(tensors)
    plan = LAYOUTS.get(layout)(shapes)
    values = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    return plan, faults(plan, blank(plan.network).state_dict(), values)


@pytest.mark.parametrize("name", DEPTHS)
def test_every_published_medicalnet_is_known_by_its_tensors(name):
    block, blocks, _ = DEPTHS[name]
    shortcut = "A" if name in ("resnet18", "resnet34") else "B"
    tensors = resnet(blocks, block == "bottleneck", 1, 3, shortcut)
    plan, found = plan_of("medicalnet", tensors)
    assert not found and len(plan.names) == len(tensors)
    encoder = plan.network["encoder"]
    assert (encoder["name"], encoder["shortcut"], encoder["dilated"], encoder["width"]) == (name, shortcut, True, 64)


def test_the_published_i3d_is_known_with_its_head():
    plan, found = plan_of("i3d", [*i3d(), *ACTIONS.items()])
    assert not found and (len(plan.names), plan.aside_is) == (342, "head for 400 actions")
    assert plan_of("i3d", i3d())[1] == []
    assert plan_of("i3d", i3d(in_channels=2))[1] == [
        "'Conv3d_1a_7x7.conv3d.weight' is 64x2x7x7x7 where 64x3x7x7x7 is needed"
    ]


def made(description, **more):
    """A trained network's tensors under the published names, as old PyTorch saved them: without counters."""
    encoder = build_encoder(description)
    with torch.no_grad():
        for tensor in encoder.state_dict().values():
            tensor.uniform_(0.1, 1) if tensor.is_floating_point() else tensor.fill_(7)
    whole = {name: tensor.clone() for name, tensor in encoder.state_dict().items() if not name.endswith("tracked")}
    return whole | {name: torch.rand(shape) for name, shape in more.items()}


def conv_seg(below, classes):
    norms = {
        f"conv_seg.{n}.{part}": (32,) for n in (1, 4) for part in ("weight", "bias", "running_mean", "running_var")
    }
    convolutions = {"conv_seg.0.weight": (below, 32, 2, 2, 2), "conv_seg.3.weight": (32, 32, 3, 3, 3)}
    return convolutions | norms | {"conv_seg.0.bias": (32,), "conv_seg.6.weight": (classes, 32, 1, 1, 1)}


def test_a_medicalnet_file_comes_in_to_the_bit_its_head_is_set_aside_and_its_terms_are_kept(tmp_path, capsys):
    tensors = made(MEDICALNET, **conv_seg(32, 3))
    wrapped = {f"module.{name}": tensor for name, tensor in tensors.items()}
    torch.save({"ecpoch": 3, "state_dict": wrapped, "optimeizer": {}}, tmp_path / "resnet_10.pth")
    account = import_weights(tmp_path / "resnet_10.pth", "medicalnet", tmp_path / "out")
    trunk = {name: tensor for name, tensor in tensors.items() if not name.startswith("conv_seg")}
    assert len(account.taken) == len(trunk) == 60 and len(account.aside) == 12 and not account.dropped
    said = capsys.readouterr().err
    assert "All 72 tensors" in said and "head for 3 classes" in said and "12 counters" in said
    assert "MIT licence" in said and "anew with --store" in said
    assert "MIT licence" in read_card(tmp_path / "out")["notes"]["licence_notice"]
    encoder = load_network(tmp_path / "out").encoder
    assert (encoder.name, encoder.strides) == ("resnet10", [2, 4, 8, 8, 8])
    assert all(torch.equal(encoder.state_dict()[name], tensor) for name, tensor in trunk.items())


def test_an_i3d_file_comes_in_to_the_bit_and_sees_grey_scans_as_video_between_minus_one_and_one(tmp_path):
    tensors = made(I3D, **{"logits.conv3d.weight": (400, 128, 1, 1, 1), "logits.conv3d.bias": (400,)})
    torch.save(tensors, tmp_path / "rgb_imagenet.pt")
    account = import_weights(tmp_path / "rgb_imagenet.pt", "i3d", tmp_path / "out")
    assert len(account.taken) == 342 - 57 and account.aside == ["logits.conv3d.weight", "logits.conv3d.bias"]
    encoder = load_network(tmp_path / "out").encoder
    assert all(torch.equal(encoder.state_dict()[n], t) for n, t in tensors.items() if not n.startswith("logits"))
    grey = torch.rand(1, 1, 8, 8, 8)
    assert torch.allclose(encoder.prepared(grey), (2 * grey - 1).expand(1, 3, 8, 8, 8), atol=1e-6)


CASES = [
    pytest.param("medicalnet", MEDICALNET, "layer3.0.conv2.weight", id="medicalnet"),
    pytest.param("medicalnet", {**MEDICALNET, "name": "resnet50"}, "layer3.5.bn3.running_var", id="medicalnet50"),
    pytest.param("medicalnet", {**MEDICALNET, "name": "resnet18", "shortcut": "A"}, "conv1.weight", id="medicalnet18"),
    pytest.param("i3d", I3D, "Mixed_4e.b1b.conv3d.weight", id="i3d"),
]


@pytest.mark.parametrize(("layout", "description", "name"), CASES)
def test_a_missing_an_extra_and_a_misshapen_tensor_are_refused_by_name(layout, description, name, tmp_path):
    whole = made(description)
    lacking = {key: tensor for key, tensor in whole.items() if key != name}
    misshapen = whole | {name: whole[name][1:]}
    for tensors, message in (
        (lacking, f"'{name}' is missing"),
        (misshapen, f"'{name}' is .* where .* is needed"),
        (whole | {"layer9.weight": torch.zeros(2)}, "'layer9.weight' .* is none of its tensors"),
    ):
        torch.save(tensors, tmp_path / "file.pth")
        with pytest.raises(ScanlearnError, match=f"is refused: {message}") as error:
            import_weights(tmp_path / "file.pth", layout, tmp_path / "out")
        assert "more" not in str(error.value) and not (tmp_path / "out").exists()


def test_half_a_head_is_refused(tmp_path):
    tensors = made(MEDICALNET, **conv_seg(32, 3))
    del tensors["conv_seg.4.bias"]
    torch.save(tensors, tmp_path / "file.pth")
    with pytest.raises(ScanlearnError, match=r"'conv_seg\.4\.bias' is missing \(32\); nothing was written"):
        import_weights(tmp_path / "file.pth", "medicalnet", tmp_path / "out")


def test_one_file_is_told_from_the_other(tmp_path):
    torch.save(made(I3D), tmp_path / "file.pt")
    with pytest.raises(ScanlearnError, match="try --layout i3d"):
        import_weights(tmp_path / "file.pt", "medicalnet", tmp_path / "out")


def test_batch_norm_undoes_the_scale_that_medicalnet_was_trained_at():
    # Which is why fine-tuning, or running statistics of one's own scans, make up for a deviation other than 1.
    plain, scaled = (build_encoder({**MEDICALNET, "normalise": n}) for n in (None, {"mean": [0.0], "std": [0.25]}))
    scaled.load_state_dict(plain.state_dict())
    x = torch.rand(2, 1, 32, 32, 16)
    for ours, expected in zip(plain(x), scaled(x), strict=True):
        assert torch.allclose(ours, expected, atol=2e-3)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Volumes with a label and a mask."""
    folder = tmp_path_factory.mktemp("volumes")
    image = np.random.default_rng(0).integers(0, 255, (16, 20, 20, 20), dtype=np.uint8)
    np.savez(folder / "v.npz", image=image, mask=(image > 200).astype(np.uint8), label=np.arange(16) % 2)
    return prepare(folder / "v.npz", folder / "store", workers=1)


@pytest.mark.parametrize("layout", ["medicalnet", "i3d"])
def test_finetuning_starts_from_them_to_classify_and_to_segment(layout, store, tmp_path, capsys):
    torch.save(made(MEDICALNET if layout == "medicalnet" else I3D), tmp_path / "file.pth")
    import_weights(tmp_path / "file.pth", layout, tmp_path / "weights")
    settings = {"steps": 1, "batch_size": 2, "precision": "32-true", "size": [16, 16, 16]}
    given = {"mean": [0.4], "std": [0.25]} if layout == "medicalnet" else {"mean": [0.2] * 3, "std": [0.1] * 3}
    slim = {"network.decoder": {"name": "unet_blocks", "channels": [8, 8, 4, 4, 4]}}
    for task, more in (("classify", {"target": "label"}), ("segment", {})):
        changed = {**settings, "network.encoder.normalise": given, **(slim if task == "segment" else {})}
        finetune(store, task, init=tmp_path / "weights", out=tmp_path / task, settings=changed, **more)
        said = capsys.readouterr().err
        tensors = len(load_network(tmp_path / task).encoder.state_dict())
        assert f"{tensors} of {tensors} encoder tensors" in said and "Set otherwise than in the file: normalise" in said
        card = json.loads((tmp_path / task / "encoder" / "encoder.json").read_text())
        assert card["network"]["encoder"]["normalise"] == given
        assert (card["network"]["decoder"] or {}).get("name") == (None if task == "classify" else "unet_blocks")
