import numpy as np
import pytest
import torch

from scanlearn.errors import ScanlearnError
from scanlearn.randomness import Draws
from scanlearn.views.cut_out import CutOut
from scanlearn.views.op import build_op


def draws(count):
    return Draws.for_step(0, 0, range(count))


@pytest.mark.parametrize(("spatial", "side"), [((20, 27), 8), ((20, 27), [3, 7]), ((12, 9, 10), 5)])
def test_holes_are_those_of_the_plain_loop_clipped_at_the_border(spatial, side):
    x, op = torch.rand(6, 2, *spatial), CutOut(holes=3, side=side, fill=[0.2, 0.7])
    params = op.sample(x.shape, draws(6))
    wanted = x.numpy().copy()
    sides = [side] * len(spatial) if isinstance(side, int) else side
    for image, corners in zip(wanted, params["start"].tolist(), strict=True):
        for corner in corners:
            box = tuple(slice(max(a, 0), min(a + s, n)) for a, s, n in zip(corner, sides, spatial, strict=True))
            for channel, value in enumerate((0.2, 0.7)):
                image[(channel, *box)] = value
    np.testing.assert_array_equal(op.replay(x, params).numpy(), wanted.astype(np.float32))


def test_centres_are_uniform_over_all_pixels():
    op = CutOut(holes=1, side=32)
    centre = op.draw((20_000, 1, 224, 224), draws(20_000))["start"][:, 0] + 16
    assert centre.min() == 0 and centre.max() == 223
    assert (centre.float().mean(0) - 111.5).abs().max() < 2 and (centre.float().std(0) - 64.7).abs().max() < 1.5


def test_three_holes_of_32_take_a_known_share_of_224_pixels():
    op = CutOut(holes=3, side=32, fill=2.0)
    share = (op(torch.zeros(400, 1, 224, 224), draws(400)) == 2).float().mean()
    # A pixel is under a hole with the share of the centres that reach it, along each axis.
    at = np.array([sum(-16 <= pixel - c < 16 for c in range(224)) / 224 for pixel in range(224)])
    assert share == pytest.approx(1 - np.mean((1 - np.outer(at, at)) ** 3), abs=0.0015)


def test_zero_after_normalisation_is_the_mean_before_it():
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    x = torch.rand(4, 3, 30, 30)
    ours = (CutOut(side=9, fill=[0.485, 0.456, 0.406])(x, draws(4)) - mean) / std
    after = CutOut(side=9, fill=0.0)((x - mean) / std, draws(4))
    torch.testing.assert_close(ours, after, atol=1e-6, rtol=0)


def test_golden_values():
    holes = CutOut(holes=2, side=4).draw((2, 1, 10, 12), draws(2))["start"]
    assert holes.tolist() == [[[2, 1], [3, 9]], [[6, 9], [1, 8]]]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"holes": 0}, "1 hole or more"),
        ({"fill": []}, "1 hole or more"),
        ({"side": [3, 3, 3]}, "does not fit an image with 2 spatial axes"),
        ({"side": 0}, "does not fit"),
        ({"fill": [0.1, 0.2]}, "2 numbers for an image with 1 channels"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, said):
    with pytest.raises(ScanlearnError, match=said):
        build_op({"cut_out": settings})(torch.rand(2, 1, 16, 16), draws(2))
