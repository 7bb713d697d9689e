import copy
import math

import pytest
import torch
from builders import small_learner, step_of, two_steps_of_gradients, two_views
from torch import nn

from ranks import on_ranks
from scanlearn.engine.optim import optimizer_of, set_learning_rate
from scanlearn.engine.recipe import OptimizerSettings
from scanlearn.errors import ScanlearnError
from scanlearn.objectives.adversary import Adversary, deceiving_error, gradient_penalty, judging_error

SEEN = {"view": "query", "target": "key"}
DECODER = {"decoder": {"name": "unet"}}
LOSSES = ("least_squares", "log", "wgan_gp")
PLACES = torch.arange(8)


def adversary(**settings):
    return {"adversary": {**SEEN, "width": 2, **settings}}


def learner_of(objectives, **settings):
    return small_learner(objectives, **DECODER, **settings)


def step_for(learner, count=4, **settings):
    return step_of(learner, two_views(count, **settings), position=PLACES[:count])


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("loss", LOSSES)
def test_both_errors_equal_the_plain_loop(loss):
    real, fake = torch.randn(2, 1, 3, 4, dtype=torch.float64), torch.randn(2, 1, 3, 4, dtype=torch.float64)
    deceiving = judging = 0.0
    for a, b in zip(real.flatten().tolist(), fake.flatten().tolist(), strict=True):
        if loss == "least_squares":
            deceiving, judging = deceiving + (b - 1) ** 2, judging + 0.5 * ((a - 1) ** 2 + b**2)
        elif loss == "log":
            deceiving -= math.log(sigmoid(b))
            judging -= 0.5 * (math.log(sigmoid(a)) + math.log(1 - sigmoid(b)))
        else:
            deceiving, judging = deceiving - b, judging + b - a
    assert deceiving_error(fake, loss).item() == pytest.approx(deceiving / 24, abs=1e-12)
    assert judging_error(real, fake, loss).item() == pytest.approx(judging / 24, abs=1e-12)


def test_an_opponent_that_cannot_tell_costs_a_quarter_and_in_log_form_ln_two():
    # spec_dira §11, test 4.
    half, none = torch.full((2, 1, 3, 3), 0.5), torch.zeros(2, 1, 3, 3)
    assert deceiving_error(half).item() == judging_error(half, half).item() == 0.25
    assert deceiving_error(none, "log").item() == pytest.approx(math.log(2))
    assert judging_error(none, none, "log").item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("conditional", [False, True])
def test_the_networks_part_never_reaches_the_opponent_nor_the_opponents_the_network(loss, conditional):
    # spec_dira §11, test 5.
    learner = learner_of(adversary(loss=loss, conditional=conditional))
    objective, step = learner.objectives["adversary"], step_for(learner)
    value = objective(step)
    (opposing,) = step.opposed
    network, opponent = list(learner.network.parameters()), list(objective.opponent.parameters())
    own = torch.autograd.grad(value, network, retain_graph=True)
    # A bias before batch norm has no effect; everything else of encoder and decoder learns.
    names = [name for name, _ in learner.network.named_parameters()]
    still = [name for name, grad in zip(names, own, strict=True) if grad.abs().sum() == 0]
    assert all(name.endswith("bias") for name in still)
    assert torch.autograd.grad(value, opponent, retain_graph=True, allow_unused=True) == (None,) * len(opponent)
    assert torch.autograd.grad(opposing, network, retain_graph=True, allow_unused=True) == (None,) * len(network)
    theirs = torch.autograd.grad(opposing, opponent)
    assert all(g.abs().sum() > 0 for p, g in zip(opponent, theirs, strict=True) if p.ndim > 1)


def test_gradient_reaches_the_encoder_through_every_skip():
    # spec_dira detail 35.
    learner = learner_of(adversary())
    step = step_for(learner)
    maps = step.features("query")
    value = learner.objectives["adversary"](step)
    assert all(grad.abs().sum() > 0 for grad in torch.autograd.grad(value, maps))


def test_the_weight_is_that_of_the_networks_part_alone():
    # spec_dira detail 8: no weight before the opponent's loss, and its loss is not in the sum.
    found = []
    for weight in (1.0, 0.001):
        learner = learner_of(adversary())
        loss, parts = learner(two_views(4), {"step": 0}, {"adversary": weight})
        loss.backward()
        assert loss.item() == pytest.approx(weight * parts["adversary"].item(), rel=1e-5)
        objective = learner.objectives["adversary"]
        found.append((learner.network.decoder, [p.grad.clone() for p in objective.opponent.parameters()]))
    for one, other in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, other)
    for one, other in zip(found[0][0].parameters(), found[1][0].parameters(), strict=True):
        torch.testing.assert_close(0.001 * one.grad, other.grad, atol=1e-9, rtol=1e-3)


def test_one_pass_of_encoder_and_decoder_serves_restore_and_adversary():
    learner = learner_of({"restore": SEEN, **adversary()})
    calls = []
    for part in (learner.network.encoder, learner.network.decoder):
        part.register_forward_hook(lambda *_: calls.append(1))
    learner(two_views(4), {"step": 0}, {"restore": 10.0, "adversary": 0.001})
    assert len(calls) == 2


def published_steps(learner, steps, weight):
    """spec_dira §1.5 with two optimisers on copies: first the network, then the opponent, on one reconstruction."""
    network = copy.deepcopy(learner.network)
    opponent = copy.deepcopy(learner.objectives["adversary"].opponent)
    first = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    second = torch.optim.Adam(opponent.parameters(), lr=2e-4, betas=(0.5, 0.999))
    for number in range(steps):
        views = two_views(4, seed=number)
        restored = torch.sigmoid(network.restored(views["query"]))
        loss = 10 * (restored - views["key"]).square().mean() + weight * (opponent(restored) - 1).square().mean()
        first.zero_grad()
        loss.backward()
        first.step()
        second.zero_grad()  # what the network's step left there
        real, fake = opponent(views["key"]), opponent(restored.detach())
        (0.5 * ((real - 1).square().mean() + fake.square().mean())).backward()
        second.step()
    return [*network.parameters(), *opponent.parameters()]


def test_three_steps_equal_first_the_network_then_the_opponent():
    learner = learner_of({"restore": SEEN, **adversary()})
    wanted = published_steps(learner, 3, weight=0.5)
    settings = OptimizerSettings("sgd", lr=0.1)
    optimizer = optimizer_of(learner, learner.network.encoder, settings, learner.apart())
    for number in range(3):
        set_learning_rate(optimizer, 0.1, 0.1)
        optimizer.zero_grad()
        loss, _ = learner(two_views(4, seed=number), {"step": number}, {"restore": 10.0, "adversary": 0.5})
        loss.backward()
        optimizer.step()
    ours = [*learner.network.parameters(), *learner.objectives["adversary"].opponent.parameters()]
    for one, other in zip(ours, wanted, strict=True):
        # Adam moves an exact zero (a bias before a norm) by the sign of rounding: its rate is the most that can differ.
        torch.testing.assert_close(one, other, atol=2e-5 if one.ndim > 1 else 1.3e-3, rtol=1e-3)


class Judge(nn.Module):
    """``scale * sum_c w_c x_c^2 / 2`` at each voxel: its gradient is known."""

    def __init__(self, weights):
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(weights, dtype=torch.float64).view(1, -1, 1, 1))

    def forward(self, x):
        return (self.weights * x.square() / 2).sum(1, keepdim=True)


def test_the_gradient_penalty_equals_the_plain_loop_on_image_and_condition():
    real, fake = torch.rand(3, 2, 4, 5, dtype=torch.float64), torch.rand(3, 2, 4, 5, dtype=torch.float64)
    fake[:, 1] = real[:, 1]  # the condition that both have in common
    share, judge = torch.tensor([0.0, 0.3, 1.0]), Judge([20.0, -30.0])
    total = 0.0
    for n in range(3):
        squares = 0.0
        for channel, weight in ((0, 20.0), (1, -30.0)):
            for a, b in zip(real[n, channel].flatten().tolist(), fake[n, channel].flatten().tolist(), strict=True):
                mixed = share[n].item() * a + (1 - share[n].item()) * b
                squares += (weight * mixed / 20) ** 2  # the mean over the map of 4 x 5 judgements
        total += (math.sqrt(squares) - 1) ** 2
    penalty = gradient_penalty(judge, real, fake, share)
    assert penalty.item() == pytest.approx(total / 3, rel=1e-7)
    penalty.backward()
    step = 1e-5
    judge.weights.data[0, 1] += step
    slope = (gradient_penalty(judge, real, fake, share).item() - penalty.item()) / step
    assert judge.weights.grad[0, 1].item() == pytest.approx(slope, rel=1e-3)  # it teaches the opponent


def test_the_penalty_is_that_of_what_the_opponent_sees():
    # The released 3D code repeats the mixed image where the condition belongs (spec_dira §3).
    learner = learner_of(adversary(loss="wgan_gp", conditional=True))
    objective, step, seen = learner.objectives["adversary"], step_for(learner), []
    objective.opponent.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    objective(step)
    assert len(seen) == 3  # of the network, of the opponent (clean and restored together), of the penalty
    for images in seen:
        condition = step.view("query")
        assert torch.equal(images[:, 1:], condition if len(images) == 4 else torch.cat([condition] * 2))
    assert torch.equal(seen[1][:4, :1], step.view("key")) and not seen[1].requires_grad
    torch.testing.assert_close(seen[1][4:, :1], torch.sigmoid(step.restored("query")))


def test_the_share_of_the_penalty_is_that_of_the_step_and_the_place():
    learner = learner_of(adversary(loss="wgan_gp"))
    steps = [step_of(learner, two_views(4), number, position=PLACES[:4]) for number in (3, 3, 4)]
    shares = [step.draws("adversary").uniform() for step in steps]
    assert torch.equal(shares[0], shares[1]) and not torch.equal(shares[0], shares[2])
    behind = step_of(learner, two_views(2), 3, position=PLACES[2:4]).draws("adversary").uniform()
    assert torch.equal(behind, shares[0][2:])  # also where another rank has it


def test_a_grey_condition_counts_as_the_channels_the_encoder_sees():
    learner = learner_of(adversary(conditional=True), encoder={"name": "unet", "width": 2, "in_channels": 3})
    objective, decoder = learner.objectives["adversary"], learner.network.decoder
    assert objective.opponent.model[0].in_channels == 3 + decoder.out_channels
    views = two_views(4)
    step = step_of(learner, {**views, "key": views["key"].expand(-1, decoder.out_channels, -1, -1)})
    judged, _ = objective.judged_pair(step, "query", "key")
    assert torch.equal(judged[:, decoder.out_channels :], step.view("query").expand(-1, 3, -1, -1))


def test_it_judges_volumes():
    learner = learner_of(adversary(loss="wgan_gp", conditional=True), spatial_dims=3)
    loss, parts = learner(two_views(2, spatial_dims=3), {"step": 0, "position": PLACES[:2]}, {"adversary": 1.0})
    loss.backward()
    assert {"opponent", "opponent_real", "opponent_fake", "opponent_penalty"} <= parts.keys()
    assert learner.objectives["adversary"].opponent.model[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("loss", LOSSES)
def test_what_is_paid_for_more_views_is_the_mean_of_theirs(loss):
    def paid(**settings):
        learner = learner_of(adversary(loss=loss, conditional=True, **settings))
        _, parts = learner(two_views(4), {"step": 0, "position": PLACES[:4]}, {"adversary": 1.0})
        return torch.stack([parts["adversary"], parts["opponent"]])

    each = paid(), paid(view="key", target="query")
    torch.testing.assert_close(paid(also={"key": "query"}), sum(each) / 2, rtol=1e-4, atol=1e-6)
    assert (each[0] - each[1]).abs().min() > 1e-6


def test_evaluation_asks_nothing_of_the_opponent_and_changes_nothing():
    learner = learner_of(adversary(loss="wgan_gp")).eval()
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    with torch.no_grad():
        step = step_for(learner)
        learner.objectives["adversary"](step)
    assert step.opposed == []
    assert all(torch.equal(value, before[name]) for name, value in learner.state_dict().items())


def test_a_stage_that_begins_anew_draws_the_opponent_again_and_nothing_else():
    learner = learner_of({"restore": SEEN, **adversary()})
    before, states = {name: value.clone() for name, value in learner.state_dict().items()}, []
    for seed in (7, 7, 8):
        torch.rand(1)
        learner.objectives["adversary"].begin(seed)
        states.append([p.clone() for p in learner.objectives["adversary"].opponent.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(states[0], states[1], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(states[0], states[2], strict=True))
    changed = {name for name, value in learner.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if "opponent" in name}


def adversarial_steps(world_size, network):
    """Loss and gradients with each loss, restore beside it; all from one pair of processes."""
    found = []
    for loss in ("least_squares", "wgan_gp"):
        objectives = {"restore": SEEN, **adversary(loss=loss, penalty=1.0, conditional=True)}
        found += two_steps_of_gradients(objectives, world_size, {**network, **DECODER}, position=PLACES)
    return found


def test_two_ranks_give_the_loss_and_gradients_of_one_process(tmp_path):
    alone = adversarial_steps(1, {"batch_norm": "split", "batch_norm_groups": 2})
    for rank in on_ranks(tmp_path, adversarial_steps, 2, {"batch_norm": "local"}):
        for ours, theirs in zip(alone, rank, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4 * max(float(ours.abs().max()), 1.0), rtol=1e-3)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"loss": "lsq"}, "There is no adversarial loss 'lsq'"),
        ({"activation": "relu"}, "There is no restoration activation 'relu'"),
        ({"penalty": -1.0}, "must be 0 or more"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(ScanlearnError, match=message):
        Adversary(learner_of({"restore": SEEN}).network, **settings)


def test_a_network_without_decoder_is_refused():
    with pytest.raises(ScanlearnError, match="'adversary' needs a decoder"):
        small_learner(adversary())
