import math

import pytest
import torch
from torch.nn import functional

from networks.names import genesis_nnunet
from scanlearn.errors import ScanlearnError
from scanlearn.networks.network import build_network

LUNG = [[2, 2, 2]] * 4 + [[1, 2, 2]]


def tiny(dims=2, factors=None, **decoder):
    encoder = {"name": "nnunet", "width": 2, "most": 8, "spatial_dims": dims, "factors": factors}
    return build_network({"encoder": encoder, "decoder": {"name": "nnunet", **decoder}})


def test_names_shapes_and_parameters_are_those_of_nnunet_without_its_coarser_heads():
    with torch.device("meta"):
        encoder = {"name": "nnunet", "factors": LUNG}
        network = build_network({"encoder": encoder, "decoder": {"name": "nnunet", "out_channels": 2}})
    published = dict(genesis_nnunet())
    heads = {name: published.pop(name) for name in (f"seg_outputs.{i}.weight" for i in range(4))}
    assert {name: tuple(t.shape) for name, t in network.published_state_dict().items()} == published
    assert sum(p.numel() for p in network.parameters()) + sum(map(math.prod, heads.values())) == 30_785_184
    assert network.encoder.strides == [1, 2, 4, 8, 16, 32]
    assert network.encoder.factors == [(1, 1, 1), *map(tuple, LUNG)]


def plain_forward(state, x, factors):
    """nnU-Net in 2D with the tensors by name."""

    def unit(x, stem, stride=1):
        x = functional.conv2d(x, state[f"{stem}.conv.weight"], state[f"{stem}.conv.bias"], stride=stride, padding=1)
        mean, variance = x.mean((2, 3), keepdim=True), x.var((2, 3), unbiased=False, keepdim=True)
        scale, shift = (state[f"{stem}.instnorm.{name}"][None, :, None, None] for name in ("weight", "bias"))
        x = (x - mean) / (variance + 1e-5).sqrt() * scale + shift
        return torch.where(x > 0, x, 0.01 * x)

    maps = []
    for level, stride in enumerate([(1, 1), *factors]):
        names = ("0.blocks.0", "1.blocks.0") if level == len(factors) else ("blocks.0", "blocks.1")
        x = unit(x, f"conv_blocks_context.{level}.{names[0]}", stride)
        x = unit(x, f"conv_blocks_context.{level}.{names[1]}")
        maps.append(x)
    for index, (skip, factor) in enumerate(zip(maps[-2::-1], factors[::-1], strict=True)):
        x = functional.conv_transpose2d(x, state[f"tu.{index}.weight"], stride=factor)
        x = torch.cat([x, skip], 1)
        x = unit(
            unit(x, f"conv_blocks_localization.{index}.0.blocks.0"), f"conv_blocks_localization.{index}.1.blocks.0"
        )
    return functional.conv2d(x, state[f"seg_outputs.{len(factors) - 1}.weight"])


def test_it_computes_what_nnunet_does_with_other_factors_along_each_axis():
    factors = [(2, 2), (1, 2), (3, 1)]
    network = tiny(factors=factors, out_channels=3).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.uniform_(-1, 1)
    x = torch.rand(2, 1, 12, 16, dtype=torch.float64)
    expected = plain_forward(network.published_state_dict(), x, factors)
    assert torch.allclose(network.restored(x), expected, atol=1e-9)
    assert [tuple(m.shape[2:]) for m in network.features(x)] == [(12, 16), (6, 8), (6, 4), (2, 4)]


def test_a_published_cube_passes_through_the_lung_network():
    assert tiny(3, LUNG).restored(torch.rand(1, 1, 32, 32, 32)).shape == (1, 1, 32, 32, 32)


@pytest.mark.parametrize(
    "size, message",
    [((64, 48), "divisible by 32 x 32, not 64 x 48"), ((32, 32), "sizes above 32 x 32"), ((16, 32), "sizes above")],
)
def test_sizes_that_do_not_fit_are_refused_with_one_sentence(size, message):
    with pytest.raises(ScanlearnError, match=message):
        tiny().restored(torch.rand(1, 1, *size))


@pytest.mark.parametrize("factors", [[[2, 2, 2]], [[2, 0]], [[2, 64]], [[2.5, 2]]])
def test_factors_that_make_no_network_are_refused(factors):
    with pytest.raises(ScanlearnError, match="2 whole numbers from 1 to 4 for each level"):
        tiny(factors=factors)


def test_the_decoder_refuses_an_encoder_without_a_map_as_large_as_the_image():
    with pytest.raises(ScanlearnError, match="use the decoder 'unet_blocks'"):
        build_network({"encoder": {"name": "resnet18", "width": 2}, "decoder": "nnunet"})
