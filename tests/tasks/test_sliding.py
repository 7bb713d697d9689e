import itertools
import math

import numpy as np
import pytest
import torch

from scanlearn.errors import ScanlearnError
from scanlearn.networks.network import build_network
from scanlearn.tasks.sliding import sliding_window_logits


def unet(dims, out=3, channels=1):
    torch.manual_seed(0)
    encoder = {"name": "unet", "width": 2, "spatial_dims": dims, "in_channels": channels}
    return build_network({"encoder": encoder, "decoder": {"name": "unet", "out_channels": out}})


@pytest.mark.parametrize("dims", [2, 3])
def test_one_window_is_the_network_itself(dims):
    network = unet(dims, channels=2)
    x = torch.rand(2, 2, *[16] * dims)
    logits = sliding_window_logits(network, None, x, (16,) * dims)
    assert logits.shape == (2, 3, *[16] * dims) and logits.dtype == torch.float32
    assert torch.allclose(logits, network.eval().restored(x), atol=1e-6)


@pytest.mark.parametrize("shape, size", [((37, 50), (16, 24)), ((20, 17, 33), (8, 16, 16)), ((10, 40), (16, 16))])
def test_what_does_not_depend_on_the_window_comes_back_unchanged(shape, size):
    x = torch.rand(1, 1, *shape)
    double = sliding_window_logits(unet(len(size)), lambda patches: torch.cat([patches, 2 * patches], 1), x, size)
    assert torch.allclose(double, torch.cat([x, 2 * x], 1), atol=1e-5)


def test_the_sum_and_the_mean_of_windows_choose_the_same():
    """The published inference adds the logits of all windows; weights that are equal give the same classes."""
    network, x, size = unet(2).eval(), torch.rand(1, 1, 40, 56), (16, 16)
    total = torch.zeros(1, 3, 40, 56)
    for i, j in itertools.product((0, 8, 16, 24), (0, 8, 16, 24, 32, 40)):
        with torch.no_grad():
            total[..., i : i + 16, j : j + 16] += network.segmented(x[..., i : i + 16, j : j + 16])
    mean = sliding_window_logits(network, None, x, size, 0.5, weights="equal")
    assert torch.equal(mean.argmax(dim=1), total.argmax(dim=1))
    assert not torch.equal(mean, sliding_window_logits(network, None, x, size, 0.5))
    with pytest.raises(ScanlearnError, match="did you mean 'equal'"):
        sliding_window_logits(network, None, x, size, weights="equals")


def stitched_by_loops(forward, x, size, overlap):
    """Windows at the strides of MONAI, Gaussian weights around the middle of each."""
    total, weights = None, None
    starts = []
    for length, side in zip(x.shape[2:], size, strict=True):
        step = max(int(side * (1 - overlap)), 1)
        count = math.ceil((length - side) / step) + 1
        starts.append([min(i * step, length - side) for i in range(count)])
    axes = [np.exp(-0.5 * ((np.arange(side) - (side - 1) / 2) / (side / 8)) ** 2) for side in size]
    weight = axes[0][:, None] * axes[1]
    weight = np.maximum(weight, max(weight[weight > 0].min(), 1e-3))
    for start in itertools.product(*starts):
        part = (slice(None), slice(None), *(slice(a, a + side) for a, side in zip(start, size, strict=True)))
        with torch.no_grad():
            out = forward(x[part]).double().numpy()
        if total is None:
            total = np.zeros((1, out.shape[1], *x.shape[2:]))
            weights = np.zeros(x.shape[2:])
        total[part] += out * weight
        weights[part[2:]] += weight
    return total / weights


def test_windows_are_averaged_with_gaussian_weights_as_in_a_plain_loop():
    network = unet(2)
    x = torch.rand(1, 1, 40, 56)
    got = sliding_window_logits(network, None, x, (16, 32), overlap=0.5)
    assert np.allclose(got.numpy(), stitched_by_loops(network.eval().restored, x, (16, 32), 0.5), atol=1e-4)


def test_the_number_of_windows_in_a_pass_does_not_change_the_output():
    network, x = unet(3), torch.rand(1, 1, 24, 20, 16)
    one, five = (sliding_window_logits(network, None, x, (16, 16, 16), batch_size=n) for n in (1, 5))
    assert torch.allclose(one, five, atol=1e-5)


def test_the_network_is_left_as_it_was():
    network = unet(2).train()
    network.decoder.eval()  # a mixture of modes comes back as a mixture
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    logits = sliding_window_logits(network, None, torch.rand(1, 1, 40, 40), (16, 16))
    assert not logits.requires_grad
    assert modes == [module.training for module in network.modules()]
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())

    def fails(patches):
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        sliding_window_logits(network, fails, torch.rand(1, 1, 40, 40), (16, 16))
    assert modes == [module.training for module in network.modules()]


def test_a_window_that_does_not_fit_is_refused():
    for size, overlap in (((16, 16, 16), 0.5), ((16, 16), 1.0), ((16, 16), -0.1)):
        with pytest.raises(ScanlearnError, match="one size for each spatial axis"):
            sliding_window_logits(unet(2), None, torch.rand(1, 1, 40, 40), size, overlap)
