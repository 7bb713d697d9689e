import math

import pytest
import torch
from builders import (
    assert_encoder_and_head_learn_and_no_decoder,
    small_learner,
    step_of,
    two_steps_of_gradients,
    two_views,
)

from ranks import on_ranks
from scanlearn.errors import ScanlearnError
from scanlearn.objectives.rotation import rotation_error
from scanlearn.randomness import Draws
from scanlearn.views.graph import ViewGraph

ROTATION = {"rotation": {"view": "query"}}
TURNS = torch.tensor([0, 3, 2, 1])


def turned(count=4, **settings):
    """Two views of a fixed batch with the target that ``labelled_turns`` would hand on."""
    return {**two_views(count, **settings), "query.quarter_turns": TURNS.repeat(count // 4)}


def test_error_equals_the_plain_loop():
    logits = torch.randn(4, 4, dtype=torch.float64)
    losses = []
    for row, turn in zip(logits.tolist(), TURNS.tolist(), strict=True):
        losses.append(-math.log(math.exp(row[turn]) / sum(math.exp(z) for z in row)))
    assert rotation_error(logits, TURNS).item() == pytest.approx(sum(losses) / 4, abs=1e-12)


@pytest.mark.parametrize(("spatial_dims", "classes"), [(2, 4), (3, 10)])
def test_there_are_four_turns_of_a_picture_and_ten_of_a_volume(spatial_dims, classes):
    learner = small_learner(ROTATION, spatial_dims=spatial_dims)
    head = learner.objectives["rotation"].head
    assert (head.in_features, head.out_features) == (learner.network.encoder.num_features, classes)


@pytest.mark.parametrize(("spatial_dims", "classes"), [(2, 4), (3, 10)])
def test_the_view_op_makes_targets_that_the_head_has_a_class_for(spatial_dims, classes):
    graph = ViewGraph({"query": {"ops": ["labelled_turns"]}})
    image = torch.rand(64, 1, *(8,) * spatial_dims)
    views = graph(image, Draws.for_step(0, 0, range(64)))
    assert sorted(set(views["query.quarter_turns"].tolist())) == list(range(classes))
    learner = small_learner(ROTATION, spatial_dims=spatial_dims)
    loss, parts = learner(views, {"step": 0}, {"rotation": 1.0})
    assert loss.item() == pytest.approx(math.log(classes), abs=0.3) and 0 <= parts["rotation_accuracy"] <= 1


def test_gradient_reaches_encoder_and_head_and_no_decoder():
    learner = small_learner(ROTATION, decoder={"name": "unet"})
    loss, parts = learner(turned(), {"step": 0}, {"rotation": 1.0})
    assert_encoder_and_head_learn_and_no_decoder(learner, loss, parts["rotation"])


def test_how_often_the_turn_is_right_is_logged():
    learner = small_learner(ROTATION).eval()
    views = turned()
    with torch.no_grad():
        guess = learner.objectives["rotation"].logits(step_of(learner, views)).argmax(1)
        views["query.quarter_turns"] = torch.where(torch.arange(4) < 1, guess, (guess + 1) % 4)
        _, parts = learner(views, {"step": 0}, {"rotation": 1.0})
    assert parts["rotation_accuracy"].item() == 0.25


def test_evaluation_changes_no_buffer():
    learner = small_learner(ROTATION).eval()
    before = {k: v.clone() for k, v in learner.state_dict().items()}
    with torch.no_grad():
        learner(turned(), {"step": 0}, {"rotation": 1.0})
    assert all(torch.equal(v, before[k]) for k, v in learner.state_dict().items())


def steps_of_turns(world_size, batch_norm):
    return two_steps_of_gradients(
        ROTATION, world_size, batch_norm, **{"query.quarter_turns": torch.tensor([0, 1, 2, 3, 3, 3, 3, 3])}
    )


def test_two_ranks_give_the_loss_and_gradients_of_one_process(tmp_path):
    alone = steps_of_turns(1, {"batch_norm": "split", "batch_norm_groups": 2})
    for rank in on_ranks(tmp_path, steps_of_turns, 2, {"batch_norm": "local"}):
        for ours, theirs in zip(alone, rank, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_a_view_without_turns_is_refused_and_the_op_to_add_is_named():
    with pytest.raises(ScanlearnError, match="add the op labelled_turns"):
        small_learner(ROTATION)(two_views(4), {"step": 0}, {"rotation": 1.0})
