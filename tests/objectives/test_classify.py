import math

import pytest
import torch
from builders import small_learner, step_of, two_views

from scanlearn.objectives.classify import masked_bce


def test_masked_bce_equals_the_plain_loop_and_leaves_unknown_labels_out():
    logits = torch.randn(4, 3, dtype=torch.float64)
    labels = torch.tensor([[1, 0, math.nan], [math.nan, 1, 0], [0, 0, 1], [math.nan] * 3], dtype=torch.float64)
    losses = []
    for z, y in zip(logits.flatten().tolist(), labels.flatten().tolist(), strict=True):
        if not math.isnan(y):
            p = 1 / (1 + math.exp(-z))
            losses.append(-(y * math.log(p) + (1 - y) * math.log(1 - p)))
    assert masked_bce(logits, labels).item() == pytest.approx(sum(losses) / len(losses), abs=1e-12)


def test_masked_bce_without_any_known_label_is_zero():
    assert masked_bce(torch.randn(2, 3), torch.full((2, 3), math.nan)).item() == 0


def test_cross_entropy_on_pooled_features_trains_head_and_encoder():
    learner = small_learner({"classify": {"classes": 3, "view": "query"}})
    labels = torch.tensor([0, 1, 2, -1])
    loss, _ = learner(two_views(4), {"step": 0, "label": labels}, {"classify": 1.0})
    objective = learner.objectives["classify"]
    logits = objective.logits(step_of(learner, two_views(4)))[:3]
    expected = -torch.log_softmax(logits, 1)[torch.arange(3), labels[:3]].mean()
    assert torch.isfinite(loss)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert all(p.grad is not None for p in learner.parameters())


def test_a_frozen_encoder_keeps_weights_and_statistics():
    learner = small_learner({"classify": {"classes": 2, "view": "query"}}, freeze_encoder=True).train()
    before = {k: v.clone() for k, v in learner.network.encoder.state_dict().items()}
    loss, _ = learner(two_views(4), {"step": 0, "label": torch.tensor([0, 1, 0, 1])}, {"classify": 1.0})
    loss.backward()
    assert all(p.grad is None for p in learner.network.encoder.parameters())
    assert all(torch.equal(v, before[k]) for k, v in learner.network.encoder.state_dict().items())


def test_a_hidden_layer_stands_between_features_and_outputs_and_trains():
    learner = small_learner({"classify": {"classes": 3, "view": "query", "hidden": 5}})
    objective = learner.objectives["classify"]
    step = step_of(learner, two_views(4))
    w = {name: value.detach().double().numpy() for name, value in objective.head.state_dict().items()}
    assert list(w) == ["1.weight", "1.bias", "3.weight", "3.bias"] and w["1.weight"].shape[0] == 5
    hidden = (step.pooled("query").detach().double().numpy() @ w["1.weight"].T + w["1.bias"]).clip(min=0)
    expected = hidden @ w["3.weight"].T + w["3.bias"]
    assert objective.logits(step).detach().numpy() == pytest.approx(expected, abs=1e-5)
    loss, _ = learner(two_views(4), {"step": 0, "label": torch.tensor([0, 1, 2, 1])}, {"classify": 1.0})
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in objective.head.parameters())
