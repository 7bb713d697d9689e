import numpy as np
import pytest
import torch

from scanlearn.randomness import Draws, uniform_from
from scanlearn.views.op import build_op
from scanlearn.views.paint import (
    InPaint,
    OutPaint,
    _paint_noise_tensor,
    _paint_values_tensor,
    inside_boxes,
    paint_noise,
    paint_values,
)
from views import reference

CUBE = (64, 64, 32)


def draws(count):
    return Draws.for_step(0, 0, range(count))


def painted_share(op, spatial, count=600):
    """Share of each sample that the drawn boxes cover."""
    params = op.draw((count, 1, *spatial), draws(count))
    parts = zip(params["start"].split(50), params["side"].split(50), strict=True)
    return torch.cat([inside_boxes(start, side, spatial).flatten(1).float().mean(1) for start, side in parts])


@pytest.mark.parametrize("spatial", [(14, 17), (15, 16, 9), (2, 3), (7, 5, 3)])
@pytest.mark.parametrize("outside", [False, True])
def test_painting_equals_a_plain_loop_over_voxels(spatial, outside):
    x, op = torch.rand(3, 2, *spatial), OutPaint() if outside else InPaint()
    params = op.sample(x.shape, draws(3))
    out = op.replay(x, params)
    noise = uniform_from(params["fill"], *spatial).numpy()
    for i in range(3):
        boxes = [b for b in zip(params["start"][i].tolist(), params["side"][i].tolist(), strict=True) if min(b[1]) > 0]
        for c in range(2):
            wanted = reference.paint_boxes(x[i, c].numpy(), boxes, noise[i], outside)
            assert np.array_equal(out[i, c].numpy(), wanted)


@pytest.mark.parametrize("spatial", [(64, 64, 32), (33, 35), (7, 5, 3)])
@pytest.mark.parametrize("outside", [False, True])
def test_the_compiled_loop_and_tensor_arithmetic_paint_the_same(spatial, outside):
    x, op = torch.rand(4, 3, *spatial), OutPaint() if outside else InPaint()
    p = op.sample(x.shape, draws(4))
    results = [f(x, p["start"], p["side"], p["fill"], outside) for f in (paint_noise, _paint_noise_tensor)]
    assert torch.equal(*results)


@pytest.mark.parametrize("spatial", [(64, 64, 32), (33, 35), (7, 5, 3)])
def test_the_compiled_loop_and_tensor_arithmetic_fill_the_same(spatial):
    x, op = torch.rand(4, 3, *spatial), InPaint(boxes=12, more=0.9, fill="constant")
    p = op.sample(x.shape, draws(4))
    values = uniform_from(p["fill"], 12)
    results = [fill(x, p["start"], p["side"], values) for fill in (paint_values, _paint_values_tensor)]
    assert torch.equal(*results) and not torch.equal(results[0], x)


def test_shares_measured_on_the_published_code():
    inside = painted_share(InPaint(), CUBE)
    assert abs(inside.mean() - 0.055) < 0.004 and abs((inside == 0).float().mean() - 0.05) < 0.035
    assert abs(painted_share(OutPaint(), CUBE).mean() - 0.32) < 0.01
    # Semantic Genesis: one box, one window.
    assert abs(painted_share(InPaint(boxes=1, first=1.0), CUBE).mean() - 0.014) < 0.001
    assert abs(painted_share(OutPaint(boxes=1), CUBE).mean() - 0.13) < 0.01


def test_sides_and_places_have_the_published_ranges():
    p = InPaint(first=1.0, more=1.0).draw((4000, 1, *CUBE), draws(4000))
    for axis, (low, high, n) in enumerate([(10, 21, 64), (10, 21, 64), (5, 10, 32)]):
        side, start = p["side"][..., axis], p["start"][..., axis]
        assert (side.min(), side.max()) == (low, high) and start.min() == 3 and (start + side).max() == n - 3
    p = OutPaint(more=1.0).draw((4000, 1, *CUBE), draws(4000))
    for axis, (low, high, n) in enumerate([(28, 37, 64), (28, 37, 64), (14, 19, 32)]):
        side, start = p["side"][..., axis], p["start"][..., axis]
        assert (side.min(), side.max()) == (low, high) and start.min() == 3 and (start + side).max() == n - 3


def test_box_counts_follow_the_chain_of_probabilities():
    boxes = (InPaint().draw((8000, 1, 32, 32), draws(8000))["side"].amin(-1) > 0).sum(1).float()
    assert abs(boxes.mean() - sum(0.95**k for k in range(1, 6))) < 0.06
    windows = (OutPaint().draw((8000, 1, 32, 32), draws(8000))["side"].amin(-1) > 0).sum(1)
    assert windows.min() == 1 and abs(windows.float().mean() - sum(0.95**k for k in range(5))) < 0.06


def test_the_unbounded_number_of_boxes_of_the_first_releases_is_a_setting():
    boxes = (InPaint(boxes=400).draw((4000, 1, 32, 32), draws(4000))["side"].amin(-1) > 0).sum(1).float()
    assert abs(boxes.mean() - 19) < 1.3 and boxes.max() > 60  # geometric: 0.95 / 0.05


def test_shares_of_the_dira_cut_outs_are_reached_by_settings():
    cut_out = InPaint(boxes=10, first=1.0, more=0.9, side=[10, 70], fill=0.0)
    assert abs(painted_share(cut_out, (224, 224), 1500).mean() - 0.179) < 0.01
    outer = OutPaint(boxes=10, more=0.9, removed=[50, 70], fill=0.0)
    assert abs(1 - painted_share(outer, (224, 224), 1500).mean() - 0.230) < 0.015


@pytest.mark.parametrize("spatial", [(40, 50), (24, 30, 18)])
def test_the_masked_share_never_passes_its_bound(spatial):
    for bound in (0.02, 0.1, 0.25, 0.6):
        assert painted_share(InPaint(boxes=20, max_masked_fraction=bound), spatial, 200).max() <= bound
        assert 1 - painted_share(OutPaint(max_masked_fraction=bound), spatial, 200).min() <= bound
    assert painted_share(InPaint(boxes=20, max_masked_fraction=0.25), spatial, 200).mean() > 0.1


@pytest.mark.parametrize("spatial", [CUBE, (40, 56, 40), (32, 32, 32), (224, 224), (64, 64)])
def test_in_painting_adds_boxes_up_to_a_quarter(spatial):
    # The baseline after Pathak et al. 2016: boxes as long as the masked share stays below a quarter.
    # An overlap counts twice, so that a little less than a fifth is masked in the mean.
    op = InPaint(boxes=40, first=1.0, more=1.0, max_masked_fraction=0.25, fill="constant")
    drawn = (op.draw((300, 1, *spatial), draws(300))["side"].amin(-1) > 0).sum(1)
    assert drawn.min() >= 2 and drawn.max() < 40, "the share ends the boxes, not their number"
    share = painted_share(op, spatial, 300)
    assert share.max() <= 0.25
    assert abs(share.mean() - 0.187) < 0.015


def test_the_painting_of_the_keras_version_is_reached_by_settings():
    box, window = InPaint(boxes=1, first=1.0, side=[10, 20]), OutPaint(boxes=1, removed=[10, 20])
    for op, sides in ((box, [(10, 20)] * 3), (window, [(44, 54), (44, 54), (12, 22)])):
        p = op.draw((3000, 1, *CUBE), draws(3000))
        assert p["side"].shape[1] == 1
        for axis, (low, high) in enumerate(sides):
            side, start = p["side"][..., axis], p["start"][..., axis]
            assert (side.min(), side.max()) == (low, high)
            assert start.min() == 3 and (start + side).max() == CUBE[axis] - 3


@pytest.mark.parametrize("spatial", [(64, 64, 5), (13, 8, 1), (1, 2)])
def test_thin_slabs_get_boxes_that_fit(spatial):
    for op in (InPaint(first=1.0), OutPaint(), InPaint(side=[10, 20]), OutPaint(removed=[10, 20])):
        p = op.draw((200, 1, *spatial), draws(200))
        drawn = p["side"].amin(-1) > 0
        assert drawn[:, 0].any()
        assert (p["side"][drawn] >= 1).all() and (p["start"] >= 0).all()
        assert (p["start"] + p["side"] <= torch.tensor(spatial)).all()


def test_a_constant_fill_is_one_value_for_each_box_with_later_ones_on_top():
    x, op = torch.full((1, 2, 12, 12), 2.0), InPaint(boxes=2, fill="constant")
    params = {
        "start": torch.tensor([[[1, 1], [3, 3]]]),
        "side": torch.tensor([[[4, 4], [4, 4]]]),
        "fill": draws(1).spawn_keys(),
    }
    first, second = uniform_from(params["fill"], 2)[0]
    out = op.apply(x, params)
    assert (out[0, :, 1:3, 1:5] == first).all() and (out[0, :, 3:7, 3:7] == second).all()
    assert (out == 2).sum() == 2 * (144 - 16 - 16 + 4)


def test_a_constant_canvas_is_one_value_for_each_image():
    x, op = torch.full((5, 1, 20, 20), 2.0), OutPaint(fill="constant")
    out = op(x, draws(5))
    canvases = [set(image.flatten().tolist()) - {2.0} for image in out]
    assert all(len(values) == 1 for values in canvases) and len(set.union(*canvases)) == 5


def test_a_number_fills_itself():
    x = torch.rand(3, 1, 20, 20) + 1
    for name in ("in_paint", "out_paint"):
        out = build_op({name: {"fill": 0.0}})(x, draws(3))
        assert ((out == x) | (out == 0)).all() and (out == 0).any()


def test_noise_is_independent_and_uniform():
    op = OutPaint()
    params = op.sample((6, 1, *CUBE), draws(6))
    noise = op.replay(torch.full((6, 1, *CUBE), 9.0), params).flatten(1)[:, :4000]
    outside = (noise < 9).all(0)
    assert outside.sum() > 1000
    values = noise[:, outside]
    assert abs(values.mean() - 0.5) < 0.02 and abs(values.var() - 1 / 12) < 0.01
    assert (torch.corrcoef(values) - torch.eye(6)).abs().max() < 0.12
