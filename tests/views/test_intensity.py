import numpy as np
import pytest
import torch

from scanlearn.errors import ScanlearnError
from scanlearn.randomness import Draws
from scanlearn.views.intensity import (
    GaussianBlur,
    GaussianNoise,
    IntensityShift,
    Normalise,
    RepeatChannels,
    blur_matrix,
)
from views import reference


def draws(count):
    return Draws.for_step(0, 0, range(count))


@pytest.mark.parametrize("length", [1, 2, 5, 30])
def test_the_blur_matrix_is_a_plain_loop_over_taps(length):
    sigma, line = torch.tensor([0.1, 0.8, 2.0]), torch.rand(length)
    for s, matrix in zip(sigma, blur_matrix(sigma, length, 8), strict=True):
        wanted = reference.gaussian_line(line.double().numpy(), float(s), 8)
        assert np.abs((matrix @ line).numpy() - wanted).max() < 1e-6


@pytest.mark.parametrize("shape", [(3, 2, 14, 9), (3, 2, 8, 7, 10)])
def test_blur_smooths_along_every_axis(shape):
    x, sigma = torch.rand(shape), torch.tensor([0.3, 1.0, 1.9])
    wanted = x.double().numpy()
    for axis in range(2, len(shape)):
        pairs = zip(wanted, sigma.tolist(), strict=True)
        wanted = np.stack([np.apply_along_axis(reference.gaussian_line, axis - 1, image, s, 8) for image, s in pairs])
    assert np.abs(GaussianBlur((0.1, 2.0)).apply(x, {"sigma": sigma}).numpy() - wanted).max() < 1e-6


def test_blur_widths_are_uniform():
    sigma = GaussianBlur((0.1, 2.0)).draw((4000, 1, 4, 4), draws(4000))["sigma"]
    assert 0.1 <= sigma.min() < 0.12 and 1.98 < sigma.max() <= 2.0 and abs(sigma.mean() - 1.05) < 0.04


def test_noise_is_normal_with_the_drawn_width_and_independent():
    x, op = torch.full((8, 1, 60, 60), 0.5), GaussianNoise((0.02, 0.1))
    params = op.sample(x.shape, draws(8))
    noise = (op.replay(x, params) - 0.5).flatten(1) / params["std"][:, None]
    assert (noise.mean(1).abs() < 0.07).all() and (noise.std(1) - 1).abs().max() < 0.05
    assert abs((noise**4).mean() - 3) < 0.15
    assert (torch.corrcoef(noise) - torch.eye(8)).abs().max() < 0.07


def test_each_image_gets_mean_zero_and_deviation_one():
    x = torch.rand(3, 2, 5, 6) * torch.tensor([1.0, 0.1, 0.0]).view(3, 1, 1, 1)
    out = Normalise()(x, draws(3)).flatten(1)
    assert out.mean(1).abs().max() < 1e-5 and (out[:2].std(1, correction=0) - 1).abs().max() < 1e-4
    assert (out[2] == 0).all()


def test_given_mean_and_deviation_belong_to_channels():
    x = torch.rand(2, 3, 4, 4)
    out = Normalise([0.1, 0.2, 0.3], [1.0, 2.0, 4.0])(x, draws(2))
    assert torch.allclose(out[:, 2], (x[:, 2] - 0.3) / 4)
    with pytest.raises(ScanlearnError, match="3 numbers for an image with 1 channels"):
        Normalise([0.1, 0.2, 0.3], [1.0, 2.0, 4.0])(x[:, :1], draws(2))


def test_a_grey_image_is_repeated_and_a_colour_image_is_left():
    x = torch.rand(2, 1, 4, 4)
    out = RepeatChannels(3)(x, draws(2))
    assert out.shape == (2, 3, 4, 4) and all(torch.equal(out[:, [k]], x) for k in range(3))
    assert RepeatChannels(3)(out, draws(2)) is out
    with pytest.raises(ScanlearnError, match="2 channels cannot be repeated to 3"):
        RepeatChannels(3)(torch.rand(2, 2, 4, 4), draws(2))


def test_a_shift_is_one_number_for_each_channel_uniform_on_both_sides_of_zero():
    x = torch.full((400, 3, 4, 4), 0.5)
    moved = IntensityShift(0.2)(x, draws(400)) - 0.5
    assert (moved == moved[:, :, :1, :1]).all()
    each = moved[:, :, 0, 0]
    assert each.min() >= -0.2 and each.max() < 0.2 and abs(each.mean()) < 0.01
    assert each.std().item() == pytest.approx(0.4 / 12**0.5, rel=0.05)
    assert (torch.corrcoef(each.T) - torch.eye(3)).abs().max() < 0.15  # channels apart
    bright = IntensityShift(0.2)(torch.ones(8, 1, 2, 2), draws(8))
    assert bright.max() == 1
