import pytest
import torch
from torch import nn

from scanlearn.networks.conv import Conv3d, trusted
from scanlearn.networks.network import build_network


def poison():
    """Leave values that are not finite in memory that will be handed out again."""
    [torch.full((size,), float("nan"), dtype=torch.bfloat16) for size in (64, 256, 1024, 4096, 16384, 65536) * 4]


def gradient(conv, shape):
    torch.manual_seed(0)
    x = torch.randn(2, conv.in_channels, *shape)
    poison()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = conv(x)
    poison()
    conv.zero_grad()
    y.backward(torch.randn(y.shape).to(y.dtype))
    return conv.weight.grad


@pytest.mark.parametrize("shape", [(2, 2, 2), (2, 4, 4)])
def test_the_gradient_of_weights_on_a_map_of_depth_two_is_that_of_float32(shape):
    # With nn.Conv3d about a fifth of such gradients are not finite, and others are wrong without showing it.
    conv = Conv3d(48, 48, 3, padding=1)
    torch.manual_seed(0)
    x = torch.randn(2, 48, *shape)
    y = conv(x)
    y.backward(torch.randn(y.shape))
    expected = conv.weight.grad.clone()
    for _ in range(30):
        torch.testing.assert_close(gradient(conv, shape), expected)


def test_larger_maps_are_computed_in_short_precision_as_before():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert Conv3d(4, 4, 3, padding=1)(torch.randn(1, 4, 4, 4, 4)).dtype == torch.bfloat16


@pytest.mark.parametrize(
    "encoder, decoder",
    [("unet", "unet"), ("resnet18", "unet_blocks"), ("densenet121", None)],
)
def test_every_network_is_built_of_trusted_convolutions(encoder, decoder):
    network = build_network({"encoder": {"name": encoder, "width": 4, "spatial_dims": 3}, "decoder": decoder})
    found = [part for part in network.modules() if isinstance(part, nn.Conv3d)]
    assert found and all(type(part) is Conv3d for part in found)


def test_names_and_values_stay():
    module = nn.Sequential(nn.Conv3d(1, 2, 3, padding=1), nn.ReLU())
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    x = torch.randn(1, 1, 5, 5, 5)
    expected = module(x)
    trusted(module)
    assert torch.equal(module(x), expected)
    assert list(module.state_dict()) == list(before) and all(
        torch.equal(before[k], v) for k, v in module.state_dict().items()
    )
