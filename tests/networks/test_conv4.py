import pytest
import torch
from torch.nn import functional

from scanlearn.networks.encoder import build_encoder
from scanlearn.networks.network import Network


@pytest.mark.parametrize(("size", "side", "length"), [(28, 1, 64), (84, 5, 1600)])
def test_the_published_sizes_give_the_published_lengths_of_the_feature_vector(size, side, length):
    encoder = build_encoder("conv4")
    coarsest = encoder(torch.rand(2, 1, size, size))[-1]
    assert coarsest.shape == (2, 64, side, side) and coarsest.flatten(1).shape[1] == length


def test_it_has_the_parameters_of_the_published_network():
    encoder = build_encoder("conv4", in_channels=1)
    weights = 9 * 64 + 3 * 9 * 64 * 64 + 4 * 64  # four convolutions with bias
    assert sum(p.numel() for p in encoder.parameters()) == weights + 4 * 2 * 64
    assert [(m.kernel_size, m.padding, m.stride) for m in encoder.modules() if isinstance(m, torch.nn.Conv2d)] == [
        ((3, 3), (1, 1), (1, 1))
    ] * 4


@pytest.mark.parametrize("dims", [2, 3])
def test_a_block_is_convolution_batch_norm_relu_and_pooling_of_two(dims):
    encoder = build_encoder({"name": "conv4", "width": 3}, spatial_dims=dims).double().train()
    state = encoder.state_dict()
    conv, pool = (functional.conv2d, functional.max_pool2d) if dims == 2 else (functional.conv3d, functional.max_pool3d)
    x = image = torch.rand(4, 1, *[32] * dims, dtype=torch.float64)
    expected = []
    for i in range(4):
        x = conv(x, state[f"blocks.{i}.conv1.weight"], state[f"blocks.{i}.conv1.bias"], padding=1)
        axes = [0, *range(2, 2 + dims)]
        x = (x - x.mean(axes, keepdim=True)) / torch.sqrt(x.var(axes, unbiased=False, keepdim=True) + 1e-5)
        x = pool(x.relu(), 2)
        expected.append(x)
    for found, plain in zip(Network(encoder)(image), expected, strict=True):
        torch.testing.assert_close(found, plain)
