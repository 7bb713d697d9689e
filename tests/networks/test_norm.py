import copy

import numpy as np
import pytest
import torch
from torch import nn

from scanlearn.errors import ScanlearnError
from scanlearn.networks.norm import GroupNorm, SplitBatchNorm, set_batch_norm

NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def plain_loop(x, groups, weight, bias, running_mean, running_var, momentum, eps):
    """Each contiguous part on its own, float64; the running statistics are the mean of what each part would leave."""
    output, means, variances = np.empty_like(x), [], []
    size = len(x) // groups
    for group in range(groups):
        part = slice(group * size, (group + 1) * size)
        mean, var = np.empty(x.shape[1]), np.empty(x.shape[1])
        for channel in range(x.shape[1]):
            values = x[part, channel]
            mean[channel], var[channel] = values.mean(), values.var(ddof=1)
            scale = weight[channel] / np.sqrt(values.var() + eps)
            output[part, channel] = (values - values.mean()) * scale + bias[channel]
        means.append((1 - momentum) * running_mean + momentum * mean)
        variances.append((1 - momentum) * running_var + momentum * var)
    return output, np.mean(means, 0), np.mean(variances, 0)


def filled(norm):
    for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        nn.init.uniform_(tensor, 0.5, 1.5)
    return norm


@pytest.mark.parametrize(("spatial", "groups"), [((), 2), ((5,), 3), ((4, 3), 4), ((3, 2, 4), 2)])
def test_split_statistics_equal_the_plain_loop(spatial, groups):
    x = torch.randn(12, 3, *spatial, dtype=torch.float64) * 3 + 1
    norm = filled(SplitBatchNorm(3, groups, momentum=0.3).double())
    expected, mean, var = plain_loop(
        x.numpy(),
        groups,
        *(t.detach().numpy().copy() for t in (norm.weight, norm.bias, norm.running_mean, norm.running_var)),
        norm.momentum,
        norm.eps,
    )
    assert np.allclose(norm(x).detach().numpy(), expected, atol=1e-12)
    assert np.allclose(norm.running_mean.numpy(), mean, atol=1e-12)
    assert np.allclose(norm.running_var.numpy(), var, atol=1e-12)
    assert norm.num_batches_tracked == 1


def test_split_gradients_are_those_of_the_parts_alone():
    x = torch.randn(6, 2, 4, dtype=torch.float64, requires_grad=True)
    norm, cotangent = filled(SplitBatchNorm(2, 3).double()), torch.randn(6, 2, 4, dtype=torch.float64)
    (norm(x) * cotangent).sum().backward()
    got = [x.grad.clone(), norm.weight.grad.clone()]
    x.grad, norm.weight.grad = None, None
    alone = nn.BatchNorm1d(2).double()
    alone.load_state_dict(norm.state_dict())
    for part in range(3):
        rows = slice(2 * part, 2 * part + 2)
        (alone(x[rows]) * cotangent[rows]).sum().backward()
    assert torch.allclose(got[0], x.grad, atol=1e-12) and torch.allclose(got[1], alone.weight.grad, atol=1e-12)


@pytest.mark.parametrize("dims", NORMS)
def test_one_group_is_the_batch_norm_of_pytorch(dims):
    ordinary = filled(NORMS[dims](3))
    split = SplitBatchNorm(3)
    split.load_state_dict(ordinary.state_dict())
    x = torch.randn(4, 3, *[2] * dims)
    for _ in range(2):  # training, then evaluation with the statistics it left
        assert torch.equal(split(x), ordinary(x))
        assert all(torch.equal(a, b) for a, b in zip(split.buffers(), ordinary.buffers(), strict=True))
        split.eval()
        ordinary.eval()


def test_cumulative_average_and_no_statistics_work_too():
    x = torch.randn(4, 2, 3)
    average = SplitBatchNorm(2, groups=2, momentum=None)
    for _ in range(3):
        average(x)
    assert torch.allclose(average.running_mean, x.mean((0, 2)), atol=1e-6)  # the mean over equal batches
    none = SplitBatchNorm(2, groups=2, track_running_stats=False, affine=False)
    assert torch.allclose(none(x)[:2], nn.BatchNorm1d(2, affine=False)(x[:2]), atol=1e-6)


@pytest.mark.parametrize("always_batch_stats", [False, True])
def test_evaluation_changes_no_buffer(always_batch_stats):
    norm = filled(SplitBatchNorm(3, groups=2, always_batch_stats=always_batch_stats)).eval()
    before, x = copy.deepcopy(norm.state_dict()), torch.randn(4, 3, 5) * 4
    output = norm(x)
    assert all(torch.equal(tensor, before[name]) for name, tensor in norm.state_dict().items())
    mean, var = (x.mean((0, 2)), x.var((0, 2), unbiased=False)) if always_batch_stats else list(norm.buffers())[:2]
    parts = [t[:, None] for t in (mean, var, norm.weight, norm.bias)]
    expected = (x - parts[0]) / (parts[1] + norm.eps).sqrt() * parts[2] + parts[3]
    assert torch.allclose(output, expected, atol=1e-5)


def model():
    inner = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(inplace=True))
    return nn.Sequential(inner, nn.Flatten(), nn.Linear(8, 4), nn.BatchNorm1d(4))


def test_converting_keeps_parameters_buffers_and_names():
    net = model().eval()
    tensors = net.state_dict(keep_vars=True)
    for mode, groups in (("split", 2), ("split", 4), ("local", 1), ("split", 2)):
        assert set_batch_norm(net, mode, groups) is net
        now = net.state_dict(keep_vars=True)
        assert list(now) == list(tensors) and all(now[name] is tensors[name] for name in now)
        assert not any(module.training for module in net.modules())
        split = [m for m in net.modules() if isinstance(m, SplitBatchNorm)]
        assert len(split) == 2 and all(m.groups == groups for m in split)


def test_local_leaves_an_ordinary_network_alone():
    net = model()
    modules = list(net.modules())
    set_batch_norm(net, "local")
    assert all(a is b for a, b in zip(net.modules(), modules, strict=True))


def test_a_bare_batch_norm_is_returned_converted():
    assert isinstance(set_batch_norm(nn.BatchNorm2d(3), "split", 2), SplitBatchNorm)


def test_sync_is_refused_on_the_cpu_and_done_for_a_gpu():
    with pytest.raises(ScanlearnError, match="GPUs only"):
        set_batch_norm(model(), "sync")
    net = set_batch_norm(model(), "sync", device="cuda")
    tensors = net.state_dict(keep_vars=True)
    assert sum(isinstance(m, nn.SyncBatchNorm) for m in net.modules()) == 2
    set_batch_norm(net, "local")
    assert sum(isinstance(m, SplitBatchNorm) for m in net.modules()) == 2
    assert all(now is tensors[name] for name, now in net.state_dict(keep_vars=True).items())
    with pytest.raises(ScanlearnError, match="always_batch_stats"):
        set_batch_norm(nn.Sequential(SplitBatchNorm(2, always_batch_stats=True)), "sync", device="cuda")


def test_wrong_settings_are_refused():
    with pytest.raises(ScanlearnError, match="did you mean 'split'"):
        set_batch_norm(model(), "splt")
    with pytest.raises(ScanlearnError, match="at least 1 group"):
        set_batch_norm(model(), "split", 0)
    with pytest.raises(ScanlearnError, match="batch of 5 cannot be split into 2"):
        SplitBatchNorm(3, groups=2)(torch.zeros(5, 3, 2))


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((2, 6, 5), torch.contiguous_format),
        ((2, 6, 5, 4), torch.contiguous_format),
        ((2, 6, 5, 4), torch.channels_last),
        ((2, 6, 3, 5, 4), torch.contiguous_format),
        ((2, 6, 3, 5, 4), torch.channels_last_3d),
    ],
)
def test_group_norm_has_the_values_of_pytorch_and_keeps_the_order_of_its_input(shape, layout):
    ours, theirs = GroupNorm(3, 6).double(), nn.GroupNorm(3, 6).double()
    theirs.load_state_dict({name: torch.randn_like(value) for name, value in theirs.state_dict().items()})
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(shape, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    y = ours(x)
    assert y.is_contiguous(memory_format=layout)
    torch.testing.assert_close(y, theirs(x))
    weights = torch.randn_like(y)
    mine = torch.autograd.grad((y * weights).sum(), [x, ours.weight, ours.bias])
    torch.testing.assert_close(mine, torch.autograd.grad((theirs(x) * weights).sum(), [x, theirs.weight, theirs.bias]))
