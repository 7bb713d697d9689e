"""MONAI's SegResNet: every tensor is taken and the outputs are MONAI's, or the file is refused by name."""

import pytest
import torch
from monai.networks.nets import SegResNet

from scanlearn.errors import ScanlearnError
from scanlearn.weights.encoder import load_network, read_card
from scanlearn.weights.layouts import import_weights
from scanlearn.weights.layouts.account import faults
from scanlearn.weights.layouts.layout import LAYOUTS, blank


def segresnet(dims=3, **settings):
    network = SegResNet(dims, **{"init_filters": 8, "in_channels": 2, "out_channels": 3, **settings})
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.copy_(torch.randn_like(tensor) * 0.2)
    return network.eval()


@pytest.mark.parametrize(
    ("dims", "blocks", "width"), [(3, (1, 2), 8), (2, (2, 1, 3), 16)], ids=["3D, two levels", "2D, three levels"]
)
def test_it_comes_in_whole_and_gives_monais_outputs(tmp_path, dims, blocks, width):
    up = (1,) * (len(blocks) - 1)
    theirs = segresnet(dims, blocks_down=blocks, blocks_up=up, init_filters=width, dropout_prob=0.2)
    torch.save({"state_dict": theirs.state_dict()}, tmp_path / "model.pt")
    account = import_weights(tmp_path / "model.pt", "monai_segresnet", tmp_path / "out")
    assert len(account.taken) == len(theirs.state_dict()) and not account.aside and not account.dropped
    ours = load_network(tmp_path / "out").eval()
    assert [len(level) - (at > 0) for at, level in enumerate(ours.encoder.levels)] == list(blocks)
    assert ours.encoder.channels[0] == width
    x = torch.rand(2, 2, *[16] * dims)
    with torch.no_grad():
        torch.testing.assert_close(ours.restored(x), theirs(x), atol=1e-5, rtol=1e-5)
    assert read_card(tmp_path / "out")["notes"]["licence_notice"].startswith("Terms of these weights")


def plan_of(tensors):
    plan = LAYOUTS.get("monai_segresnet")({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    return plan, faults(plan, blank(plan.network).state_dict(), tensors)


def test_the_published_depth_has_83_tensors_and_all_are_known():
    with torch.device("meta"):
        tensors = SegResNet(3, 32, 4, 6).state_dict()
    plan, found = plan_of(tensors)
    assert not found and len(plan.names) == len(tensors) == 83
    assert set(plan.names.values()) == set(blank(plan.network).state_dict())
    assert plan.network["encoder"]["blocks"] == [1, 2, 2, 4]


@pytest.mark.parametrize("at", [0, 1, 5, 20, -1])
def test_one_absent_tensor_refuses_the_file_by_its_name(at):
    tensors = segresnet(blocks_down=(1, 2, 2), blocks_up=(1, 1)).state_dict()
    name = list(tensors)[at]
    del tensors[name]
    (fault,) = plan_of(tensors)[1]
    assert fault.startswith(f"{name!r} is missing")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"blocks_up": (2, 1)}, "'up_layers.0.1.norm1.weight' (16) is none of its tensors"),
        ({"upsample_mode": "deconv"}, "up_samples.0.1"),
        ({"init_filters": 12, "num_groups": 4, "norm": ("GROUP", {"num_groups": 4})}, "is 12 where 8 is needed"),
    ],
)
def test_other_networks_of_the_kind_are_refused_by_name(tmp_path, settings, told):
    tensors = segresnet(**{"blocks_down": (1, 2, 2), "blocks_up": (1, 1), **settings}).state_dict()
    torch.save(tensors, tmp_path / "model.pt")
    assert any(told in fault for fault in plan_of(tensors)[1])
    with pytest.raises(ScanlearnError, match="is refused"):
        import_weights(tmp_path / "model.pt", "monai_segresnet", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_files_of_others_are_refused_and_told_apart(tmp_path):
    torch.save(segresnet(blocks_down=(1, 1), blocks_up=(1,)).state_dict(), tmp_path / "model.pt")
    with pytest.raises(ScanlearnError, match=r"try --layout monai_segresnet\."):
        import_weights(tmp_path / "model.pt", "smp", tmp_path / "out")
    assert plan_of({})[1]
