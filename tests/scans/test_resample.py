import itertools

import pytest
import torch

from scanlearn.scans.resample import resample


def filter_of(length, size):
    """Weights (size, length) of Pillow's linear filter, which is as wide as a pixel of the smaller grid."""
    step = length / size
    reach = max(step, 1.0)
    weights = torch.zeros(size, length, dtype=torch.float64)
    for i, j in itertools.product(range(size), range(length)):
        weights[i, j] = max(0.0, 1 - abs((j + 0.5 - (i + 0.5) * step) / reach))
    return weights / weights.sum(1, keepdim=True)


@pytest.mark.parametrize("shape", [(7, 9), (12, 1), (12, 3), (1, 12), (1, 1), (6, 5, 4), (6, 1, 4), (6, 5, 1)])
def test_it_is_the_product_of_one_filter_for_each_axis(shape):
    x = torch.rand(2, 3, *shape)
    for size in itertools.product(*[(1, 4, 11)] * len(shape)):
        expected = x.double()
        for axis, n in enumerate(size, start=2):
            weights = filter_of(x.shape[axis], n)
            expected = torch.tensordot(expected, weights, dims=([axis], [1])).movedim(-1, axis)
        assert torch.allclose(resample(x, size).double(), expected, atol=1e-5), size
