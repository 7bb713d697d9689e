import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from builders import small_learner, step_of, two_steps_of_gradients, two_views

from ranks import on_ranks
from scanlearn.errors import ScanlearnError
from scanlearn.objectives.siamese import Siamese, negative_cosine

SIAMESE = {"siamese": {"dim": 8, "bottleneck": 4}}


def test_negative_cosine_equals_the_plain_loop():
    p, z = torch.randn(5, 7, dtype=torch.float64), torch.randn(5, 7, dtype=torch.float64)
    total = 0.0
    for a, b in zip(p.tolist(), z.tolist(), strict=True):
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        total -= dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))
    assert negative_cosine(p, z).item() == pytest.approx(total / 5, abs=1e-12)


@pytest.mark.parametrize("angle, wanted", [(0.0, -1.0), (math.pi / 2, 0.0), (math.pi, 1.0), (math.pi / 3, -0.5)])
def test_the_loss_lies_between_minus_one_and_one(angle, wanted):
    p, z = torch.tensor([[3.0, 0.0]]), torch.tensor([[math.cos(angle), math.sin(angle)]]) * 0.1
    assert negative_cosine(p, z).item() == pytest.approx(wanted, abs=1e-6)


def test_no_gradient_flows_into_the_projection_that_is_guessed():
    p, z = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4, requires_grad=True)
    negative_cosine(p, z).backward()
    assert z.grad is None and p.grad.abs().sum() > 0


def test_a_step_is_the_symmetric_loss_of_two_separate_passes():
    learner = small_learner(SIAMESE)
    objective, views = learner.objectives["siamese"], two_views(6)
    loss, parts = learner(views, {"step": 0}, {"siamese": 1.0})
    z = [objective.projector(learner.network.pooled(views[name])) for name in ("query", "key")]
    p = [objective.predictor(each) for each in z]
    wanted = -(F.cosine_similarity(p[0], z[1]).mean() + F.cosine_similarity(p[1], z[0]).mean()) / 2
    torch.testing.assert_close(loss, wanted)
    assert -1 <= parts["siamese"] <= 1
    together = objective.projector(learner.network.pooled(torch.cat([views["query"], views["key"]])))
    assert (together[:6] - z[0]).abs().max() > 1e-3  # batch norm has the statistics of each view


def test_gradient_reaches_encoder_projector_and_predictor_and_not_the_frozen_bias():
    learner = small_learner(SIAMESE)
    loss, _ = learner(two_views(8), {"step": 0}, {"siamese": 1.0})
    loss.backward()
    without = [name for name, p in learner.named_parameters() if p.grad is None]
    assert without == ["objectives.siamese.projector.6.bias"]
    assert not learner.objectives["siamese"].projector[6].bias.requires_grad
    for name, p in learner.named_parameters():
        if p.grad is not None and "conv1.bias" not in name:  # a bias before batch norm has no effect
            assert p.grad.abs().sum() > 0, name


def test_layers_have_the_published_shapes_and_names():
    # spec_dira §8.3: encoder.fc.0 to fc.7 and predictor.0 to predictor.3 of a ResNet-50.
    with torch.device("meta"):
        objective = Siamese(SimpleNamespace(encoder=SimpleNamespace(num_features=2048)))
    shapes = {name: tuple(value.shape) for name, value in objective.named_parameters()}
    wide = {f"projector.{i}.weight": (2048, 2048) for i in (0, 3, 6)} | {"projector.6.bias": (2048,)}
    wide |= {f"projector.{i}.{part}": (2048,) for i in (1, 4) for part in ("weight", "bias")}
    narrow = {"predictor.0.weight": (512, 2048), "predictor.3.weight": (2048, 512), "predictor.3.bias": (2048,)}
    assert shapes == wide | narrow | {f"predictor.1.{part}": (512,) for part in ("weight", "bias")}
    assert not objective.projector[7].affine


def test_the_predictor_alone_is_set_apart_and_only_where_its_rate_is_constant():
    objective = small_learner(SIAMESE).objectives["siamese"]
    (part,) = objective.apart()
    assert part.module is objective.predictor and part.optimizer is None
    scheduled = {"siamese": {**SIAMESE["siamese"], "predictor_rate": "scheduled"}}
    assert small_learner(scheduled).objectives["siamese"].apart() == []


def test_the_spread_is_near_one_for_random_directions_and_zero_after_a_collapse():
    learner = small_learner(SIAMESE)
    step = step_of(learner, two_views(64))
    learner.objectives["siamese"](step)
    assert 0.5 < step.logs["siamese_spread"] < 1.2
    torch.nn.init.zeros_(learner.objectives["siamese"].projector[6].weight)
    step = step_of(learner, two_views(64))
    learner.objectives["siamese"](step)
    assert step.logs["siamese_spread"].item() == 0


def test_evaluation_changes_nothing():
    learner = small_learner(SIAMESE).eval()
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    with torch.no_grad():
        learner(two_views(4), {"step": 0}, {"siamese": 1.0})
    assert all(torch.equal(value, before[name]) for name, value in learner.state_dict().items())


def test_two_ranks_give_the_loss_and_gradients_of_one_process(tmp_path):
    alone = two_steps_of_gradients(SIAMESE, 1, {"batch_norm": "split", "batch_norm_groups": 2})
    for rank in on_ranks(tmp_path, two_steps_of_gradients, SIAMESE, 2, {"batch_norm": "local"}):
        for ours, theirs in zip(alone, rank, strict=True):
            torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-3)


def test_it_learns_in_3d():
    learner = small_learner(SIAMESE, spatial_dims=3)
    loss, _ = learner(two_views(4, spatial_dims=3), {"step": 0}, {"siamese": 1.0})
    loss.backward()
    assert learner.objectives["siamese"].predictor[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"views": ["query"]}, "compares two views"),
        ({"views": ["query", "query"]}, "compares two views"),
        ({"views": "query"}, "compares two views"),
        ({"predictor_rate": "fast"}, "'constant' or 'scheduled'"),
        ({"dim": 0}, "widths of 1 or more"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(ScanlearnError, match=message):
        Siamese(small_learner(SIAMESE).network, **settings)
