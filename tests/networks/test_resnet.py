import math

import pytest
import torch
from torch.nn import functional

from networks.names import torchvision_resnet
from scanlearn.networks.encoder import build_encoder
from scanlearn.networks.resnet import LAYOUTS, STEMS

# name -> tensors without fc, parameters with a classifier of 1000 classes (torchvision's figures)
PUBLISHED = {"resnet18": (120, 11_689_512), "resnet34": (216, 21_797_672), "resnet50": (318, 25_557_032)}


@pytest.fixture(scope="module")
def whole():
    return {name: build_encoder(name, in_channels=3) for name in LAYOUTS}


@pytest.mark.parametrize("name", LAYOUTS)
def test_tensors_are_those_of_torchvision(whole, name):
    encoder = whole[name]
    block, layers, _ = LAYOUTS[name]
    got = [(key, tuple(tensor.shape)) for key, tensor in encoder.state_dict().items()]
    assert got == torchvision_resnet(layers, bottleneck=block == "bottleneck")
    tensors, parameters = PUBLISHED[name]
    assert len(got) == tensors
    assert sum(p.numel() for p in encoder.parameters()) + (encoder.num_features + 1) * 1000 == parameters


def test_initialisation_is_that_of_torchvision(whole):
    for name, parameter in whole["resnet50"].named_parameters():
        if parameter.ndim == 4:
            fan_out = parameter.shape[0] * parameter[0, 0].numel()
            standard_error = 1 / math.sqrt(2 * parameter.numel())
            assert parameter.std().item() * math.sqrt(fan_out / 2) == pytest.approx(1, abs=6 * standard_error), name
        else:
            assert (parameter == (0 if name.endswith("bias") else 1)).all()


def plain_forward(state, x, layers, bottleneck):
    """The published network, written from its paper with the tensors by name (evaluation)."""

    def conv_norm(x, conv, norm, stride=1):
        weight = state[f"{conv}.weight"]
        x = functional.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        statistics = (state[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return functional.batch_norm(x, *statistics)

    maps = [conv_norm(x, "conv1", "bn1", 2).relu()]
    x = functional.max_pool2d(maps[0], 3, 2, 1)
    for stage, count in enumerate(layers, 1):
        for number in range(count):
            stem, stride = f"layer{stage}.{number}", 2 if stage > 1 and number == 0 else 1
            short = x
            if f"{stem}.downsample.0.weight" in state:
                short = conv_norm(x, f"{stem}.downsample.0", f"{stem}.downsample.1", stride)
            strides = [1, stride, 1] if bottleneck else [stride, 1]
            for index, step in enumerate(strides, 1):
                x = conv_norm(x, f"{stem}.conv{index}", f"{stem}.bn{index}", step)
                x = x.relu() if index < len(strides) else (x + short).relu()
        maps.append(x)
    return maps


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_it_computes_what_the_paper_draws(name):
    encoder = build_encoder({"name": name, "width": 4}, in_channels=3).double().eval()
    for buffer_name, buffer in encoder.named_buffers():
        if buffer_name.endswith(("mean", "var")):
            buffer.uniform_(0.5, 1.5)
    x = torch.randn(2, 3, 49, 64, dtype=torch.float64)
    expected = plain_forward(encoder.state_dict(), x, LAYOUTS[name][1], name == "resnet50")
    for ours, plain in zip(encoder(x), expected, strict=True):
        assert torch.allclose(ours, plain, atol=1e-10)


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("dims", [2, 3])
def test_stems_keep_the_resolution_they_promise(stem, dims):
    encoder = build_encoder({"name": "resnet18", "width": 2, "stem": stem}, spatial_dims=dims)
    maps = encoder(torch.randn(2, 1, *[32] * dims))
    assert [m.shape[-1] for m in maps] == [32 // stride for stride in encoder.strides]
    assert encoder.strides[0] == {"imagenet": 2, "medium": 2, "small": 1}[stem]


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_zero_init_last_starts_blocks_as_the_identity(name):
    encoder = build_encoder({"name": name, "width": 4, "stem": "small", "zero_init_last": True})
    stem, first = encoder(torch.randn(2, 1, 16, 16))[:2]
    block = encoder.layer2[1]
    x = torch.rand(2, encoder.channels[2], 8, 8)
    assert torch.equal(block(x), x)
    if name == "resnet18":  # its first stage has no convolution on the short way
        assert torch.equal(stem, first)
