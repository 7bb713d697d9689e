"""DiRA's views: shares and sizes of the four distortions, what the target undoes, and the swap from a snapshot."""

import numpy as np
import pytest
import torch

from scanlearn.engine.recipe import load_recipe
from scanlearn.randomness import Draws
from scanlearn.views.graph import ViewGraph
from scanlearn.views.intensity import Solarise
from scanlearn.views.op import build_op
from scanlearn.views.paint import inside_boxes
from scanlearn.views.swap import SwapPatches


def draws(count, step=0):
    return Draws.for_step(0, step, range(count))


def distortion(name):
    """The op of a recipe that chooses one distortion, and the ops it chooses from."""
    op = ViewGraph(load_recipe(name).views).ops["query"][-1]
    return op, op.ops


def hidden(op, spatial, count, outside):
    """Mean share of the image that a painting op hides."""
    params = op.draw((count, 1, *spatial), draws(count))
    parts = zip(params["start"].split(50), params["side"].split(50), strict=True)
    share = torch.cat([inside_boxes(a, s, spatial).flatten(1).float().mean(1) for a, s in parts]).mean()
    return 1 - share if outside else share


@pytest.mark.parametrize("name", ["caid", "caid_small", "dira_moco_2d_released"])
def test_branches_have_their_published_shares(name):
    op, _ = distortion(name)
    params = op.sample((20_000, 1, 64, 64), draws(20_000))
    share = [(params["chosen"] & (params["choice"] == i)).float().mean() for i in range(3)]
    assert share == pytest.approx([0.30, 0.05, 0.30], abs=0.01)
    assert 1 - params["chosen"].float().mean() == pytest.approx(0.35, abs=0.01)


@pytest.mark.parametrize(
    ("name", "size"), [("caid", 224), ("caid_small", 224), ("caid_small", 64), ("caid_small", 128)]
)
def test_cut_outs_hide_the_published_shares_at_every_size(name, size):
    _, (inner, outer, _) = distortion(name)
    assert hidden(inner, (size, size), 2500, False) == pytest.approx(0.179, abs=0.01)
    # At 64 pixels the sides are whole numbers of 44 to 50, a little more than in proportion.
    assert hidden(outer, (size, size), 2500, True) == pytest.approx(0.230, abs=0.01 if size > 64 else 0.012)


@pytest.mark.parametrize("name", ["caid", "caid_small"])
def test_sides_margins_and_the_number_of_rectangles_are_the_published_ones(name):
    _, (inner, outer, swap) = distortion(name)
    for op, low, high in ((inner, 10, 70), (outer, 154, 174)):
        p = op.draw((4000, 1, 224, 224), draws(4000))
        drawn = p["side"].amin(-1) > 0
        side, start = p["side"][drawn], p["start"][drawn]
        assert (side.min(), side.max()) == (low, high)
        assert start.min() == 3 and (start + side).max() == 221
        count = drawn.sum(1).float()  # up to ten, and after each one the last with probability 0.1
        assert count.min() == 1 and count.max() == 10 and count.mean() == pytest.approx(6.5, abs=0.12)
        assert (inner.fill, outer.fill) == (0.0, 0.0)
    p = swap.draw((2000, 1, 224, 224), draws(2000))
    assert p["side"].shape == (2000, 10, 2) and (p["side"].min(), p["side"].max()) == (10, 15)
    assert swap.snapshot


def test_ninety_five_of_a_hundred_inner_cut_outs_hide_less_than_a_third():
    _, (inner, _, _) = distortion("caid")
    p = inner.draw((1500, 1, 224, 224), draws(1500))
    share = inside_boxes(p["start"], p["side"], (224, 224)).flatten(1).float().mean(1)
    assert share.quantile(0.95) == pytest.approx(0.32, abs=0.02)


def test_in_3d_larger_shares_hide_as_much_of_the_volume():
    many = {"boxes": 10, "more": 0.9, "margin": 0.0134, "fill": 0.0}
    inner = build_op({"in_paint": {**many, "first": 1.0, "side": [0.164, 0.5]}})
    outer = build_op({"out_paint": {**many, "removed": [0.2, 0.28]}})
    assert hidden(inner, (32, 32, 32), 800, False) == pytest.approx(0.179, abs=0.02)
    assert hidden(outer, (32, 32, 32), 800, True) == pytest.approx(0.230, abs=0.02)


# ---------------------------------------------------------------- the swap


@pytest.mark.parametrize("spatial", [(20, 27), (16, 17, 12)])
def test_a_swap_from_the_snapshot_equals_a_plain_loop(spatial):
    x, op = torch.rand(3, 2, *spatial), SwapPatches(swaps=12, side=(3, 8), snapshot=True)
    params = op.draw(x.shape, draws(3))
    out = op.apply(x, params)
    for i in range(3):
        before = x[i].numpy()
        wanted = before.copy()
        for a, b, side in zip(*(params[name][i].tolist() for name in ("first", "second", "side")), strict=True):
            at, to = ((slice(None), *(slice(v, v + s) for v, s in zip(p, side, strict=True))) for p in (a, b))
            wanted[to], wanted[at] = before[at], before[to]
        assert np.array_equal(out[i].numpy(), wanted)
    assert not torch.equal(out, SwapPatches(swaps=12, side=(3, 8)).apply(x, params))


def test_later_swaps_from_the_snapshot_can_show_a_region_twice():
    x, op = torch.arange(6.0)[None, None, :, None], SwapPatches(swaps=2, side=(1, 1), snapshot=True)
    at = {"first": [[[0, 0], [2, 0]]], "second": [[[2, 0], [4, 0]]], "side": [[[1, 1], [1, 1]]]}
    out = op.apply(x, {name: torch.tensor(value) for name, value in at.items()})
    assert out.flatten().tolist() == [2, 1, 4, 3, 2, 5]  # exchanged one after the other it were [2, 1, 4, 3, 0, 5]


def test_solarising_turns_the_bright_half_round():
    x = torch.tensor([0.0, 127 / 255, 128 / 255, 1.0])[None, None, None]
    assert Solarise()(x, draws(1)).flatten().tolist() == pytest.approx([0.0, 127 / 255, 127 / 255, 0.0])


# ---------------------------------------------------------------- the triplet


def triplet(name, keep=("random_resized_crop", "flip"), channels=3, count=24):
    """The views of a recipe of which only some ops are left."""
    recipe = load_recipe(name)
    for view in recipe.views.values():
        kept = (*keep, "grayscale") if view.get("ops") else keep
        view["ops"] = [op for op in view["ops"] if next(iter(op)) in kept]
    image = torch.rand(count, channels, 80, 72, generator=torch.Generator().manual_seed(0))
    return ViewGraph(recipe.views)(image, draws(count))


def grey(x):
    return (x * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)


def test_without_jitter_blur_and_distortion_the_view_is_the_target_also_when_flipped():
    views = triplet("dira_moco_2d_small", channels=1)
    assert (views["query"] - views["clean"]).abs().max() < 1e-6
    views = triplet("dira_moco_2d")
    assert views["clean"].shape[1] == 1 and (grey(views["query"]) - views["clean"]).abs().max() < 1e-6


def test_the_released_code_restores_what_was_not_flipped():
    views = triplet("dira_moco_2d_released")
    same = (grey(views["query"]) - views["clean"]).flatten(1).abs().amax(1) < 1e-6
    mirrored = (grey(views["query"]).flip(-1) - views["clean"]).flatten(1).abs().amax(1) < 1e-6
    assert (same ^ mirrored).all() and 6 <= mirrored.sum() <= 18


def test_the_target_is_free_of_jitter_blur_and_distortion_and_both_views_are_distorted():
    recipe = load_recipe("dira_moco_2d")
    graph = ViewGraph(recipe.views)
    names = {view: [type(op).__name__ for op in ops] for view, ops in graph.ops.items()}
    distorting = ["ColourJitter", "GaussianBlur", "OneOf"]
    assert names["query"] == distorting and names["key"] == ["RandomResizedCrop", "Flip", *distorting]
    assert names["cropped"] == ["RandomResizedCrop", "Flip"] and names["clean"] == ["Grayscale"]
    assert graph.sources == {"query": "cropped", "key": "image", "clean": "cropped", "cropped": "image"}
    assert recipe.views["query"]["ops"] == recipe.views["key"]["ops"][2:]
    # In the query black rectangles come after the jitter, so they are exactly 0.
    views = graph(torch.rand(12, 3, 240, 240), draws(12))
    assert (views["query"] == 0).any() and (views["key"] == 0).any()


def test_the_two_crops_are_independent():
    views = triplet("dira_moco_2d_small", channels=1)
    assert not torch.allclose(views["query"], views["key"], atol=1e-3)


@pytest.mark.parametrize("name", ["dira_moco_2d_small", "dira_moco_2d_released"])
def test_a_batch_of_triplets_gives_what_its_samples_give_alone(name):
    graph = ViewGraph(load_recipe(name).views)
    x = torch.rand(6, 1, 70, 90, generator=torch.Generator().manual_seed(1))
    whole = graph(x, draws(6))
    for i in range(6):
        alone = graph(x[i : i + 1], Draws.for_step(0, 0, [i]))
        assert all((alone[view] - whole[view][i : i + 1]).abs().max() < 1e-6 for view in graph.names)


def test_golden_values_of_the_small_triplet():
    ramp = (torch.arange(96.0 * 96).view(1, 1, 96, 96) / 9216).expand(4, -1, -1, -1)
    views = ViewGraph(load_recipe("dira_moco_2d_small").views)(ramp, draws(4, step=5))
    means = {name: [round(float(v), 4) for v in views[name].mean((1, 2, 3))] for name in ("query", "key", "clean")}
    assert means == {
        "query": [0.4437, 0.4641, 0.4333, 0.5931],
        "key": [0.2352, 0.2811, 0.4584, 0.5028],
        "clean": [0.5211, 0.6787, 0.4333, 0.6249],
    }
