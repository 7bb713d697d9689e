import numpy as np
import pytest
import torch
from scipy import ndimage

from scanlearn.randomness import Draws, uniform_from
from scanlearn.views.elastic import Elastic, displace, smooth
from views import reference

CUBE = (64, 64, 32)


def draws(count):
    return Draws.for_step(0, 0, range(count))


def displacements(op, spatial, count):
    """The fields (count, 2, *spatial), in voxels, that ``op`` draws for images of this size."""
    alpha, sigma = op.strength(spatial)
    keys = op.draw((count, 1, *spatial), draws(count))["field"]
    return smooth(uniform_from(keys, 2, *spatial) * 2 - 1, sigma) * alpha


def rms(values):
    return float(values.square().mean().sqrt())


@pytest.mark.parametrize(
    "spatial", [CUBE, (32, 32, 20), (40, 56, 24), (56, 40, 7), (64, 64), (50, 33), (9, 2, 1), (1, 1)]
)
def test_the_image_is_that_of_scipy_for_the_same_noise(spatial):
    x, op = torch.rand(2, 2, *spatial), Elastic(991.0 if len(spatial) == 3 else 180.0)
    params = op.draw(x.shape, draws(2))
    noise, out = uniform_from(params["field"], 2, *spatial).double().numpy() * 2 - 1, op.apply(x, params)
    for i in range(2):
        for c in range(2):
            wanted = reference.elastic(x[i, c].double().numpy(), noise[i], op.alpha, op.sigma)
            assert np.abs(out[i, c].numpy() - wanted).max() < 2e-5


@pytest.mark.parametrize(("spatial", "sigma"), [(CUBE, 8.0), ((30, 41, 5), 3.3), ((50, 33), 20.0), ((3, 1), 8.0)])
def test_smoothing_is_that_of_scipy(spatial, sigma):
    noise = torch.rand(2, 2, *spatial) * 2 - 1
    wanted = ndimage.gaussian_filter(noise.double().numpy(), (0, 0, *(sigma,) * len(spatial)), mode="constant")
    assert np.abs(smooth(noise, sigma).numpy() - wanted).max() < 1e-7


@pytest.mark.parametrize("spatial", [(12, 17), (9, 6, 4), (1, 5, 3)])
def test_far_beyond_the_border_the_image_goes_on_mirrored(spatial):
    # Displacements of several sides, so that places are mirrored more than once.
    x, shift = torch.rand(1, 1, *spatial), torch.randn(1, 2, *spatial) * 30
    places = np.meshgrid(*map(np.arange, spatial), indexing="ij")
    moved = [places[0] + shift[0, 0].double().numpy(), places[1] + shift[0, 1].double().numpy(), *places[2:]]
    wanted = ndimage.map_coordinates(x[0, 0].double().numpy(), moved, order=1, mode="reflect")
    assert np.abs(displace(x, shift)[0, 0].numpy() - wanted).max() < 1e-4


def test_no_displacement_is_the_image_and_whole_voxels_are_copied():
    x, shift = torch.rand(2, 3, 10, 12, 5), torch.zeros(2, 2, 10, 12, 5)
    assert torch.allclose(displace(x, shift), x, rtol=0, atol=1e-5)
    shift[:, 0], shift[:, 1] = 2.0, -1.0
    moved = displace(x, shift)
    assert torch.allclose(moved[:, :, :8, 1:], x[:, :, 2:, :-1], rtol=0, atol=1e-5)
    assert torch.allclose(moved[:, :, 8:, 1:], x[:, :, [9, 8], :-1], rtol=0, atol=1e-5)
    assert torch.allclose(moved[:, :, :8, 0], x[:, :, 2:, 0], rtol=0, atol=1e-5)


def test_nothing_moves_along_the_third_axis():
    x = torch.rand(5).expand(3, 1, 20, 20, 5)
    assert torch.allclose(Elastic()(x, draws(3)), x, rtol=0, atol=1e-6)


def test_channels_move_together():
    x = torch.rand(2, 1, 30, 30)
    out = Elastic(180.0)(x.repeat(1, 3, 1, 1), draws(2))
    assert not torch.allclose(out[:, :1], x, atol=0.1)
    assert torch.equal(out[:, 1], out[:, 0]) and torch.equal(out[:, 2], out[:, 0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_are_moved_as_float32(dtype):
    x = torch.rand(2, 1, 24, 24, 12).to(dtype)
    out = Elastic()(x, draws(2))
    assert out.dtype == dtype and torch.equal(out, Elastic()(x.float(), draws(2)).to(dtype))


def test_the_published_numbers_move_a_voxel_by_about_three():
    fields = displacements(Elastic(), CUBE, 24)
    assert abs(rms(fields) - 3.27) < 0.1
    assert abs(rms(fields[:, :, 24:40, 24:40, 8:24]) - 3.8) < 0.25
    assert 8 < fields.abs().flatten(1).amax(1).median() < 13
    for axis in (0, 1):
        assert abs(fields[:, axis].mean()) < 1.0  # four standard errors; a cube's own mean varies by 1.3


def test_the_two_fields_and_those_of_different_samples_are_independent():
    flat = displacements(Elastic(), (32, 32, 16), 60).flatten(2)
    flat = flat / flat.square().mean(-1, keepdim=True).sqrt()
    between = (flat[:, 0] * flat[:, 1]).mean(-1)  # fields of about 30 independent places each
    assert abs(between.mean()) < 0.12 and 0.05 < between.std() < 0.5
    others = (flat[:-1, 0] * flat[1:, 0]).mean(-1)
    assert abs(others.mean()) < 0.12


def test_relative_changes_nothing_in_the_published_cube():
    assert Elastic(relative=True).strength(CUBE) == pytest.approx((991.0, 8.0))


def expected_in_the_middle(op, spatial):
    """Root mean square displacement, in voxels, of the middle voxel: noise of variance 1/3, weighted by the filter."""
    alpha, sigma = op.strength(spatial)
    impulse = torch.zeros(1, 1, *spatial)
    impulse[(0, 0, *(n // 2 for n in spatial))] = 1.0
    return alpha * float((smooth(impulse, sigma).double().square().sum() / 3).sqrt())


@pytest.mark.parametrize("spatial", [CUBE, (32, 32, 16), (40, 56, 40), (96, 96, 96), (64, 64), (224, 224), (180, 70)])
def test_relative_moves_by_the_same_share_of_the_side(spatial):
    op, side = Elastic(relative=True), (spatial[0] * spatial[1]) ** 0.5
    assert op.strength(spatial)[1] == pytest.approx(side / 8)
    assert expected_in_the_middle(op, spatial) / side == pytest.approx(3.79 / 64, rel=0.03)


def test_the_published_numbers_turn_two_fifths_of_a_picture_inside_out():
    fields = displacements(Elastic(), (128, 128), 12)
    by_row, by_column = fields.diff(dim=2)[..., :-1], fields.diff(dim=3)[:, :, :-1]
    area = (1 + by_row[:, 0]) * (1 + by_column[:, 1]) - by_row[:, 1] * by_column[:, 0]
    assert abs((area < 0).float().mean() - 0.41) < 0.05
    assert expected_in_the_middle(Elastic(), (128, 128)) == pytest.approx(20.2, abs=0.3)


def test_without_relative_a_small_cube_is_moved_by_as_many_voxels():
    assert Elastic(500.0, 5.0).strength((32, 32, 16)) == (500.0, 5.0)
    assert expected_in_the_middle(Elastic(), (32, 32, 32)) == pytest.approx(3.7, abs=0.15)


def test_a_thin_slab_moves_less_but_moves():
    assert 1 < rms(displacements(Elastic(), (64, 64, 5), 8)) < 3


def test_a_deformation_has_its_golden_values():
    # Displacements at three voxels of a 64x64x32 cube, and what they make of a ramp along each axis.
    fields = displacements(Elastic(), CUBE, 2)
    assert fields[:, :, 32, 32, 16].flatten().tolist() == pytest.approx(
        [6.39924, -1.81009, 1.70840, -1.67075], abs=2e-4
    )
    assert fields[:, :, 5, 60, 30].flatten().tolist() == pytest.approx([2.55809, -1.46256, 2.39782, -0.50368], abs=2e-4)
    ramp = torch.arange(64.0).view(1, 1, 64, 1, 1).expand(2, 1, *CUBE) / 64
    assert Elastic()(ramp, draws(2))[:, 0, 32, 32, 16].tolist() == pytest.approx([0.59999, 0.52669], abs=1e-5)
