"""What every view op must keep, asked of each in 2D and 3D, and the parts that all ops share."""

import pytest
import torch

from scanlearn.errors import ScanlearnError
from scanlearn.randomness import Draws
from scanlearn.views.op import VIEWS, build_op, move_labels

SHAPES = {2: (20, 27), 3: (16, 17, 12)}
OWN = "its own shape"

# name: [(settings, spatial size of the result for 2D and 3D)]; channels are tested apart.
CASES = {
    "brightness_contrast": [({}, OWN)],
    "centre_crop": [({"size": 8}, 8)],
    "clamp": [({"low": 0.2, "high": 0.7}, OWN)],
    "colour_jitter": [({}, OWN), ({"p": 0.5, "hue": 0.4}, OWN)],
    "cut_out": [({}, OWN), ({"holes": 2, "side": 5, "fill": 0.4, "p": 0.5}, OWN)],
    "elastic": [({}, OWN), ({"alpha": 60.0, "sigma": 3.0, "p": 0.5}, OWN), ({"relative": True}, OWN)],
    "flip": [({}, OWN), ({"axes": [-1], "p": 0.9}, OWN), ({"mode": "genesis", "p": 0.4}, OWN)],
    "gaussian_blur": [({}, OWN), ({"p": 0.5, "sigma": [3.0, 9.0]}, OWN)],
    "gaussian_noise": [({}, OWN), ({"p": 0.5}, OWN)],
    "intensity_shift": [({}, OWN), ({"amount": 0.4, "p": 0.5}, OWN)],
    "grayscale": [({}, OWN), ({"p": 0.5}, OWN)],
    "in_paint": [({}, OWN), ({"fill": "constant"}, OWN), ({"fill": 0.0, "side": [2, 40], "first": 1.0}, OWN)],
    "intensity_curve": [({}, OWN), ({"p": 0.5}, OWN)],
    "labelled_turns": [({}, OWN), ({"p": 0.5}, OWN)],
    "local_shuffle": [({"windows": 200}, OWN), ({"windows": "density", "p": 0.5}, OWN)],
    "normalise": [({}, OWN), ({"mean": 0.4, "std": 0.2}, OWN)],
    "one_of": [({"ops": ["in_paint", {"out_paint": {"p": 0.5}}, {"flip": {}}], "weights": [2, 1, 1], "p": 0.8}, OWN)],
    "out_paint": [({}, OWN), ({"fill": "constant", "p": 0.5}, OWN), ({"fill": 0.5, "removed": [1, 99]}, OWN)],
    "quarter_turns": [({}, OWN), ({"mirror": False, "p": 0.5}, OWN)],
    "random_crop": [({"size": 9}, 9)],
    "random_resized_crop": [({"size": 14}, 14), ({"size": 40, "scale": [0.1, 0.2], "antialias": False}, 40)],
    "random_scale": [({}, OWN), ({"low": 0.5, "high": 2.0, "fill": 0.3, "p": 0.5}, OWN)],
    "repeat_channels": [({"channels": 3}, OWN)],
    "resize": [({"size": 11}, 11), ({"size": 33, "antialias": False}, 33)],
    "rotate": [({}, OWN), ({"degrees": 90, "interpolation": "nearest", "fill": 0.3, "p": 0.5}, OWN)],
    "solarise": [({}, OWN), ({"threshold": 0.3, "p": 0.5}, OWN)],
    "swap_patches": [({}, OWN), ({"swaps": 3, "side": [2, 6], "snapshot": True, "p": 0.5}, OWN)],
}
EVERY = [(name, settings, size, dims) for name, cases in CASES.items() for settings, size in cases for dims in (2, 3)]
each_op = pytest.mark.parametrize(
    ("name", "settings", "size", "dims"),
    EVERY,
    ids=[f"{name}-{i}-{case[-1]}d" for i, (name, *case) in enumerate(EVERY)],
)


def images(count, channels, dims, dtype=torch.float32):
    """Smooth-ish pictures with values in [0, 1], some of them exactly 0 and 1."""
    generator = torch.Generator().manual_seed(count + channels)
    x = torch.rand(count, channels, *SHAPES[dims], generator=generator, dtype=dtype)
    return (x * 1.4 - 0.2).clamp(0, 1)


def test_every_registered_op_has_a_case_here():
    assert sorted(CASES) == VIEWS.names()


@each_op
@pytest.mark.parametrize("channels", [1, 3])
def test_a_batch_gives_what_its_samples_give_alone(name, settings, size, dims, channels):
    op, x = VIEWS.build(name, settings), images(5, channels, dims)
    whole = op(x, Draws.for_step(1, 2, range(5)))
    alone = torch.cat([op(x[i : i + 1], Draws.for_step(1, 2, [i])) for i in range(5)])
    assert torch.allclose(whole, alone, rtol=0, atol=1e-6)


@each_op
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_type_and_range_are_as_stated_and_the_input_is_not_modified(name, settings, size, dims, dtype):
    op, x = VIEWS.build(name, settings), images(6, 3, dims, dtype)
    before = x.clone()
    out = op(x, Draws.for_step(0, 0, range(6)))
    assert torch.equal(x, before)
    assert out.dtype == dtype and out.isfinite().all()
    assert out.shape == (6, 3, *(SHAPES[dims] if size is OWN else (size,) * dims))
    assert op.keeps_shape == (out.shape == x.shape) or name == "repeat_channels"
    if op.keeps_unit_range:
        assert out.min() >= -1e-6 and out.max() <= 1 + 1e-6


@each_op
def test_what_is_drawn_is_reproducible_and_belongs_to_samples(name, settings, size, dims):
    op, shape = VIEWS.build(name, settings), (7, 1, *SHAPES[dims])
    first, again = (op.sample(shape, Draws.for_step(3, 4, range(7))) for _ in range(2))
    assert first.keys() == again.keys()
    for key, value in first.items():
        assert len(value) == 7 and torch.equal(value, again[key])
        assert value.numel() <= 7 * 100, "large fields are expanded from keys in apply, never drawn"
    x = images(7, 1, dims)
    assert torch.equal(op.replay(x, first), op.replay(x, again))


@each_op
def test_memory_layout_does_not_matter(name, settings, size, dims):
    op, x = VIEWS.build(name, settings), images(3, 2, dims).movedim(2, -1)
    if name == "repeat_channels":
        x = x[:, :1]
    results = [op(y, Draws.for_step(0, 0, range(3))) for y in (x, x.contiguous())]
    assert torch.allclose(*results, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", sorted(name for name in CASES if "p" in VIEWS.settings(name) and name != "flip"))
@pytest.mark.parametrize("dims", [2, 3])
def test_samples_that_were_not_chosen_are_exactly_unchanged(name, dims):
    settings = {**CASES[name][0][0], "p": 0.5}
    op, x = VIEWS.build(name, settings), images(20, 3, dims)
    params = op.sample(x.shape, Draws.for_step(0, 0, range(20)))
    chosen = params["chosen"]
    assert 3 < chosen.sum() < 17
    out = op.replay(x, params)
    assert torch.equal(out[~chosen], x[~chosen])
    certain = VIEWS.build(name, {**settings, "p": 1.0})
    drawn = {key: value for key, value in params.items() if key != "chosen"}
    assert torch.allclose(out[chosen], certain.replay(x, drawn)[chosen], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name][0][1] is OWN and name != "one_of"])
@pytest.mark.parametrize("spatial", [(1, 1), (3, 5), (9, 2, 1)])
def test_thin_images_do_not_break_an_op(name, spatial):
    if (name, spatial) == ("swap_patches", (1, 1)):
        pytest.skip("one pixel has nothing to exchange with: refused, see test_swap.py")
    x = torch.rand(4, 1, *spatial)
    assert VIEWS.build(name, CASES[name][0][0])(x, Draws.for_step(0, 0, range(4))).isfinite().all()


@pytest.mark.parametrize("name", ["elastic", "flip", "labelled_turns", "quarter_turns", "random_scale", "swap_patches"])
@pytest.mark.parametrize("dims", [2, 3])
def test_a_mask_follows_an_op_that_moves_the_image(name, dims):
    # A square picture, itself the mask: what the op makes of it, cut at a half, is where the mask has to be.
    side, settings = (16,) * dims, CASES[name][0][0]
    mask = torch.nn.functional.avg_pool2d(torch.rand(6, 1, *side).flatten(3), 5, 1, 2).view(6, 1, *side) > 0.5
    op = VIEWS.build(name, settings)
    assert op.moves
    params = op.sample(mask.shape, Draws.for_step(0, 0, range(6)))
    image = op.replay(mask.double(), params)
    followed = move_labels(mask.to(torch.uint8), op, params)
    assert followed.dtype == torch.uint8 and followed.shape == image.shape
    clear = (image - 0.5).abs() > 1e-3
    assert clear.float().mean() > 0.5 and torch.equal(followed[clear] == 1, image[clear] > 0.5)


def test_an_op_with_p_zero_returns_its_input():
    x = images(3, 1, 2)
    assert VIEWS.build("intensity_curve", {"p": 0.0})(x, Draws.for_step(0, 0, range(3))) is x


def test_one_of_chooses_by_weight_and_only_one():
    ops = [{"in_paint": {"first": 1.0, "fill": 2.0}}, {"out_paint": {"fill": 3.0}}]
    op, x = build_op({"one_of": {"ops": ops, "weights": [0.2, 0.8]}}), torch.zeros(4000, 1, 20, 20)
    out = op(x, Draws.for_step(0, 0, range(4000))).flatten(1)
    twos, threes = (out == 2).any(1), (out == 3).any(1)
    assert not (twos & threes).any() and (twos | threes).all()
    assert abs(twos.float().mean() - 0.2) < 0.025  # four standard errors


def test_one_of_respects_the_probability_of_the_chosen_op():
    op = build_op({"one_of": {"ops": [{"clamp": {}}, {"out_paint": {"fill": 3.0, "p": 0.25}}], "weights": [0, 1]}})
    out = op(torch.zeros(2000, 1, 20, 20), Draws.for_step(0, 0, range(2000))).flatten(1)
    assert abs((out == 3).any(1).float().mean() - 0.25) < 0.04


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("intensity_curv", "did you mean 'intensity_curve'"),
        ({"flip": {"axis": [0]}}, "did you mean 'axes'"),
        ({"flip": {}, "clamp": {}}, "is written as a name or as one"),
        ({"flip": 0.5}, "The settings of the view op 'flip' are written"),
        ({"gaussian_noise": {"p": 1.5}}, "not in 0..1"),
        ({"one_of": {"ops": ["flip"], "weights": [1, 2]}}, "one weight >= 0 for each op"),
        ({"one_of": {"ops": [{"resize": {"size": 3}}]}}, "keep the shape"),
        ({"one_of": {"ops": ["clamp", "labelled_turns"]}}, "cannot hand on what 'labelled_turns' did"),
        ({"elastic": {"sigma": 0}}, "sigma in 0..1000 voxels, not 991.0 and 0"),
        ({"elastic": {"alpha": -1}}, "alpha must be >= 0"),
        ({"swap_patches": {"side": [0.5, 4]}}, "two shares of the axis below 1 or two voxel counts, low first"),
        ({"swap_patches": {"side": [9, 4]}}, "low first, not .9, 4."),
        ({"swap_patches": {"swaps": -1}}, "swaps is a number >= 0"),
        ({"in_paint": {"fill": "nois"}}, "fill is noise, constant or a number"),
        ({"in_paint": {"side": [20, 10]}}, "side is written as two voxel counts or two shares of the axis below 1"),
        ({"in_paint": {"side": [0.5, 10]}}, "two shares of the axis below 1, low first, not .0.5, 10."),
        ({"out_paint": {"removed": [5]}}, "removed is written as two voxel counts"),
        ({"local_shuffle": {"windows": "many"}}, "or 'density'"),
        ({"random_scale": {"low": 1.2}}, "factors from 0.1 to 10, not 1.2 and 1.1"),
        ({"rotate": {"interpolation": "cubic"}}, "linear or nearest"),
        ({"gaussian_blur": {"sigma": [2.0, 1.0]}}, "low first"),
        ({"normalise": {"mean": 0.5}}, "both mean and std"),
        ({"grayscale": {"channels": 1, "p": 0.5}}, "p = 1"),
        ({"flip": {"legacy_axes": True}}, "belongs to `mode: genesis`"),
    ],
)
def test_a_wrong_setting_is_refused_in_one_sentence(spec, message):
    with pytest.raises(ScanlearnError, match=message):
        build_op(spec)
