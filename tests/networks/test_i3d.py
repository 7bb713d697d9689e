import pytest
import torch
from torch.nn import functional

from networks.names import i3d
from scanlearn.networks.encoder import build_encoder


def test_tensors_are_those_of_the_published_conversion():
    with torch.device("meta"):
        encoder = build_encoder("i3d", spatial_dims=3)
    assert [(name, tuple(tensor.shape)) for name, tensor in encoder.state_dict().items()] == i3d()
    assert len(i3d()) == 342
    assert sum(p.numel() for p in encoder.parameters()) == 12_287_264
    assert (encoder.in_channels, encoder.channels) == (3, [64, 192, 480, 832, 1024])
    assert encoder.factors == [(2, 2, 2), (2, 2, 1), (2, 2, 1), (2, 2, 2), (2, 2, 2)]
    norms = [part for part in encoder.modules() if isinstance(part, torch.nn.BatchNorm3d)]
    assert len(norms) == 57 and {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}


def plain_forward(state, x):
    """The published network on (N, C, time, height, width), layer by layer with the tensors by name (evaluation)."""

    def same(x, kernel, stride):
        for axis, (k, s) in enumerate(zip(kernel, stride, strict=True)):
            size = x.shape[2 + axis]
            total = max(k - s if size % s == 0 else k - size % s, 0)
            before, behind = (x.new_zeros([*x.shape[: 2 + axis], n, *x.shape[3 + axis :]]) for n in divided(total))
            x = torch.cat([before, x, behind], 2 + axis)
        return x

    def divided(total):
        return total // 2, total - total // 2

    def unit(x, stem, stride=1):
        weight = state[f"{stem}.conv3d.weight"]
        x = functional.conv3d(same(x, weight.shape[2:], [stride] * 3), weight, stride=stride)
        statistics = (state[f"{stem}.bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return functional.batch_norm(x, *statistics, eps=1e-3).relu()

    def block(x, stem):
        pooled = functional.max_pool3d(same(x, [3] * 3, [1] * 3), 3, 1)
        second, third = unit(unit(x, f"{stem}.b1a"), f"{stem}.b1b"), unit(unit(x, f"{stem}.b2a"), f"{stem}.b2b")
        return torch.cat([unit(x, f"{stem}.b0"), second, third, unit(pooled, f"{stem}.b3b")], 1)

    def pool(x, kernel, stride):
        return functional.max_pool3d(same(x, kernel, stride), kernel, stride)

    maps = [unit(x, "Conv3d_1a_7x7", 2)]
    x = unit(pool(maps[-1], (1, 3, 3), (1, 2, 2)), "Conv3d_2b_1x1")
    maps.append(unit(x, "Conv3d_2c_3x3"))
    x = block(pool(maps[-1], (1, 3, 3), (1, 2, 2)), "Mixed_3b")
    maps.append(block(x, "Mixed_3c"))
    x = pool(maps[-1], (3, 3, 3), (2, 2, 2))
    for letter in "bcdef":
        x = block(x, f"Mixed_4{letter}")
    maps.append(x)
    maps.append(block(block(pool(x, (2, 2, 2), (2, 2, 2)), "Mixed_5b"), "Mixed_5c"))
    return maps


@pytest.mark.parametrize("size", [(32, 64, 16), (45, 51, 27)])
def test_it_computes_what_the_paper_draws_with_the_slices_as_time(size):
    encoder = build_encoder({"name": "i3d", "width": 16}, spatial_dims=3, in_channels=1).double()
    x = torch.randn(1, 1, *size, dtype=torch.float64)
    for norm in encoder.modules():
        if isinstance(norm, torch.nn.BatchNorm3d):
            norm.momentum = 0.9  # so that one pass leaves statistics under which values neither vanish nor explode
            norm.weight.data.uniform_(0.5, 1.5)
            norm.bias.data.uniform_(-0.5, 0.5)
    encoder(x)
    encoder.eval()
    expected = plain_forward(encoder.state_dict(), x.permute(0, 1, 4, 2, 3))
    for ours, plain in zip(encoder(x), expected, strict=True):
        assert torch.allclose(ours, plain.permute(0, 1, 3, 4, 2), atol=1e-10)
        assert 0.1 < ours.std() < 10


def test_in_2d_it_is_the_same_network_without_time():
    # A kernel that is one frame thick sees each frame alone, so a single frame tells whether both are the same.
    flat, deep = (build_encoder({"name": "i3d", "width": 8}, spatial_dims=dims) for dims in (2, 3))
    state = {name: tensor.clone() for name, tensor in deep.state_dict().items()}
    for name, tensor in flat.state_dict().items():
        if tensor.ndim == 4:
            state[name].zero_()
            state[name][:, :, tensor.shape[-1] // 2] = tensor
        else:
            state[name] = tensor
    deep.load_state_dict(state)
    x = torch.rand(2, 3, 37, 64)
    for ours, expected in zip(flat(x), deep(x[..., None]), strict=True):
        assert torch.allclose(ours, expected[..., 0], atol=1e-4) and ours.std() > 0.1
