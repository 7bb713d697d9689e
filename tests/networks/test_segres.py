import pytest
import torch
from torch import nn
from torch.nn import functional

from scanlearn.errors import ScanlearnError
from scanlearn.networks.network import build_network
from scanlearn.networks.segres import doubled
from scanlearn.networks.segres_boundary import BOUNDARY

PUBLISHED = {"name": "segres", "spatial_dims": 3, "in_channels": 4}
SMALL = {"name": "segres", "width": 8, "blocks": [1, 1, 1], "in_channels": 1}


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def on_meta(encoder, decoder):
    with torch.device("meta"):
        return build_network({"encoder": encoder, "decoder": decoder})


def test_parameter_counts_are_those_of_the_published_network():
    network = on_meta(PUBLISHED, {"name": "segres", "out_channels": 6})
    assert count(network.encoder.first) == 3_488
    assert [count(level) for level in network.encoder.levels] == [83_168, 498_496, 1_992_320, 15_046_912]
    assert [count(up) for up in network.decoder.ups] == [918_400, 229_824, 57_568]
    assert (count(network.encoder), count(network.decoder), count(network)) == (17_624_384, 1_205_990, 18_830_374)


def test_the_boundary_stream_has_the_published_parameters():
    network = on_meta(PUBLISHED, {"name": "segres_boundary", "out_channels": 6})
    decoder = network.decoder
    stream = [decoder.entry, decoder.stream, decoder.gates, decoder.boundary]
    assert sum(map(count, stream)) == 2_108_842
    assert count(decoder) - 2_108_842 == 1_206_182
    assert count(network) == 20_939_408


@pytest.mark.parametrize(("crop", "coarsest"), [((160, 192, 128), (20, 24, 16)), ((144, 144, 128), (18, 18, 16))])
def test_shapes_of_the_published_crops(crop, coarsest):
    network = on_meta(PUBLISHED, {"name": "segres", "out_channels": 6})
    maps = network.features(torch.empty(1, 4, *crop, device="meta"))
    assert [m.shape[1] for m in maps] == [32, 64, 128, 256]
    assert tuple(maps[0].shape[2:]) == crop and tuple(maps[-1].shape[2:]) == coarsest
    assert network.decoder(maps, crop).shape == (1, 6, *crop)


def monai_pair():
    from monai.networks.nets import SegResNet

    theirs = SegResNet(3, init_filters=8, in_channels=2, out_channels=3, blocks_down=(1, 2, 2), blocks_up=(1, 1))
    encoder = {"name": "segres", "in_channels": 2, "width": 8, "blocks": [1, 2, 2], "entry_conv": False, "bias": False}
    decoder = {"name": "segres", "out_channels": 3, "align_corners": False, "head_norm": True, "bias": False}
    ours = build_network({"encoder": encoder, "decoder": decoder})
    assert len(theirs.state_dict()) == len(ours.state_dict())
    return theirs.eval(), ours.eval()


def test_with_monais_settings_it_has_the_parameters_of_segresnet():
    decoder = {"name": "segres", "out_channels": 6, "head_norm": True, "bias": False, "align_corners": False}
    assert count(on_meta({**PUBLISHED, "entry_conv": False, "bias": False}, decoder)) == 18_798_726


def test_with_monais_settings_and_weights_it_gives_the_output_of_segresnet():
    theirs, ours = monai_pair()
    with torch.no_grad():
        for mine, other in zip(_in_order(ours), _in_order_of_monai(theirs), strict=True):
            assert mine.shape == other.shape
            mine.copy_(other)
        x = torch.randn(2, 2, 16, 16, 16)
        torch.testing.assert_close(ours.restored(x), theirs(x), atol=1e-5, rtol=1e-5)


def _blocks(block):
    return [block.first.norm, block.first.conv, block.second.norm, block.second.conv]


def _in_order(network):
    encoder, decoder = network.encoder, network.decoder
    layers = [encoder.first]
    for level in encoder.levels:
        for part in level:
            layers += [part] if not hasattr(part, "second") else _blocks(part)
    for up in decoder.ups:
        layers += [up.narrow, *_blocks(up.block)]
    return [p for layer in [*layers, *decoder.head] for p in layer.parameters()]


def _in_order_of_monai(network):
    def blocks(block):
        return [block.norm1, block.conv1, block.norm2, block.conv2]

    layers = [network.convInit]
    for level in network.down_layers:
        layers += [level[0], *(layer for block in list(level)[1:] for layer in blocks(block))]
    for sample, up in zip(network.up_samples, network.up_layers, strict=True):
        layers += [sample[0], *blocks(up[0])]
    return [p for layer in [*layers, network.conv_final] for p in layer.parameters()]


@pytest.mark.parametrize("dims", [2, 3])
def test_doubling_keeps_the_corners(dims):
    x = torch.rand(1, 2, *(5, 4, 3)[:dims])
    twice = doubled(x)
    assert twice.shape[2:] == tuple(2 * side for side in x.shape[2:])
    for end in (0, -1):
        corner = (slice(None), slice(None), *[end] * dims)
        torch.testing.assert_close(twice[corner], x[corner])


def test_weights_begin_lecun_normal_and_biases_at_zero():
    encoder = build_network({"encoder": {**PUBLISHED, "width": 16}}).encoder
    for layer in encoder.modules():
        if isinstance(layer, nn.Conv3d):
            assert (layer.bias == 0).all()
            wanted = layer.weight[0].numel() ** -0.5
            assert layer.weight.std().item() == pytest.approx(wanted, rel=0.1)


def test_dropout_sets_single_values_to_zero_in_training_only():
    encoder = build_network({"encoder": {**SMALL, "dropout": 0.5}}).encoder
    dropped = encoder.dropout(torch.ones(2, 8, 6, 6, 6))
    shares = (dropped == 0).float().flatten(2).mean(dim=2)
    assert ((shares > 0.3) & (shares < 0.7)).all()  # of every channel some, of none all
    encoder.eval()
    x = torch.rand(1, 1, 8, 8, 8)
    assert torch.equal(encoder(x)[-1], encoder(x)[-1])


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("decoder", ["segres", "segres_boundary"])
def test_every_parameter_gets_a_gradient_in_2d_and_3d(dims, decoder):
    network = build_network(
        {"encoder": {**SMALL, "spatial_dims": dims}, "decoder": {"name": decoder, "out_channels": 4}}
    )
    x = torch.rand(2, 1, *[16] * dims)
    aside = {}
    more = (aside,) if decoder == "segres_boundary" else ()
    output = network.decoder(network.features(x), x.shape[2:], *more)
    assert output.shape == (2, 4, *[16] * dims)
    total = output.square().sum() + sum(part.square().sum() for part in aside.values())
    total.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_the_boundary_stream_is_drawn_aside_and_changes_the_output():
    network = build_network({"encoder": SMALL, "decoder": {"name": "segres_boundary", "out_channels": 4}}).eval()
    x = torch.rand(1, 1, 16, 16, 16)
    aside = {}
    maps = network.features(x)
    before = network.decoder(maps, x.shape[2:], aside)
    assert aside[BOUNDARY].shape == (1, 4, 16, 16, 16)
    torch.testing.assert_close(network.restored(x), before)
    with torch.no_grad():
        network.decoder.entry[0].weight.mul_(2.0)
    assert not torch.allclose(network.restored(x), before)


def test_it_is_built_again_from_its_description():
    network = build_network({"encoder": SMALL, "decoder": {"name": "segres_boundary", "out_channels": 2}})
    again = build_network(network.describe())
    again.load_state_dict(network.state_dict())
    x = torch.rand(1, 1, 8, 8, 8)
    torch.testing.assert_close(again.eval().restored(x), network.eval().restored(x))


def test_sizes_and_encoders_that_do_not_fit_are_refused():
    network = build_network({"encoder": SMALL, "decoder": "segres"})
    with pytest.raises(ScanlearnError, match="divisible by 4, not 6 x 8 x 8"):
        network.restored(torch.rand(1, 1, 6, 8, 8))
    with pytest.raises(ScanlearnError, match="strides 1, 2, 4"):
        build_network({"encoder": {"name": "resnet18", "spatial_dims": 2}, "decoder": "segres"})


def test_norms_of_narrow_networks_have_fewer_groups():
    encoder = build_network({"encoder": {**SMALL, "width": 12}}).encoder
    assert [level[-1].first.norm.num_groups for level in encoder.levels] == [4, 8, 8]


def test_upsampling_is_linear_interpolation_with_aligned_corners():
    x = torch.rand(2, 3, 4, 5, 6)
    torch.testing.assert_close(
        doubled(x), functional.interpolate(x, size=(8, 10, 12), mode="trilinear", align_corners=True)
    )
