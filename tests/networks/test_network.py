import json

import pytest
import torch

from scanlearn.errors import ScanlearnError
from scanlearn.networks.decoder import DECODERS, build_decoder
from scanlearn.networks.network import Network, build_network

UNET = {"name": "unet", "width": 2, "spatial_dims": 2}


@pytest.mark.parametrize("decoder", DECODERS.names())
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("channels", [1, 3])
def test_contract_of_every_decoder(decoder, dims, channels):
    encoder = {**UNET, "spatial_dims": dims, "in_channels": channels}
    network = build_network({"encoder": encoder, "decoder": {"name": decoder, "out_channels": 2}})
    x = torch.rand(2, channels, *[16] * dims)
    aside = {}
    output = network.decoder(network.features(x), x.shape[2:], *[aside] * bool(network.decoder.aside))
    assert output.shape == (2, 2, *[16] * dims) and list(aside) == list(network.decoder.aside)
    sum((part * torch.randn_like(part)).sum() for part in [output, *aside.values()]).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert network.restored(x).isfinite().all()

    again = build_network(json.loads(json.dumps(network.describe())))
    assert again.describe() == network.describe()
    again.load_state_dict(network.state_dict())
    assert torch.equal(network.eval().restored(x), again.eval().restored(x))


@pytest.mark.parametrize("decoder", [None, *DECODERS.names()])
def test_published_names_cover_every_tensor_once(decoder):
    network = build_network({"encoder": UNET, "decoder": decoder})
    names = network.published_names()
    assert sorted(names.values()) == sorted(network.state_dict())
    published = network.published_state_dict()
    assert all(published[theirs].data_ptr() == network.state_dict()[ours].data_ptr() for theirs, ours in names.items())


def test_pooled_is_the_global_average_of_the_coarsest_map():
    network = build_network({"encoder": UNET})
    x = torch.rand(3, 1, 16, 24)
    pooled = network.eval().pooled(x)
    assert pooled.shape == (3, network.encoder.num_features)
    assert torch.allclose(pooled, network(x)[-1].mean((2, 3)))


def test_output_channels_are_the_input_channels_unless_said_otherwise():
    network = build_network({"encoder": {**UNET, "in_channels": 3}, "decoder": "unet"})
    assert network.decoder.out_channels == 3
    assert build_decoder("unet", network.encoder, 5).out_channels == 5
    assert build_decoder({"name": "unet", "out_channels": 4}, network.encoder, 5).out_channels == 4


def test_normalise_beside_the_encoder_is_the_encoders():
    statistics = {"mean": [0.5], "std": [0.2]}
    network = build_network({"encoder": UNET, "normalise": statistics})
    assert network.encoder.describe()["normalise"] == statistics
    x = torch.rand(2, 1, 16, 16)
    assert torch.allclose(network.encoder.prepared(x), (x - 0.5) / 0.2)
    assert build_network(network.describe()).describe() == network.describe()


def test_wrong_use_is_refused_with_one_sentence():
    network = build_network({"encoder": UNET})
    with pytest.raises(ScanlearnError, match="no decoder"):
        network.restored(torch.rand(1, 1, 16, 16))
    with pytest.raises(ScanlearnError, match="at least 1 output channel"):
        build_decoder("unet", network.encoder, 0)
    with pytest.raises(ScanlearnError, match="did you mean 'unet_blocks'"):
        build_decoder("unet_block", network.encoder, 1)
    assert Network(network.encoder).describe()["decoder"] is None
