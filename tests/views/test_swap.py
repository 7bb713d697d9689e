import itertools

import pytest
import torch

from scanlearn.errors import ScanlearnError
from scanlearn.randomness import Draws
from scanlearn.views.swap import SwapPatches, place_outside
from views import reference

CUBE = (64, 64, 32)


def draws(count):
    return Draws.for_step(0, 0, range(count))


def overlap(params):
    """bool (N, swaps): whether the two patches of a pair share a voxel."""
    return ((params["first"] - params["second"]).abs() < params["side"]).all(-1)


@pytest.mark.parametrize("spatial", [(20, 27), (16, 17, 12), (9, 2, 1), (1, 8), CUBE])
@pytest.mark.parametrize("channels", [1, 3])
def test_swapping_equals_a_plain_loop(spatial, channels):
    x, op = torch.rand(3, channels, *spatial), SwapPatches()
    params = op.draw(x.shape, draws(3))
    out = op.apply(x, params)
    for i in range(3):
        pairs = zip(*(params[name][i].tolist() for name in ("first", "second", "side")), strict=True)
        assert (out[i].numpy() == reference.swap_patches(x[i].numpy(), pairs)).all()
    assert not torch.equal(out, x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_histogram_stays_the_same_exactly(dtype):
    x = torch.rand(4, 2, 30, 22, 10).to(dtype)
    out = SwapPatches(swaps=25)(x, draws(4))
    assert out.dtype == dtype and not torch.equal(out, x)
    assert torch.equal(out.flatten(2).sort().values, x.flatten(2).sort().values)


def test_sides_and_places_have_the_stated_ranges():
    p = SwapPatches().draw((600, 1, *CUBE), draws(600))
    for axis, (low, high, n) in enumerate([(8, 16, 64), (8, 16, 64), (4, 8, 32)]):
        side = p["side"][..., axis]
        counts = torch.bincount(side.flatten())[low:]
        assert side.min() == low and side.max() == high and len(counts) == high - low + 1
        assert (counts / counts.sum() - 1 / len(counts)).abs().max() < 0.02
        for name in ("first", "second"):
            start = p[name][..., axis]
            assert start.min() == 0 and (start + side).max() == n
            assert abs((start / (n - side)).mean() - 0.5) < 0.02


@pytest.mark.parametrize(
    ("side", "spatial"),
    [
        ((1 / 8, 1 / 4), CUBE),
        ((0.4, 0.5), (20, 31)),
        ((3, 9), (9, 9, 18)),
        ((5, 5), (10, 5, 3)),
        ((1, 1), (2, 1)),
        ((1 / 8, 1 / 4), (64, 64, 3)),
    ],
)
def test_the_patches_of_a_pair_never_overlap_and_lie_inside(side, spatial):
    p = SwapPatches(side=side).draw((400, 1, *spatial), draws(400))
    assert not overlap(p).any() and (p["side"] >= 1).all()
    for name in ("first", "second"):
        assert (p[name] >= 0).all() and (p[name] + p["side"] <= torch.tensor(spatial)).all()


@pytest.mark.parametrize(
    ("places", "low", "high"),
    [
        ((6, 5, 4), (1, 2, 0), (4, 4, 3)),
        ((6, 5), (0, 0), (6, 2)),
        ((3, 4), (1, 3), (1, 2)),
        ((2, 1, 4), (0, 0, 1), (2, 1, 3)),
        ((5, 3), (0, 0), (4, 3)),
    ],
)
def test_places_outside_a_box_are_equally_probable(places, low, high):
    wanted = {
        at
        for at in itertools.product(*map(range, places))
        if not all(a <= v < b for v, a, b in zip(at, low, high, strict=True))
    }
    u = torch.rand(40_000, len(places) + 1, dtype=torch.float64)
    at = place_outside(u, *(torch.tensor(v).expand(40_000, -1) for v in (places, low, high)))
    found, times = at.unique(dim=0, return_counts=True)
    assert set(map(tuple, found.tolist())) == wanted
    share = times / 40_000
    assert (share * len(wanted) - 1).abs().max() < 5 * (len(wanted) / 40_000) ** 0.5


def test_the_first_patch_goes_wherever_there_is_room_for_a_second():
    # On a line of 11 a patch of 5 that starts at 2, 3 or 4 leaves no five voxels free on either side.
    p = SwapPatches(swaps=40, side=(5, 5)).draw((200, 1, 11, 1), draws(200))
    assert p["first"][..., 0].unique().tolist() == [0, 1, 5, 6]
    p = SwapPatches(swaps=40, side=(4, 4)).draw((200, 1, 11, 1), draws(200))
    assert p["first"][..., 0].unique().tolist() == [0, 1, 2, 3, 4, 5, 6, 7]


def test_later_pairs_exchange_what_they_find():
    x = torch.arange(6.0).view(1, 1, 6, 1)
    params = {name: torch.tensor([[[a, 0], [b, 0]]]) for name, (a, b) in {"first": (0, 2), "second": (2, 4)}.items()}
    params["side"] = torch.tensor([[[2, 1], [2, 1]]])
    assert SwapPatches(swaps=2, side=(2, 2)).apply(x, params).flatten().tolist() == [2, 3, 4, 5, 0, 1]


def test_the_default_moves_about_an_eighth_of_the_voxels():
    x = torch.arange(2.0**17).view(1, 1, *CUBE).expand(16, -1, -1, -1, -1)
    assert abs((SwapPatches()(x, draws(16)) != x).float().mean() - 0.12) < 0.02


def test_no_swaps_change_nothing():
    x = torch.rand(2, 1, 5, 6)
    assert torch.equal(SwapPatches(swaps=0)(x, draws(2)), x)


@pytest.mark.parametrize(
    ("side", "spatial", "message"),
    [
        ((1 / 8, 1 / 4), (1, 1), "two patches of 1x1 voxels do not fit side by side in an image of 1x1"),
        ((4, 9), (16, 17, 12), "two patches of 9x9x9 voxels do not fit side by side in an image of 16x17x12"),
        ((0.2, 0.6), (20, 20), "two patches of 12x12 voxels"),
    ],
)
def test_an_image_too_small_for_two_patches_is_refused(side, spatial, message):
    with pytest.raises(ScanlearnError, match=message):
        SwapPatches(side=side)(torch.rand(1, 1, *spatial), draws(1))


def test_what_is_drawn_never_changes():
    p = SwapPatches(swaps=2).draw((1, 1, *CUBE), draws(1))
    assert p["side"][0].tolist() == [[12, 10, 6], [8, 10, 5]]
    assert p["first"][0].tolist() == [[17, 54, 9], [41, 28, 10]]
    assert p["second"][0].tolist() == [[45, 52, 2], [42, 3, 13]]
