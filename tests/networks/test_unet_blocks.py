import math

import pytest
import torch
from torch.nn import functional

from networks.names import dira_unet
from scanlearn.errors import ScanlearnError
from scanlearn.networks.encoder import ENCODERS
from scanlearn.networks.network import build_network


def tiny(name, dims=2, channels=None, out_channels=2):
    encoder = {"name": name, "width": 4, "spatial_dims": dims}
    maps = {"unet": 4, "conv4": 4, "segres": 4, "nnunet": 6}.get(name, 5)
    decoder = {"name": "unet_blocks", "channels": channels or [4] * maps, "out_channels": out_channels}
    return build_network({"encoder": encoder, "decoder": decoder})


@pytest.fixture(scope="module")
def published():
    encoder = {"name": "resnet50", "in_channels": 3}
    return build_network({"encoder": encoder, "decoder": {"name": "unet_blocks", "out_channels": 1}})


def test_tensors_are_those_of_the_published_file_in_its_order(published):
    got = [(name, tuple(tensor.shape)) for name, tensor in published.published_state_dict().items()]
    assert got == dira_unet() and len(got) == 380
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in published.decoder.named_children()}
    assert counts == {"blocks": 9_012_928, "segmentation_head": 145}
    assert sum(p.numel() for p in published.encoder.parameters()) == 23_508_032


def test_initialisation_is_kaiming_uniform_and_xavier_for_the_head(published):
    state = published.decoder.state_dict()
    for name, tensor in state.items():
        if name.startswith("blocks") and tensor.ndim == 4:
            bound = math.sqrt(6 / tensor[0].numel())
            assert 0.97 * bound < tensor.abs().max() <= bound, name
    head = state["segmentation_head.0.weight"]
    bound = math.sqrt(6 / (head[0].numel() + head[:, 0].numel()))
    assert 0.9 * bound < head.abs().max() <= bound
    assert state["segmentation_head.0.bias"] == 0


def test_it_computes_what_the_paper_draws():
    network = tiny("resnet18").double()
    x = torch.rand(2, 1, 64, 32, dtype=torch.float64)
    maps, state = network.features(x), network.decoder.state_dict()
    y = maps[-1]
    for block, skip in enumerate([*maps[-2::-1], None]):
        y = y.repeat_interleave(2, 2).repeat_interleave(2, 3)
        y = y if skip is None else torch.cat([y, skip], 1)
        for conv in ("conv1", "conv2"):
            stem = f"blocks.{block}.{conv}"
            y = functional.conv2d(y, state[f"{stem}.0.weight"], padding=1)
            y = functional.batch_norm(y, None, None, state[f"{stem}.1.weight"], state[f"{stem}.1.bias"], True).relu()
    expected = functional.conv2d(y, state["segmentation_head.0.weight"], state["segmentation_head.0.bias"], padding=1)
    assert torch.allclose(network.decoder(maps, x.shape[2:]), expected, atol=1e-10)


@pytest.mark.parametrize("name", ENCODERS.names())
@pytest.mark.parametrize("size", [(37, 61), (41, 33, 35)])
def test_odd_sizes_come_back_as_they_were_from_every_encoder(name, size):
    network = tiny(name, len(size))
    output = network.restored(torch.rand(2, 1, *size))
    assert output.shape == (2, 2, *size)
    output.mean().backward()
    still = [n for n, p in network.decoder.named_parameters() if p.grad is None]
    assert not still


def test_stems_at_the_resolution_of_the_image_are_not_upsampled_twice():
    encoder = {"name": "resnet18", "width": 4, "stem": "small"}
    network = build_network({"encoder": encoder, "decoder": {"name": "unet_blocks", "channels": [8, 8, 4, 4, 4]}})
    assert network.restored(torch.rand(2, 1, 21, 32)).shape == (2, 1, 21, 32)


def test_channels_follow_the_number_of_maps():
    encoder = {"name": "unet", "width": 2, "spatial_dims": 2}
    network = build_network({"encoder": encoder, "decoder": "unet_blocks"})
    assert network.decoder.describe()["channels"] == [128, 64, 32, 16]
    with pytest.raises(ScanlearnError, match="needs 4 channels, one for each map of the encoder 'unet'"):
        build_network({"encoder": encoder, "decoder": {"name": "unet_blocks", "channels": [8, 8]}})
