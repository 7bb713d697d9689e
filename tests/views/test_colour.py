import colorsys

import numpy as np
import pytest
import torch

from scanlearn.randomness import Draws
from scanlearn.views.colour import BrightnessContrast, ColourJitter, Grayscale, hue, luminance


def draws(count):
    return Draws.for_step(0, 0, range(count))


def plain_jitter(image, factors, order):
    """Torchvision's ColorJitter on one image (3, H, W), float64, one step after the other."""
    weights = np.array([0.299, 0.587, 0.114])
    for step in order:
        grey = np.tensordot(weights, image, 1)
        if step == 0:
            image = image * factors[0]
        elif step == 1:
            image = image * factors[1] + grey.mean() * (1 - factors[1])
        elif step == 2:
            image = image * factors[2] + grey * (1 - factors[2])
        else:
            turned = np.empty_like(image)
            for at in np.ndindex(image.shape[1:]):
                h, s, v = colorsys.rgb_to_hsv(*image[(slice(None), *at)])
                turned[(slice(None), *at)] = colorsys.hsv_to_rgb((h + factors[3]) % 1.0, s, v)
            image = turned
        image = image.clip(0, 1)
    return image


def test_jitter_is_its_four_steps_in_the_drawn_order():
    x, op = torch.rand(30, 3, 4, 5), ColourJitter(0.4, 0.4, 0.4, 0.4)
    params = op.sample(x.shape, draws(30))
    assert len({tuple(order) for order in params["order"].tolist()}) > 12
    out = op.replay(x, params).double().numpy()
    for i, image in enumerate(x.double().numpy()):
        wanted = plain_jitter(image, params["factor"][i].tolist(), params["order"][i].tolist())
        assert np.abs(out[i] - wanted).max() < 2e-5


def test_factors_are_uniform_in_their_ranges():
    factor = ColourJitter(0.4, 0.2, 1.5, 0.1).draw((5000, 3, 4, 4), draws(5000))["factor"]
    for k, (low, high) in enumerate([(0.6, 1.4), (0.8, 1.2), (0.0, 2.5), (-0.1, 0.1)]):
        assert low <= factor[:, k].min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < factor[:, k].max() <= high


@pytest.mark.parametrize("turn", [0.5, -0.2, 1 / 3])
def test_hue_turns_pure_and_mixed_colours_as_colorsys_does(turn):
    colours = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0.2, 0.5, 0.4), (0.3, 0.3, 0.3), (0, 0, 0), (1, 1, 1)]
    out = hue(torch.tensor(colours).t().view(1, 3, 8, 1), torch.tensor([turn]))[0, :, :, 0].t()
    for colour, got in zip(colours, out.tolist(), strict=True):
        h, s, v = colorsys.rgb_to_hsv(*colour)
        assert np.abs(np.array(got) - colorsys.hsv_to_rgb((h + turn) % 1, s, v)).max() < 1e-6


def test_grey_images_have_no_hue_and_no_saturation():
    x = torch.rand(3, 1, 4, 4, 4)
    assert torch.equal(ColourJitter(0, 0, 0.9, 0.5)(x, draws(3)), x)
    assert torch.equal(Grayscale()(x, draws(3)), x)
    equal = x.expand(3, 3, 4, 4, 4)  # a grey image in three channels
    assert torch.allclose(ColourJitter(0, 0, 0.9, 0.5)(equal, draws(3)), equal, atol=1e-6)


def test_brightness_and_contrast_on_one_channel():
    x, op = torch.rand(6, 1, 5, 5), BrightnessContrast(0.4, 0.4)
    params = op.sample(x.shape, draws(6))
    for i, image in enumerate(x):
        bright, strong = params["factor"][i, :2]
        wanted = image
        for step in params["order"][i].tolist():
            if step == 0:
                wanted = (wanted * bright).clamp(0, 1)
            elif step == 1:
                wanted = (wanted * strong + wanted.mean() * (1 - strong)).clamp(0, 1)
        assert torch.allclose(op.replay(x, params)[i], wanted, atol=1e-6)


def test_grayscale_keeps_the_channels_or_gives_one():
    x = torch.rand(2, 3, 4, 4)
    three, one = Grayscale()(x, draws(2)), Grayscale(channels=1)(x, draws(2))
    assert torch.equal(three, luminance(x).expand(2, 3, 4, 4)) and torch.equal(one, luminance(x))
