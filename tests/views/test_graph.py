import pytest
import torch

from scanlearn.errors import ScanlearnError
from scanlearn.randomness import Draws
from scanlearn.views.graph import ViewGraph, is_image

CLEAN = {"source": "image", "ops": [{"flip": {"mode": "genesis", "p": 0.4}}]}
PAINT = {"one_of": {"p": 0.9, "ops": ["in_paint", "out_paint"], "weights": [0.2, 0.8]}}
GENESIS = {
    "clean": CLEAN,
    "distorted": {"source": "clean", "ops": [{"local_shuffle": {"p": 0.5}}, {"intensity_curve": {"p": 0.9}}, PAINT]},
}
SEMANTIC = {
    "clean": {"source": "image"},
    "distorted": {
        "source": "clean",
        "ops": [
            "elastic",
            {
                "one_of": {
                    "ops": [
                        {"local_shuffle": {"windows": 5}},
                        "intensity_curve",
                        {"in_paint": {"boxes": 1, "first": 1.0}},
                        {"out_paint": {"boxes": 1}},
                    ]
                }
            },
        ],
    },
}
CROPS = {"query": {"ops": [{"random_crop": {"size": 8}}, {"gaussian_noise": {"p": 0.5}}]}, "key": {"like": "query"}}


def draws(count, step=0):
    return Draws.for_step(0, step, range(count))


def test_a_view_is_made_from_its_source():
    x = torch.rand(4, 1, 16, 16)
    settings = {
        "last": {"source": "half", "ops": [{"clamp": {"high": 0.25}}]},
        "half": {"ops": [{"clamp": {"high": 0.5}}]},
    }
    views = ViewGraph(settings)(x, draws(4))
    assert list(views) == ["last", "half"]
    assert torch.equal(views["half"], x.clamp(max=0.5)) and torch.equal(views["last"], x.clamp(max=0.25))


def test_like_means_the_same_ops_and_other_random_numbers():
    graph = ViewGraph(CROPS)
    views = graph(torch.rand(6, 1, 16, 16), draws(6))
    assert [type(op) for op in graph.ops["key"]] == [type(op) for op in graph.ops["query"]]
    assert views["query"].shape == views["key"].shape == (6, 1, 8, 8)
    assert all(not torch.equal(q, k) for q, k in zip(views["query"], views["key"], strict=True))


def test_a_further_view_changes_no_other():
    x = torch.rand(3, 1, 16, 16)
    alone = ViewGraph({"query": CROPS["query"]})(x, draws(3))
    assert torch.equal(alone["query"], ViewGraph(CROPS)(x, draws(3))["query"])


def test_views_do_not_depend_on_how_the_batch_is_divided():
    x, graph = torch.rand(6, 1, 20, 20, 14), ViewGraph(GENESIS)
    whole = graph(x, draws(6))
    halves = [graph(x[part], draws(6)[part]) for part in (slice(0, 2), slice(2, 6))]
    for name, view in whole.items():
        assert torch.allclose(view, torch.cat([half[name] for half in halves]), rtol=0, atol=1e-6)


def test_a_view_called_image_is_not_a_source():
    x = torch.rand(2, 1, 8, 8)
    settings = {"image": {"source": "image", "ops": [{"clamp": {"high": 0.5}}]}, "raw": {"source": "image"}}
    views = ViewGraph(settings)(x, draws(2))
    assert torch.equal(views["raw"], x) and torch.equal(views["image"], x.clamp(max=0.5))


def test_genesis_leaves_one_cube_in_two_hundred_untouched():
    count, untouched = 40_000, torch.ones(40_000, dtype=torch.bool)
    streams = draws(count).child("distorted")
    for i, op in enumerate(ViewGraph(GENESIS).ops["distorted"]):
        untouched &= ~op.sample((count, 1, 64, 64, 32), streams.child(str(i)))["chosen"]
    assert abs(untouched.float().mean() - 0.005) < 0.0015  # four standard errors


def test_semantic_genesis_does_exactly_one_of_four_after_the_elastic():
    spatial, count = (64, 64, 32), 40
    x = torch.rand(count, 1, *spatial)
    graph = ViewGraph(SEMANTIC)
    assert [op.p for op in graph.ops["distorted"]] == [1.0, 1.0]
    views = graph(x, draws(count))
    assert torch.equal(views["clean"], x)
    own, (elastic, one_of) = draws(count).child("distorted"), graph.ops["distorted"]
    bent = elastic.replay(x, elastic.sample(x.shape, own.child("0")))
    choice = one_of.sample(x.shape, own.child("1"))["choice"]
    changed = (views["distorted"] != bent).flatten(1).float().mean(1)
    # Shares of voxels measured on the released code; the curve changes nearly all.
    for which, (low, high) in enumerate([(0.0, 0.003), (0.98, 1.0), (0.003, 0.036), (0.65, 0.97)]):
        assert len(changed[choice == which]) > 4
        assert (changed[choice == which] >= low).all() and (changed[choice == which] <= high).all()


def test_semantic_genesis_chooses_each_of_four_equally_often():
    choice = ViewGraph(SEMANTIC).ops["distorted"][1].draw((20_000, 1, 64, 64, 32), draws(20_000))["choice"]
    assert (torch.bincount(choice, minlength=4) / 20_000 - 0.25).abs().max() < 0.0125  # four standard errors


def test_what_an_op_did_is_handed_on_beside_its_view():
    x, settings = torch.rand(9, 1, 6, 6), {"image": {}, "rotated": {"source": "image", "ops": ["labelled_turns"]}}
    views = ViewGraph(settings)(x, draws(9))
    assert list(views) == ["image", "rotated", "rotated.quarter_turns"]
    turns = views["rotated.quarter_turns"]
    assert turns.dtype == torch.int64 and turns.shape == (9,) and len(turns.unique()) > 1
    for image, before, count in zip(views["rotated"], x, turns.tolist(), strict=True):
        assert torch.equal(image, torch.rot90(before, count, (1, 2)))


def test_a_target_comes_before_the_mask_and_fits_it():
    x = torch.rand(5, 1, 6, 6)
    mask = (x > 0.5).long()
    views = ViewGraph({"image": {"ops": ["labelled_turns", {"clamp": {"low": 0.1}}]}})(x, draws(5), mask)
    assert list(views) == ["image", "image.quarter_turns", "mask"]
    assert torch.equal(views["mask"], (views["image"] > 0.5).long())


@pytest.mark.parametrize("p", [0.0, 0.5])
def test_a_sample_that_was_not_chosen_has_class_0(p):
    x = torch.rand(60, 1, 6, 6)
    views = ViewGraph({"image": {"ops": [{"labelled_turns": {"p": p}}]}})(x, draws(60))
    same = torch.tensor([torch.equal(a, b) for a, b in zip(views["image"], x, strict=True)])
    turns = views["image.quarter_turns"]
    assert turns.dtype == torch.int64 and torch.equal(turns == 0, same)
    assert same.all() if p == 0 else abs(same.float().mean() - 0.625) < 0.2


def test_a_view_made_from_another_does_not_inherit_its_target():
    settings = {"rotated": {"ops": ["labelled_turns"]}, "blurred": {"source": "rotated", "ops": ["gaussian_blur"]}}
    views = ViewGraph(settings)(torch.rand(3, 1, 6, 6), draws(3))
    assert list(views) == ["rotated", "blurred", "rotated.quarter_turns"]


def test_two_views_alike_have_targets_of_their_own():
    settings = {"query": {"ops": ["labelled_turns"]}, "key": {"like": "query"}}
    views = ViewGraph(settings)(torch.rand(40, 1, 6, 6), draws(40))
    assert not torch.equal(views["query.quarter_turns"], views["key.quarter_turns"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "names no views"),
        ({"a.b": {}}, "'a.b' has a dot in its name"),
        ({"a": {"ops": ["labelled_turns", "clamp", "labelled_turns"]}}, "two ops with the target 'quarter_turns'"),
        ({"a": {"source": "clan"}, "clean": {}}, "did you mean 'clean'"),
        ({"a": {"source": "b"}, "b": {"source": "a"}}, "a, b are made from each other in a circle"),
        ({"a": {"sauce": "image"}}, "did you mean 'source'"),
        ({"a": {"like": "b"}}, "which is no view"),
        ({"a": {"like": "b", "ops": []}, "b": {}}, "cannot have a source or ops of its own"),
        ({"a": {"like": "b"}, "b": {"like": "c"}, "c": {}}, "itself like another"),
        ({"a": ["flip"]}, "is written"),
        ({"a": {"ops": ["flop"]}}, "did you mean 'flip'"),
    ],
)
def test_a_wrong_view_is_refused_in_one_sentence(settings, message):
    with pytest.raises(ScanlearnError, match=message):
        ViewGraph(settings)


def test_boxes_follow_their_images_into_the_first_view_and_those_outside_are_lost():
    image = torch.zeros(3, 1, 32, 32)
    boxes = torch.tensor([[[4.0, 6, 12, 20], [0, 0, 0, 0]], [[2, 2, 8, 8], [20, 4, 30, 12]], [[24, 24, 32, 32]] * 2])
    for picture, of_image in zip(image, boxes, strict=True):
        for top, left, bottom, right in of_image.int().tolist():
            picture[0, top:bottom, left:right] = 1
    graph = ViewGraph(
        {"image": {"ops": [{"flip": {"p": 0.5}}, {"random_crop": {"size": 24}}]}, "other": {"ops": ["clamp"]}}
    )
    lost = 0
    for step in range(8):
        views = graph(image, Draws.for_step(0, step, range(3)), boxes=boxes)
        assert list(views) == ["image", "other", "boxes"] and not is_image("boxes")
        for picture, of_image, before in zip(views["image"], views["boxes"], boxes, strict=True):
            painted = torch.zeros(24, 24)
            for top, left, bottom, right in of_image.int().tolist():
                painted[top:bottom, left:right] = 1
            lost += int((before.any(1) & ~of_image.any(1)).sum())
            kept = of_image.any(1) == before.any(1)
            if kept.all():
                assert torch.equal(painted, picture[0])
            else:
                assert (picture[0] - painted).sum() < 0.25 * 140  # what was lost had less than a quarter left
    assert lost > 0
