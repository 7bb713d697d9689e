import math

import pytest
import torch
from runs import image_store, moco_recipe
from torch import nn

from scanlearn.engine.balance import Balance, gradient_norms, measures
from scanlearn.engine.learner import build_learner
from scanlearn.engine.pretrain import pretrain
from scanlearn.engine.run_folder import RunFolder
from scanlearn.errors import ScanlearnError

BOTH = {
    "momentum_contrast": {"queue_size": 12, "dim": 4},
    "restore": {"view": "query", "target": "key", "weight": 10.0},
}
NETWORK = {"encoder": {"name": "unet", "width": 2}, "decoder": {"name": "unet"}}


def two_losses(**changes):
    return moco_recipe(objectives=BOTH, network=NETWORK, **changes)


def views_of(seed):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(8, 1, 16, 16, generator=generator) for name in ("query", "key")}


def test_norms_are_those_of_a_backward_pass_of_each_loss_and_leave_the_gradients_alone():
    encoder, x = nn.Linear(3, 2), torch.randn(5, 3)
    values = {"a": encoder(x).square().mean(), "b": encoder(x).sum(), "c": torch.zeros(())}
    norms = gradient_norms(values, encoder)
    assert encoder.weight.grad is None
    for name in ("a", "b"):
        encoder.zero_grad()
        values[name].backward()
        total = sum(float(g) ** 2 for p in encoder.parameters() for g in p.grad.flatten())
        assert norms[name].item() == pytest.approx(math.sqrt(total), rel=1e-5)
    assert norms["c"] == 0


def test_parts_and_gradient_norms_are_logged_apart_and_measuring_changes_no_weight(tmp_path):
    store = image_store(tmp_path)
    measured = pretrain(store, two_losses(steps=4, monitor={"every": -1, "gradients": 2}), tmp_path / "measured")
    alone = pretrain(store, two_losses(steps=4, monitor={"every": -1, "gradients": -1}), tmp_path / "alone")
    assert all(torch.equal(v, alone.learner.state_dict()[k]) for k, v in measured.learner.state_dict().items())
    lines = RunFolder(tmp_path / "measured").read_metrics("train")
    assert {"momentum_contrast", "restore", "gradient_momentum_contrast", "gradient_restore"} <= lines[-1].keys()
    assert not any("gradient" in key for line in RunFolder(tmp_path / "alone").read_metrics("train") for key in line)


def test_with_the_normaliser_weights_are_ratios_of_gradients():
    learner = build_learner(two_losses(loss_normaliser="gradients"), seed=0, world_size=1)
    _, parts = learner(views_of(0), {"step": 0}, {"momentum_contrast": 1.0, "restore": 3.0}, measure=True)
    ratio = parts["gradient_restore"] / parts["gradient_momentum_contrast"]
    assert ratio.item() == pytest.approx(3.0, rel=1e-4)
    before = learner.balance.norms.clone()
    loss, parts = learner(views_of(1), {"step": 1}, {"momentum_contrast": 1.0, "restore": 3.0})
    assert torch.equal(before, learner.balance.norms)  # kept between measurements
    wanted = parts["momentum_contrast"] + 3 * before[0] / before[1] * parts["restore"]
    torch.testing.assert_close(loss.detach(), wanted)
    learner.eval()
    loss, parts = learner(views_of(1), {"step": 1}, {"momentum_contrast": 1.0, "restore": 3.0})
    torch.testing.assert_close(loss, parts["momentum_contrast"] + 3 * parts["restore"])  # figures stay comparable


def test_the_norms_are_running_means_that_nothing_infinite_enters():
    balance = Balance(["a", "b"])
    balance.note({"a": torch.tensor(4.0), "b": torch.tensor(math.nan)})
    assert [f.item() for f in balance.factors(["a", "b"]).values()] == [1.0, 1.0]
    balance.note({"a": torch.tensor(2.0), "b": torch.tensor(0.5)})
    balance.note({"b": torch.tensor(0.0)})
    assert balance.norms.tolist() == [3.0, 0.5]
    assert [f.item() for f in balance.factors(["a", "b"]).values()] == [1.0, 6.0]
    assert [f.item() for f in balance.factors(["b"]).values()] == [1.0]


def test_restoring_is_measured_by_what_it_enriches_in_whatever_order_a_recipe_names_them():
    # A recipe that takes its base's objective away and adds another has restore first.
    recipe = two_losses(loss_normaliser="gradients")
    recipe.objectives = dict(reversed(recipe.objectives.items()))
    balance = build_learner(recipe, seed=0, world_size=1).balance
    balance.note({"restore": torch.tensor(0.5), "momentum_contrast": torch.tensor(3.0)})
    factors = balance.factors(["restore", "momentum_contrast"])
    assert {name: factor.item() for name, factor in factors.items()} == {"momentum_contrast": 1.0, "restore": 6.0}
    assert balance.factors(["restore"])["restore"] == 1.0


def test_the_norms_are_in_the_checkpoint():
    learner = build_learner(two_losses(loss_normaliser="gradients"), seed=0, world_size=1)
    assert "balance.norms" in learner.state_dict()
    assert "balance.norms" not in build_learner(two_losses(), seed=0, world_size=1).state_dict()


def test_it_is_measured_at_its_steps_and_never_for_one_objective():
    both, one = {"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 0.0}

    def steps(recipe, weights):
        return [s for s in range(1, 41) if measures(recipe, s, 40, weights, s in (1, 21))]

    assert steps(two_losses(steps=40), both) == [1, *range(4, 41, 4)]
    assert steps(two_losses(monitor={"gradients": 15}), both) == [1, 15, 30]
    assert steps(two_losses(monitor={"gradients": -1}), both) == []
    normalised = two_losses(loss_normaliser="gradients", monitor={"gradients": -1}, log_every=10)
    assert steps(normalised, both) == [1, 10, 20, 21, 30, 40]
    assert steps(normalised, one) == steps(two_losses(), one) == []


def test_an_unknown_normaliser_is_refused():
    with pytest.raises(ScanlearnError, match="did you mean 'gradients'"):
        two_losses(loss_normaliser="gradient")
