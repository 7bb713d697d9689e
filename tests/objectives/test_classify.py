import math
from functools import partial

import pytest
import torch
from builders import small_learner, step_of, two_steps_of_gradients, two_views

from ranks import on_ranks
from scanlearn.objectives.classify import masked_bce, masked_three_way


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


def soft_labels():
    labels = torch.tensor([[1, 0, -1], [math.nan, -1, 0.7], [0, 0.2, 1], [math.nan] * 3])
    return labels.double()


def test_three_way_loss_equals_the_plain_loop_with_uncertain_as_a_third_answer():
    logits = torch.randn(4, 3, 3, dtype=torch.float64)
    losses = []
    for z, y in zip(logits.reshape(-1, 3).tolist(), soft_labels().flatten().tolist(), strict=True):
        if not math.isnan(y):
            total = math.log(sum(math.exp(v) for v in z))
            target = (0, 0, 1) if y == -1 else (1 - y, y, 0)
            losses.append(sum(t * (total - v) for t, v in zip(target, z, strict=True)))
    assert masked_three_way(logits, soft_labels()).item() == pytest.approx(sum(losses) / len(losses), abs=1e-12)
    even = torch.zeros(1, 2, 3)
    assert masked_three_way(even, torch.tensor([[1.0, -1.0]])).item() == pytest.approx(math.log(3))


def test_a_three_way_head_answers_with_the_softmax_of_present_and_absent_and_so_does_the_one_it_exports():
    settings = {"classes": 4, "view": "query", "multilabel": True, "three_way": True}
    for hidden in (None, 5):
        objective = small_learner({"classify": {**settings, "hidden": hidden}}).objectives["classify"].eval()
        features = torch.randn(6, objective.head[1].in_features)
        outputs = objective.head(features).unflatten(1, (4, 3))
        expected = torch.softmax(outputs[..., :2], dim=-1)[..., 1]
        torch.testing.assert_close(torch.sigmoid(objective.answers(features)), expected)
        saved = objective.exported()
        again = small_learner({"classify": {**settings, "three_way": False, "hidden": hidden}}).objectives["classify"]
        again.load_state_dict(saved)
        torch.testing.assert_close(again.eval().answers(features), objective.answers(features))


def test_labels_that_are_known_train_the_network_and_unknown_ones_do_not():
    learner = small_learner({"classify": {"classes": 3, "view": "query", "multilabel": True, "three_way": True}})
    labels = torch.full((4, 3), math.nan)
    labels[:, 0] = torch.tensor([1.0, 0.0, -1.0, 0.4])
    loss, _ = learner(two_views(4), {"step": 0, "label": labels}, {"classify": 1.0})
    loss.backward()
    head = learner.objectives["classify"].head[1].weight.grad
    assert head[:3].abs().sum() > 0 and (head[3:] == 0).all()  # the outputs of the first class alone
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0 for p in learner.network.encoder.parameters() if p.ndim > 1
    )


def test_one_label_a_scan_cannot_be_three_way():
    with pytest.raises(Exception, match="several labels"):
        small_learner({"classify": {"classes": 3, "view": "query", "three_way": True}})


@pytest.mark.parametrize("three_way", [False, True])
def test_two_ranks_with_unlike_numbers_of_known_labels_give_the_loss_and_gradients_of_one_process(tmp_path, three_way):
    labels = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.3]] * 4)
    labels[4:, 1:] = math.nan  # the second rank knows a third of what the first does
    labels[0, 0] = -1.0 if three_way else math.nan
    objectives = {"classify": {"classes": 3, "view": "query", "multilabel": True, "three_way": three_way}}
    alone = two_steps_of_gradients(objectives, 1, {"batch_norm": "split", "batch_norm_groups": 2}, label=labels)
    ours = partial(two_steps_of_gradients, label=labels)
    for rank in on_ranks(tmp_path, ours, objectives, 2, {"batch_norm": "local"}):
        for expected, found in zip(alone, rank, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
