import numpy as np
import pytest
import torch
from scipy import ndimage

from scanlearn.errors import ScanlearnError
from scanlearn.randomness import Draws
from scanlearn.views.geometry import Flip, LabelledTurns, QuarterTurns, Rotate, mirror


def draws(count):
    return Draws.for_step(0, 0, range(count))


def test_mirroring_is_done_sample_by_sample():
    x = torch.rand(4, 2, 3, 4, 5)
    mirrored = torch.tensor([[1, 0, 0], [0, 0, 0], [1, 0, 1], [0, 1, 1]], dtype=torch.bool)
    wanted = [x[0].flip(1), x[1], x[2].flip(1, 3), x[3].flip(2, 3)]
    assert torch.equal(mirror(x, mirrored), torch.stack(wanted))


def test_each_axis_is_mirrored_with_the_given_probability():
    share = Flip(p=0.3, axes=[0, -1]).draw((20_000, 1, 4, 4, 4), draws(20_000))["mirrored"].float().mean(0)
    assert share[1] == 0 and abs(share[0] - 0.3) < 0.015 and abs(share[2] - 0.3) < 0.015


def test_the_legacy_flip_of_models_genesis_has_its_measured_shares():
    op = Flip(p=0.4, mode="genesis", legacy_axes=True)
    rows, columns, depth = op.draw((40_000, 1, 4, 4, 4), draws(40_000))["mirrored"].unbind(1)
    shares = {"none": ~rows & ~columns, "rows": rows & ~columns, "columns": columns & ~rows, "both": rows & columns}
    for name, wanted in {"none": 0.729, "rows": 0.118, "columns": 0.118, "both": 0.035}.items():
        assert abs(shares[name].float().mean() - wanted) < 0.01, name
    assert not depth.any()


def test_the_genesis_flip_treats_all_spatial_axes_alike():
    share = Flip(p=0.4, mode="genesis").draw((40_000, 1, 4, 4, 4), draws(40_000))["mirrored"].float().mean(0)
    # One axis is hit an odd number of times in the 0, 1, 2 or 3 rounds with probabilities .6, .24, .096, .064.
    wanted = sum(p * (1 - (1 - 2 / 3) ** rounds) / 2 for rounds, p in enumerate([0.6, 0.24, 0.096, 0.064]))
    assert (share - wanted).abs().max() < 0.008


def test_flip_axes_that_do_not_exist_are_refused():
    with pytest.raises(ScanlearnError, match="do not fit an image with 2 spatial axes"):
        Flip(axes=[2])(torch.rand(1, 1, 4, 4), draws(1))


@pytest.mark.parametrize("shape", [(9, 9), (8, 13)])
def test_rotation_equals_scipy(shape):
    x = torch.rand(1, 1, *shape, dtype=torch.float64)
    angle = torch.tensor([0.3], dtype=torch.float64)
    out = Rotate(fill=0.25).apply(x, {"angle": angle})[0, 0].numpy()
    cos, sin = np.cos(0.3), np.sin(0.3)
    matrix, centre = np.array([[cos, sin], [-sin, cos]]), (np.array(shape) - 1) / 2
    wanted = ndimage.affine_transform(
        x[0, 0].numpy(), matrix, centre - matrix @ centre, order=1, mode="grid-constant", cval=0.25
    )
    assert np.abs(out - wanted).max() < 1e-9


@pytest.mark.parametrize("interpolation", ["linear", "nearest"])
def test_a_quarter_turn_moves_whole_pixels(interpolation):
    x = torch.rand(1, 1, 8, 8)
    out = Rotate(90, interpolation).apply(x, {"angle": torch.tensor([np.pi / 2])})
    turned = (torch.rot90(x, 1, (2, 3)), torch.rot90(x, -1, (2, 3)))
    assert min((out - t).abs().max() for t in turned) < 1e-5


def test_in_3d_every_slice_is_turned_alike():
    x, params = torch.rand(2, 3, 10, 12, 5), {"angle": torch.tensor([0.2, -0.1])}
    op = Rotate()
    slices = [op.apply(x[..., k], params) for k in range(5)]
    assert torch.allclose(op.apply(x, params), torch.stack(slices, dim=-1), rtol=0, atol=1e-6)


def test_angles_are_uniform_up_to_the_limit():
    angle = torch.rad2deg(Rotate(10).draw((5000, 1, 4, 4), draws(5000))["angle"])
    assert angle.min() > -10 and angle.max() < 10 and abs(angle.std() - 10 / 3**0.5) < 0.15


@pytest.mark.parametrize(
    ("spatial", "count", "rotations"), [((4, 4), 8, 4), ((4, 5), 4, 2), ((4, 4, 3), 16, 8), ((3, 3, 3), 48, 24)]
)
def test_quarter_turns_reach_every_symmetry_equally(spatial, count, rotations):
    x = torch.rand(1, 1, *spatial).expand(2000, 1, *spatial)
    for mirror_too, wanted in ((True, count), (False, rotations)):
        out = QuarterTurns(mirror=mirror_too)(x, draws(2000))
        _, times = out.flatten(1).unique(dim=0, return_counts=True)
        assert len(times) == wanted and times.min() > 2000 / wanted * 0.4


def test_quarter_turns_without_mirror_keep_the_handedness():
    # A corner with its three neighbours at distances 1, 2 and 3 is a left or a right hand.
    at = torch.stack(torch.meshgrid(*(torch.arange(5.0),) * 3, indexing="ij"))
    for image in QuarterTurns(mirror=False)(at[None].expand(200, 3, 5, 5, 5), draws(200)):
        steps = torch.stack([image[:, 1, 0, 0], image[:, 0, 1, 0], image[:, 0, 0, 1]]) - image[:, 0, 0, 0]
        assert torch.linalg.det(steps) > 0.99


def test_quarter_turns_stay_in_the_given_plane():
    x = torch.rand(1, 1, 4, 4, 4)
    symmetries = QuarterTurns(axes=[0, 1])._symmetries(x.shape[2:])
    assert len(symmetries) == 8 and all(order[2] == 2 and not flip[2] for order, flip in symmetries)


def turned_by_hand(cube, axis, turns):
    """cube (n, n, n) after quarter turns about ``axis``, one voxel at a time: axis + 1 goes towards axis + 2."""
    for _ in range(turns):
        out = np.empty_like(cube)
        for place in np.ndindex(cube.shape):
            source, (a, b) = list(place), ((axis + 1) % 3, (axis + 2) % 3)
            # What lay at distance d along a and e along b now lies at n - 1 - e along a and d along b.
            source[a], source[b] = place[b], cube.shape[a] - 1 - place[a]
            out[place] = cube[tuple(source)]
        cube = out
    return cube


def test_labelled_turns_of_a_picture_have_their_golden_values():
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).expand(4, 1, 2, 2)
    out = LabelledTurns().apply(x, {"quarter_turns": torch.arange(4)})
    assert out[:, 0].flatten(1).int().tolist() == [[1, 2, 3, 4], [2, 4, 1, 3], [4, 3, 2, 1], [3, 1, 4, 2]]


def test_the_ten_classes_of_a_cube_are_turns_about_each_axis():
    x = torch.rand(1, 1, 4, 4, 4)
    out = LabelledTurns().apply(x.expand(10, -1, -1, -1, -1), {"quarter_turns": torch.arange(10)})
    wanted = [x[0, 0].numpy()] + [turned_by_hand(x[0, 0].numpy(), axis, t) for axis in range(3) for t in (1, 2, 3)]
    for image, plain in zip(out[:, 0], wanted, strict=True):
        assert np.array_equal(image.numpy(), plain)
    assert len(out.flatten(1).unique(dim=0)) == 10


@pytest.mark.parametrize(
    ("spatial", "classes"),
    [
        ((64, 64), [0, 1, 2, 3]),
        ((64, 48), [0, 2]),
        ((64, 64, 64), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ((64, 64, 32), [0, 2, 5, 7, 8, 9]),
        ((32, 64, 64), [0, 1, 2, 3, 5, 8]),
        ((64, 32, 64), [0, 2, 4, 5, 6, 8]),
        ((40, 56, 24), [0, 2, 5, 8]),
    ],
)
def test_the_classes_that_keep_the_shape_are_drawn_equally_often(spatial, classes):
    turns = LabelledTurns().draw((6000, 1, *spatial), draws(6000))["quarter_turns"]
    found, times = turns.unique(return_counts=True)
    assert found.tolist() == classes and turns.dtype == torch.int64
    share = times / 6000
    assert (share - 1 / len(classes)).abs().max() < 4 * (len(classes) * 6000) ** -0.5


def test_what_labelled_turns_draw_never_changes():
    assert LabelledTurns().draw((8, 1, 9, 9, 9), draws(8))["quarter_turns"].tolist() == [4, 8, 6, 1, 5, 4, 8, 5]
    assert LabelledTurns().draw((8, 1, 9, 9), draws(8))["quarter_turns"].tolist() == [1, 3, 2, 0, 2, 1, 3, 2]
