"""What every registered encoder must keep, in 2D and 3D, for one channel and three."""

import copy
import json
import operator

import pytest
import torch

from scanlearn.errors import ScanlearnError
from scanlearn.networks.encoder import ENCODERS, build_encoder
from scanlearn.networks.network import Network

CASES = [
    pytest.param(name, dims, channels, id=f"{name}-{dims}d-{channels}")
    for name in ENCODERS.names()
    for dims in (2, 3)
    for channels in (1, 3)
]


def tiny(name, dims, channels, **settings):
    return build_encoder({"name": name, "width": 4, **settings}, spatial_dims=dims, in_channels=channels)


@pytest.mark.parametrize(("name", "dims", "channels"), CASES)
def test_contract(name, dims, channels):
    encoder = tiny(name, dims, channels)
    sizes = [2 * encoder.strides[-1], *[encoder.strides[-1]] * (dims - 1)]
    maps = encoder(torch.randn(2, channels, *sizes))

    # What it declares is what it gives.
    assert (encoder.spatial_dims, encoder.in_channels) == (dims, channels)
    assert [m.shape[1] for m in maps] == encoder.channels and encoder.num_features == encoder.channels[-1]
    per_axis = (1,) * dims
    for m, factor, stride in zip(maps, encoder.factors, encoder.strides, strict=True):
        per_axis = tuple(map(operator.mul, per_axis, factor))
        assert tuple(m.shape[2:]) == tuple(map(operator.floordiv, sizes, per_axis))
        assert max(per_axis) == stride
    assert encoder.strides == sorted(encoder.strides)

    # Gradient reaches every parameter from the maps together; a bias before a batch norm has no effect.
    sum((m * torch.randn_like(m)).sum() for m in maps).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())
    assert not [n for n, p in encoder.named_parameters() if p.grad.abs().sum() == 0 and not n.endswith("conv1.bias")]

    # Half precision in the memory format that training uses.
    layout = torch.channels_last if dims == 2 else torch.channels_last_3d
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        half = encoder.to(memory_format=layout)(torch.rand(2, channels, *sizes).to(memory_format=layout))
    assert all(m.isfinite().all() for m in half)

    # Its description, through JSON, builds it again.
    again = build_encoder(json.loads(json.dumps(encoder.describe())))
    assert again.describe() == encoder.describe()
    again.load_state_dict(encoder.state_dict())
    x = torch.rand(1, channels, *sizes).double()  # instance norm over two voxels magnifies rounding
    for ours, theirs in zip(encoder.eval().double()(x), again.eval().double()(x), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("name", ENCODERS.names())
def test_any_size_that_the_strides_allow(name):
    encoder = tiny(name, 2, 1).eval()
    assert [m.shape[1] for m in encoder(torch.rand(1, 1, 71, 45))] == encoder.channels


@pytest.mark.parametrize("name", ENCODERS.names())
def test_the_maps_are_not_overwritten_by_later_layers(name):
    # Activations work in place; a map that a later layer changed would not equal what that map is alone.
    encoder = tiny(name, 2, 1).eval()
    seen = []
    x = torch.rand(1, 1, 64, 64)
    for m in encoder(x):
        if name != "segres":  # whose maps come out of a sum
            assert m.min() >= (-0.1 if name == "nnunet" else 0)  # others come out of a ReLU; nnU-Net's leaks 0.01
        seen.append(m.clone())
    assert all(torch.equal(a, b) for a, b in zip(seen, encoder(x), strict=True))
    assert len({m.data_ptr() for m in encoder(x)}) == len(seen)


def test_the_description_goes_before_the_defaults():
    encoder = build_encoder({"name": "unet", "width": 2, "in_channels": 3}, in_channels=1, spatial_dims=2)
    assert (encoder.in_channels, encoder.spatial_dims) == (3, 2)
    assert build_encoder("unet", width=2).describe()["width"] == 2


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("resnet81", "no encoder 'resnet81'; did you mean 'resnet18'"),
        ({"name": "unet", "widht": 4}, "no setting 'widht'; did you mean 'width'"),
        ({"width": 4}, "no 'name'"),
        ({"name": "unet", "spatial_dims": 4}, "2 or 3 spatial dimensions, not 4"),
        ({"name": "unet", "width": 0}, "at least 1"),
        ({"name": "resnet18", "in_channels": 0}, "at least 1"),
        ({"name": "resnet18", "stem": "smal"}, "did you mean 'small'"),
        ({"name": "resnet18", "shortcut": "C"}, "no shortcut 'C'"),
        ({"name": "densenet121", "width": 5}, "even width"),
    ],
)
def test_wrong_descriptions_are_refused_with_one_sentence(description, message):
    with pytest.raises(ScanlearnError, match=message):
        build_encoder(description)


def test_a_network_of_an_encoder_alone_publishes_its_names_without_prefix():
    network = Network(tiny("resnet18", 2, 1))
    assert list(network.published_state_dict()) == list(network.encoder.state_dict())


def test_grey_images_are_repeated_and_normalised_in_every_copy_of_the_encoder():
    statistics = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}
    plain = tiny("unet", 2, 3).eval()
    encoder = tiny("unet", 2, 3, normalise=statistics).eval()
    encoder.load_state_dict(plain.state_dict())  # the statistics are a setting, no tensor of the file
    grey = torch.rand(2, 1, 16, 16)
    mean, std = (torch.tensor(statistics[part]).view(1, 3, 1, 1) for part in ("mean", "std"))
    expected = plain((grey.repeat(1, 3, 1, 1) - mean) / std)
    again = build_encoder(json.loads(json.dumps(encoder.describe()))).eval()
    again.load_state_dict(encoder.state_dict())
    for copy_ in (encoder, copy.deepcopy(encoder), again):
        for ours, theirs in zip(copy_(grey), expected, strict=True):
            assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize(
    "statistics", [{"mean": [0.5], "std": [0.2]}, {"mean": [0.5] * 3}, {"mean": [0.0] * 3, "std": [0.0] * 3}]
)
def test_statistics_that_do_not_fit_the_channels_are_refused(statistics):
    with pytest.raises(ScanlearnError, match=r"mean and std of 3 channel\(s\)"):
        tiny("unet", 2, 3, normalise=statistics)


def test_other_shapes_of_input_are_refused_with_one_sentence():
    for shape in ((1, 3, 16, 16), (1, 1, 16, 16, 16), (16, 16)):
        with pytest.raises(ScanlearnError, match="takes 2D images of 1 channel"):
            tiny("unet", 2, 1)(torch.rand(shape))
