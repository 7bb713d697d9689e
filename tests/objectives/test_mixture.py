import torch
from builders import small_learner, two_views

MIXTURE = {
    "momentum_contrast": {"queue_size": 32, "dim": 8},
    "restore": {"view": "query", "target": "key", "weight": 10.0},
}


def test_two_objectives_share_one_forward_pass_of_a_view():
    learner = small_learner(MIXTURE)
    calls = []
    learner.network.encoder.register_forward_hook(lambda *_: calls.append(1))
    loss, parts = learner(two_views(8), {"step": 0}, {"momentum_contrast": 1.0, "restore": 10.0})
    assert len(calls) == 1  # the key goes through its own encoder
    torch.testing.assert_close(loss, parts["momentum_contrast"] + 10 * parts["restore"])
    loss.backward()
    trained = [p for n, p in learner.named_parameters() if "key_" not in n]
    assert all(p.grad is not None for p in trained)


def test_an_objective_of_weight_zero_costs_nothing():
    learner = small_learner(MIXTURE)
    calls = []
    learner.network.decoder.register_forward_hook(lambda *_: calls.append(1))
    _, parts = learner(two_views(8), {"step": 0}, {"momentum_contrast": 1.0, "restore": 0.0})
    assert not calls and "restore" not in parts
