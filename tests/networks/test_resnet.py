import json
import math

import pytest
import torch
from torch.nn import functional

from networks.names import resnet
from scanlearn.networks.encoder import build_encoder
from scanlearn.networks.resnet import LAYOUTS, STEMS

# name -> tensors without fc, parameters with a classifier of 1000 classes (torchvision's figures)
PUBLISHED = {
    "resnet18": (120, 11_689_512),
    "resnet34": (216, 21_797_672),
    "resnet50": (318, 25_557_032),
    "resnet101": (624, 44_549_160),
    "resnet152": (930, 60_192_808),
}

# name -> shortcut, tensors, parameters, and the millions of MedicalNet's table, which counts running statistics too
MEDICALNET = {
    "resnet10": ("B", 72, 14_355_520, 14.36),
    "resnet18": ("A", 102, 32_986_176, 32.99),
    "resnet34": ("A", 198, 63_295_808, 63.31),
    "resnet50": ("B", 318, 46_155_072, 46.21),
    "resnet101": ("B", 624, 85_201_216, 85.31),
    "resnet152": ("B", 930, 117_359_936, 117.51),
    "resnet200": ("B", 1218, 126_559_552, 126.74),
}


def unfilled(name, **settings):
    with torch.device("meta"):
        return build_encoder({"name": name, **settings})


@pytest.mark.parametrize("name", PUBLISHED)
def test_tensors_are_those_of_torchvision(name):
    encoder = unfilled(name, in_channels=3)
    block, layers, _ = LAYOUTS[name]
    got = [(key, tuple(tensor.shape)) for key, tensor in encoder.state_dict().items()]
    assert got == resnet(layers, bottleneck=block == "bottleneck")
    tensors, parameters = PUBLISHED[name]
    assert len(got) == tensors
    assert sum(p.numel() for p in encoder.parameters()) + (encoder.num_features + 1) * 1000 == parameters


@pytest.mark.parametrize("name", LAYOUTS)
def test_dilated_in_3d_the_tensors_are_those_of_medicalnet(name):
    shortcut, tensors, parameters, millions = MEDICALNET[name]
    encoder = unfilled(name, spatial_dims=3, dilated=True, shortcut=shortcut)
    state, (block, layers, _) = encoder.state_dict(), LAYOUTS[name]
    got = [(key, tuple(tensor.shape)) for key, tensor in state.items()]
    assert got == resnet(layers, block == "bottleneck", 1, 3, shortcut) and len(got) == tensors
    assert sum(p.numel() for p in encoder.parameters()) == parameters
    assert round(sum(tensor.numel() for tensor in state.values() if tensor.is_floating_point()) / 1e6, 2) == millions


def test_initialisation_is_that_of_torchvision():
    for name, parameter in build_encoder("resnet50", in_channels=3).named_parameters():
        if parameter.ndim == 4:
            fan_out = parameter.shape[0] * parameter[0, 0].numel()
            standard_error = 1 / math.sqrt(2 * parameter.numel())
            assert parameter.std().item() * math.sqrt(fan_out / 2) == pytest.approx(1, abs=6 * standard_error), name
        else:
            assert (parameter == (0 if name.endswith("bias") else 1)).all()


def plain_forward(state, x, layers, bottleneck, dilated=False):
    """The published network, written from its paper with the tensors by name (evaluation)."""
    axes = x.ndim - 2
    convolve, pool = (
        (functional.conv2d, functional.max_pool2d) if axes == 2 else (functional.conv3d, functional.max_pool3d)
    )

    def conv_norm(x, conv, norm, stride=1, dilation=1):
        weight = state[f"{conv}.weight"]
        apart = dilation if weight.shape[-1] == 3 else 1
        x = convolve(x, weight, stride=stride, padding=weight.shape[-1] // 2 * apart, dilation=apart)
        statistics = (state[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return functional.batch_norm(x, *statistics)

    maps = [conv_norm(x, "conv1", "bn1", 2).relu()]
    x = pool(maps[0], 3, 2, 1)
    for stage, count in enumerate(layers, 1):
        dilation = {3: 2, 4: 4}.get(stage, 1) if dilated else 1
        for number in range(count):
            stem, stride = f"layer{stage}.{number}", 2 if stage > 1 and number == 0 and dilation == 1 else 1
            short = x
            if f"{stem}.downsample.0.weight" in state:
                short = conv_norm(x, f"{stem}.downsample.0", f"{stem}.downsample.1", stride)
            strides = [1, stride, 1] if bottleneck else [stride, 1]
            for index, step in enumerate(strides, 1):
                x = conv_norm(x, f"{stem}.conv{index}", f"{stem}.bn{index}", step, dilation)
                x = x.relu() if index < len(strides) else x
            if short.shape != x.shape:  # shortcut A: thinned, zeros behind the channels
                thinned, short = short[(..., *[slice(None, None, stride)] * axes)], torch.zeros_like(x)
                short[:, : thinned.shape[1]] = thinned
            x = (x + short).relu()
        maps.append(x)
    return maps


def settled(encoder, x):
    """For evaluation, with running statistics of ``x`` under which values neither vanish nor explode."""
    encoder.double().train()
    for norm in encoder.modules():
        if isinstance(norm, torch.nn.modules.batchnorm._BatchNorm):
            norm.momentum = 0.9
    encoder(x)
    return encoder.eval()


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_it_computes_what_the_paper_draws(name):
    x = torch.randn(2, 3, 49, 64, dtype=torch.float64)
    encoder = settled(build_encoder({"name": name, "width": 4}, in_channels=3), x)
    expected = plain_forward(encoder.state_dict(), x, LAYOUTS[name][1], name == "resnet50")
    for ours, plain in zip(encoder(x), expected, strict=True):
        assert torch.allclose(ours, plain, atol=1e-10) and ours.std() > 0.1


@pytest.mark.parametrize(("name", "shortcut"), [("resnet18", "A"), ("resnet10", "B"), ("resnet50", "B")])
def test_dilated_it_computes_what_medicalnet_does(name, shortcut):
    settings = {"name": name, "width": 4, "dilated": True, "shortcut": shortcut}
    x = torch.randn(1, 1, 40, 33, 24, dtype=torch.float64)
    encoder = settled(build_encoder(settings, spatial_dims=3), x)
    expected = plain_forward(encoder.state_dict(), x, LAYOUTS[name][1], name == "resnet50", dilated=True)
    for ours, plain in zip(encoder(x), expected, strict=True):
        assert torch.allclose(ours, plain, atol=1e-10) and ours.std() > 0.1
    assert encoder.strides == [2, 4, 8, 8, 8]
    again = build_encoder(json.loads(json.dumps(encoder.describe()))).double().eval()
    again.load_state_dict(encoder.state_dict())
    assert torch.equal(again(x)[-1], encoder(x)[-1])


def test_the_gradient_passes_shortcut_a():
    block = build_encoder({"name": "resnet10", "width": 4, "shortcut": "A", "zero_init_last": True}).layer2[0].eval()
    x = torch.rand(1, 4, 6, 6, requires_grad=True)
    block(x).sum().backward()  # with the last batch norm at zero, the shortcut alone is there
    assert x.grad.sum() == x.grad[:, :, ::2, ::2].sum() == 4 * 9


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("dims", [2, 3])
def test_stems_keep_the_resolution_they_promise(stem, dims):
    encoder = build_encoder({"name": "resnet18", "width": 2, "stem": stem}, spatial_dims=dims)
    maps = encoder(torch.randn(2, 1, *[32] * dims))
    assert [m.shape[-1] for m in maps] == [32 // stride for stride in encoder.strides]
    assert encoder.strides[0] == {"imagenet": 2, "medium": 2, "small": 1}[stem]
    dilated = build_encoder({"name": "resnet10", "width": 2, "stem": stem, "dilated": True}, spatial_dims=dims)
    assert [m.shape[-1] for m in dilated(torch.randn(2, 1, *[32] * dims))] == [32 // s for s in dilated.strides]
    assert dilated.strides[2:] == [encoder.strides[2]] * 3


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_zero_init_last_starts_blocks_as_the_identity(name):
    encoder = build_encoder({"name": name, "width": 4, "stem": "small", "zero_init_last": True})
    stem, first = encoder(torch.randn(2, 1, 16, 16))[:2]
    block = encoder.layer2[1]
    x = torch.rand(2, encoder.channels[2], 8, 8)
    assert torch.equal(block(x), x)
    if name == "resnet18":  # its first stage has no convolution on the short way
        assert torch.equal(stem, first)
