import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from builders import MOCO, small_learner, step_of, two_steps_of_gradients, two_views

from ranks import on_ranks
from scanlearn.errors import ScanlearnError
from scanlearn.networks.encoder import ENCODERS, build_encoder
from scanlearn.networks.network import Network
from scanlearn.objectives.momentum_contrast import MomentumContrast, info_nce
from scanlearn.objectives.momentum_keys import enqueue, projection_head


def unit(*shape):
    return F.normalize(torch.randn(*shape, dtype=torch.float64), dim=1)


def plain_info_nce(query, key, queue, temperature):
    """The equation, one query at a time."""
    losses = []
    for q, k in zip(query.numpy(), key.numpy(), strict=True):
        positive = math.exp(sum(a * b for a, b in zip(q, k, strict=True)) / temperature)
        negatives = sum(math.exp(float(np.dot(q, n)) / temperature) for n in queue.numpy().T)
        losses.append(-math.log(positive / (positive + negatives)))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("temperature", [0.07, 0.2])
def test_info_nce_equals_the_plain_loop(temperature):
    query, key, queue = unit(5, 6), unit(5, 6), unit(11, 6).T
    assert info_nce(query, key, queue, temperature).item() == pytest.approx(
        plain_info_nce(query, key, queue, temperature), abs=1e-12
    )


def test_loss_starts_at_log_of_queue_plus_one_when_nothing_is_aligned():
    # spec_fewshot §2.1: ln(K + 1) = 11.09 for K = 65,536.
    query = torch.zeros(2, 4)
    assert info_nce(query, unit(2, 4).float(), torch.randn(4, 65536), 0.07).item() == pytest.approx(11.0904, abs=1e-3)


def test_queue_wraps_round_and_keeps_the_newest_keys():
    queue, pointer = torch.zeros(1, 5), torch.zeros(1, dtype=torch.long)
    for batch in ([1, 2, 3], [4, 5, 6], [7, 8]):
        enqueue(queue, pointer, torch.tensor(batch, dtype=torch.float32)[:, None])
    assert queue.tolist() == [[6, 7, 8, 4, 5]] and pointer.item() == 3


def test_a_batch_longer_than_the_queue_leaves_its_last_keys():
    queue, pointer = torch.zeros(1, 3), torch.zeros(1, dtype=torch.long)
    enqueue(queue, pointer, torch.arange(7.0)[:, None])
    assert sorted(queue[0].tolist()) == [4, 5, 6]


def test_the_queue_starts_with_columns_of_unit_length():
    objective = small_learner(MOCO).objectives["momentum_contrast"]
    assert objective.queue.shape == (8, 32)  # [dim, K], column-wise
    torch.testing.assert_close(objective.queue.norm(dim=0), torch.ones(32))
    assert objective.pointer.dtype == torch.int64


def test_gradient_reaches_query_encoder_and_projector_and_nothing_else():
    learner = small_learner(MOCO)
    loss, _ = learner(two_views(8), {"step": 0}, {"momentum_contrast": 1.0})
    loss.backward()
    objective = learner.objectives["momentum_contrast"]
    for name, p in learner.named_parameters():
        if "key_" in name:
            assert p.grad is None and not p.requires_grad, name
        else:
            assert p.grad is not None and torch.isfinite(p.grad).all(), name
    # Convolution biases before batch norm have no effect; everything else must move.
    moved = [n for n, p in learner.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    assert any(n.startswith("network.encoder") for n in moved) and any("projector.2" in n for n in moved)
    assert not objective.queue.requires_grad


def test_loss_uses_the_queue_from_before_this_batch():
    learner = small_learner(MOCO)
    objective, views = learner.objectives["momentum_contrast"], two_views(8)
    before = objective.queue.clone()
    step = step_of(learner, views)
    query = objective.project(step)
    keys, _ = objective.make_keys(step)
    loss, _ = learner(views, {"step": 0}, {"momentum_contrast": 1.0})
    torch.testing.assert_close(loss, info_nce(query, keys, before, 0.2))
    assert not torch.equal(objective.queue, before) and objective.pointer.item() == 8
    torch.testing.assert_close(objective.queue[:, :8].T, keys)


def published_steps(learner, steps, lr):
    """The pseudo-code of MoCo on copies of the learner's networks: [loss], queue and pointer after ``steps`` steps."""
    objective = learner.objectives["momentum_contrast"]
    query = copy.deepcopy(torch.nn.ModuleList([learner.network.encoder, objective.projector]))
    key, queue, pointer, losses = copy.deepcopy(query), objective.queue.clone(), 0, []

    def embed(networks, images):
        return F.normalize(networks[1](networks[0](images)[-1].flatten(2).mean(2)), dim=1)

    for number in range(steps):
        views = two_views(8, seed=number)
        q = embed(query, views["query"])
        with torch.no_grad():  # first the moving average, then the keys
            for k, p in zip(key.parameters(), query.parameters(), strict=True):
                k.copy_(k * objective.momentum + p * (1 - objective.momentum))
            keys = embed(key, views["key"])
        logits = torch.cat([torch.einsum("nc,nc->n", q, keys)[:, None], torch.einsum("nc,ck->nk", q, queue)], dim=1)
        loss = F.cross_entropy(logits / objective.temperature, torch.zeros(8, dtype=torch.long))
        grads = torch.autograd.grad(loss, list(query.parameters()))
        with torch.no_grad():
            for p, grad in zip(query.parameters(), grads, strict=True):
                p.sub_(lr * grad)
        queue[:, pointer : pointer + 8] = keys.T
        pointer = (pointer + 8) % queue.shape[1]
        losses.append(loss.item())
    return losses, queue, pointer


def test_five_steps_equal_the_published_pseudo_code():
    learner = small_learner(MOCO)
    objective = learner.objectives["momentum_contrast"]
    for ours, copied in zip(objective.key_encoder.parameters(), learner.network.encoder.parameters(), strict=True):
        assert torch.equal(ours, copied)  # the key encoder starts as a copy
    wanted, queue, pointer = published_steps(learner, 5, lr=0.5)
    losses = []
    for number in range(5):
        learner.zero_grad()
        loss, _ = learner(two_views(8, seed=number), {"step": number}, {"momentum_contrast": 1.0})
        loss.backward()
        with torch.no_grad():
            for p in learner.parameters():
                if p.grad is not None:
                    p.sub_(0.5 * p.grad)
        learner.after_update()
        losses.append(loss.item())
    assert losses == pytest.approx(wanted, abs=1e-4)
    torch.testing.assert_close(objective.queue, queue, atol=1e-4, rtol=1e-3)
    assert objective.pointer.item() == pointer == 8  # 40 keys went round the queue of 32


def test_accuracy_of_the_contrastive_task_is_logged():
    learner = small_learner(MOCO).eval()
    objective, step = learner.objectives["momentum_contrast"], step_of(learner, two_views(8))
    with torch.no_grad():
        objective(step)
        query, keys = objective.project(step), objective.make_keys(step)[0]
    right = [all(q @ k > q @ n for n in objective.queue.T) for q, k in zip(query, keys, strict=True)]
    assert step.logs["contrast_accuracy"].item() == pytest.approx(sum(right) / 8)


def test_key_encoder_follows_parameters_by_moving_average_and_no_buffer():
    learner = small_learner(MOCO)
    objective = learner.objectives["momentum_contrast"]
    old = copy.deepcopy(objective.key_encoder)
    with torch.no_grad():
        for p in learner.network.encoder.parameters():
            p.add_(1.0)
        for b in learner.network.encoder.buffers():
            b.add_(1)
    objective.after_update()
    for key, before, query in zip(
        objective.key_encoder.parameters(), old.parameters(), learner.network.encoder.parameters(), strict=True
    ):
        torch.testing.assert_close(key, 0.9 * before + 0.1 * query)
    for key, before in zip(objective.key_encoder.buffers(), old.buffers(), strict=True):
        assert torch.equal(key, before)


def test_keys_are_made_with_batch_statistics_and_own_running_ones():
    learner = small_learner(MOCO)
    objective = learner.objectives["momentum_contrast"]
    assert all(m.training for m in objective.key_encoder.modules())
    before = [b.clone() for b in objective.key_encoder.buffers() if b.is_floating_point()]
    learner(two_views(8), {"step": 0}, {"momentum_contrast": 1.0})
    after = [b for b in objective.key_encoder.buffers() if b.is_floating_point()]
    assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_evaluation_never_changes_queue_pointer_or_buffers():
    learner = small_learner(MOCO).eval()
    before = {k: v.clone() for k, v in learner.state_dict().items()}
    with torch.no_grad():
        learner(two_views(8), {"step": 0}, {"momentum_contrast": 1.0})
    assert all(torch.equal(v, before[k]) for k, v in learner.state_dict().items())


def test_without_split_batch_norm_shuffling_on_one_device_changes_nothing():
    # spec_fewshot §2.3 and detail 2: the permutation and its inverse cancel.
    learner = small_learner(MOCO)
    objective, views = learner.objectives["momentum_contrast"], two_views(8)
    first = objective.make_keys(step_of(learner, views, 0))[0]
    second = objective.make_keys(step_of(learner, views, 1))[0]
    torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-4)


def test_split_batch_norm_gives_keys_other_companions_at_each_step():
    learner = small_learner(MOCO, batch_norm="split", batch_norm_groups=4)
    objective, views = learner.objectives["momentum_contrast"], two_views(8)
    first = objective.make_keys(step_of(learner, views, 0))[0]
    second = objective.make_keys(step_of(learner, views, 1))[0]
    assert (first - second).abs().max() > 1e-3


@pytest.mark.parametrize("kind, widths", [("linear", [(128, 512)]), ("mlp", [(512, 512), (128, 512)])])
def test_heads_have_the_published_layers(kind, widths):
    head = projection_head(kind, 512, None, 128)
    assert [tuple(p.shape) for n, p in head.named_parameters() if n.endswith("weight")] == widths


@pytest.mark.parametrize("name", ENCODERS.names())
def test_the_head_stands_outside_any_encoder_on_its_pooled_features(name):
    with torch.device("meta"):
        network = Network(build_encoder({"name": name, "spatial_dims": 2, "in_channels": 1}))
        tensors = list(network.state_dict())
        objective = MomentumContrast(network, queue_size=8, dim=4)
    assert objective.projector[0].in_features == network.encoder.num_features
    assert list(network.state_dict()) == tensors  # what is exported has neither head nor key encoder nor queue


def test_an_unknown_head_is_refused_in_one_sentence():
    with pytest.raises(ScanlearnError, match="no head 'mpl'"):
        projection_head("mpl", 8, None, 4)


def test_a_queue_longer_than_the_data_is_said(capsys):
    network = Network(build_encoder({"name": "unet", "spatial_dims": 2, "in_channels": 1, "width": 2}))
    MomentumContrast(network, queue_size=64, dim=4).start(scans=10, batch_size=4)
    assert "queue of 64 keys is longer than the 10 training scans" in capsys.readouterr().err


def test_two_ranks_give_the_loss_gradients_and_queue_of_one_process(tmp_path):
    # Two ranks of local batch norm see what one process with two groups of split batch norm sees.
    alone = two_steps_of_gradients(MOCO, 1, {"batch_norm": "split", "batch_norm_groups": 2})
    for rank in on_ranks(tmp_path, two_steps_of_gradients, MOCO, 2, {"batch_norm": "local"}):
        for ours, theirs in zip(alone, rank, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("setting", [{"temperature": 0.0}, {"temperature": -1.0}, {"momentum": 1.5}, {"queue_size": 0}])
def test_settings_that_mean_nothing_are_refused(setting):
    network = Network(build_encoder({"name": "unet", "width": 2, "spatial_dims": 2}))
    with pytest.raises(ScanlearnError, match="a temperature above 0"):
        MomentumContrast(network, **{"queue_size": 8, **setting})
