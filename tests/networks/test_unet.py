import math

import pytest
import torch
from torch.nn import functional

from networks.names import genesis_unet
from scanlearn.errors import ScanlearnError
from scanlearn.networks.network import build_network


def tiny(dims=2, **decoder):
    encoder = {"name": "unet", "width": 2, "spatial_dims": dims}
    return build_network({"encoder": encoder, "decoder": {"name": "unet", **decoder}})


@pytest.fixture(scope="module")
def published():
    return build_network({"encoder": "unet", "decoder": "unet"})


def test_tensors_are_those_of_the_published_file_in_its_order(published):
    state = published.published_state_dict()
    assert [(name, tuple(tensor.shape)) for name, tensor in state.items()] == genesis_unet()
    assert len(state) == 106 and len(published.encoder.state_dict()) == 56
    assert sum(p.numel() for p in published.parameters()) == 19_073_665


def test_nearest_upsampling_has_the_parameters_of_the_published_keras_network():
    with torch.device("meta"):
        network = build_network({"encoder": "unet", "decoder": {"name": "unet", "upsample": "nearest"}})
    assert sum(p.numel() for p in network.parameters()) == 16_320_257
    assert not [name for name in network.state_dict() if "up_conv" in name]


def test_initialisation_is_the_default_of_pytorch(published):
    for name, tensor in published.published_state_dict().items():
        if name.endswith(("conv1.weight", "final_conv.weight")):
            bound = 1 / math.sqrt(tensor[0].numel())
            assert 0.9 * bound < tensor.abs().max() <= bound, name
        elif ".bn1." in name:
            assert (tensor == (1 if name.endswith(("weight", "running_var")) else 0)).all()


def plain_forward(state, x, upsample, skips):
    """The published network in 2D with the tensors by name, batch statistics as in training."""

    def units(x, stem):
        for index in (0, 1):
            unit = f"{stem}.ops.{index}"
            x = functional.conv2d(x, state[f"{unit}.conv1.weight"], state[f"{unit}.conv1.bias"], padding=1)
            x = functional.batch_norm(
                x, None, None, state[f"{unit}.bn1.weight"], state[f"{unit}.bn1.bias"], training=True
            ).relu()
        return x

    maps = []
    for stem in ("down_tr64", "down_tr128", "down_tr256", "down_tr512"):
        x = units(functional.max_pool2d(x, 2) if maps else x, stem)
        maps.append(x)
    for stem, skip in zip(("up_tr256", "up_tr128", "up_tr64"), maps[-2::-1], strict=True):
        if upsample == "transpose":
            x = functional.conv_transpose2d(x, state[f"{stem}.up_conv.weight"], state[f"{stem}.up_conv.bias"], stride=2)
        else:
            x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        x = units(torch.cat([x, skip], 1) if skips else x, stem)
    return functional.conv2d(x, state["out_tr.final_conv.weight"], state["out_tr.final_conv.bias"])


@pytest.mark.parametrize("upsample", ["transpose", "nearest"])
@pytest.mark.parametrize("skips", [True, False])
def test_it_computes_what_the_paper_draws(upsample, skips):
    network = tiny(upsample=upsample, skips=skips).double()
    x = torch.rand(2, 1, 24, 16, dtype=torch.float64)
    state = network.published_state_dict()
    assert torch.allclose(network.restored(x), plain_forward(state, x, upsample, skips), atol=1e-10)


def test_without_skips_only_the_bottleneck_reaches_the_output():
    network = tiny(skips=False)
    maps = [m.detach().requires_grad_() for m in network.features(torch.rand(2, 1, 16, 16))]
    network.decoder(maps, (16, 16)).sum().backward()
    assert [m.grad is None for m in maps] == [True, True, True, False]


@pytest.mark.parametrize("size", [(24, 24, 24), (48, 48, 40)])
def test_sizes_divisible_by_8_work(size):
    assert tiny(dims=3).restored(torch.rand(2, 1, *size)).shape == (2, 1, *size)


def test_other_sizes_are_refused_with_one_sentence():
    with pytest.raises(ScanlearnError, match="divisible by 8, not 24 x 20"):
        tiny().restored(torch.rand(2, 1, 24, 20))


def test_always_batch_stats_normalises_by_the_batch_in_evaluation_and_changes_no_buffer():
    encoder = {"name": "unet", "width": 2, "spatial_dims": 2, "always_batch_stats": True}
    network = build_network({"encoder": encoder, "decoder": {"name": "unet", "always_batch_stats": True}})
    x = torch.rand(2, 1, 16, 16)
    trained = network.train().restored(x)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert torch.allclose(network.eval().restored(x), trained, atol=1e-6)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    plain = build_network({"encoder": {**encoder, "always_batch_stats": False}, "decoder": "unet"})
    plain.load_state_dict(network.state_dict())  # the same names
    assert not torch.allclose(plain.eval().restored(x), trained, atol=1e-3)


@pytest.mark.parametrize("always", [True, False])
def test_norm_eps_reaches_every_batch_norm_and_is_described(always):
    settings = {"norm_eps": 1e-3, "always_batch_stats": always}
    encoder = {"name": "unet", "width": 2, "spatial_dims": 2, **settings}
    network = build_network({"encoder": encoder, "decoder": {"name": "unet", **settings}})
    assert [part.eps for name, part in network.named_modules() if name.endswith("bn1")] == [1e-3] * 14
    assert network.encoder.describe()["norm_eps"] == network.decoder.describe()["norm_eps"] == 1e-3
    assert tiny().encoder.describe()["norm_eps"] == 1e-5


def test_the_decoder_refuses_an_encoder_that_it_does_not_fit():
    with pytest.raises(ScanlearnError, match="use the decoder 'unet_blocks'"):
        build_network({"encoder": {"name": "resnet18", "width": 2}, "decoder": "unet"})
    with pytest.raises(ScanlearnError, match="did you mean 'nearest'"):
        tiny(upsample="neares")
