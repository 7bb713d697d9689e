import copy

import pytest
import torch
from torch import nn

from scanlearn.engine.device import start_fabric
from scanlearn.engine.opponents import Together, clip_gradients
from scanlearn.engine.optim import optimizer_of, set_learning_rate
from scanlearn.engine.recipe import OptimizerSettings
from scanlearn.errors import ScanlearnError
from scanlearn.objectives.objective import Apart

ADAM = {"name": "adam", "lr": 2e-4, "betas": [0.5, 0.999]}


def modules():
    torch.manual_seed(1)
    parts = {"encoder": nn.Linear(3, 4), "predictor": nn.Linear(4, 4), "opponent": nn.Linear(4, 2)}
    return nn.ModuleDict(parts)


def optimizer_for(module, **changes):
    apart = [Apart(module["predictor"]), Apart(module["opponent"], {**ADAM, **changes})]
    return optimizer_of(module, module["encoder"], OptimizerSettings("sgd", lr=0.1), apart)


def step(module, optimizer, number):
    torch.manual_seed(number)
    for p in module.parameters():
        p.grad = torch.randn_like(p)
    optimizer.step()


def test_an_opponent_moves_by_its_own_optimiser_and_all_else_by_the_recipes():
    module = modules()
    plain = copy.deepcopy(module)
    first = torch.optim.SGD([*plain["encoder"].parameters(), *plain["predictor"].parameters()], lr=0.1, momentum=0.9)
    second = torch.optim.Adam(plain["opponent"].parameters(), lr=2e-4, betas=(0.5, 0.999))
    together = optimizer_for(module)
    for number in range(3):
        step(module, together, number)
        step(plain, first, number)
        second.step()
    for ours, wanted in zip(module.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, wanted)


def test_the_schedule_moves_neither_a_constant_rate_nor_that_of_an_opponent():
    # spec_dira §2.2 and detail 9.
    optimizer = optimizer_for(modules())
    set_learning_rate(optimizer, 0.025, 0.1)
    rates = {tuple(p.shape): group["lr"] for group in optimizer.param_groups for p in group["params"] if p.ndim > 1}
    assert rates == {(4, 3): 0.025, (4, 4): 0.1, (2, 4): 2e-4}


def test_together_is_saved_and_loaded_as_one_optimiser_bit_for_bit():
    module = modules()
    optimizer = optimizer_for(module)
    step(module, optimizer, 0)
    saved, weights = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(module.state_dict())
    for number in (1, 2):
        step(module, optimizer, number)
    other = modules()
    other.load_state_dict(weights)
    again = optimizer_for(other)
    again.load_state_dict(saved)
    for number in (1, 2):
        step(other, again, number)
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), other.parameters(), strict=True))
    set_learning_rate(again, 0.0, 0.0)  # the groups that were loaded are those that move
    before = [p.clone() for p in other["encoder"].parameters()]
    step(other, again, 3)
    assert all(torch.equal(a, b) for a, b in zip(before, other["encoder"].parameters(), strict=True))


def test_a_cleared_state_is_that_of_a_fresh_optimiser_in_all_parts():
    module, plain = modules(), modules()
    optimizer = optimizer_for(module)
    step(module, optimizer, 0)
    optimizer.state.clear()
    plain.load_state_dict(module.state_dict())
    step(module, optimizer, 1)
    step(plain, optimizer_for(plain), 1)
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), plain.parameters(), strict=True))


def test_clipping_shortens_the_networks_gradient_and_leaves_the_opponents():
    module = modules()
    fabric = start_fabric("32-true")
    optimizer = fabric.setup_optimizers(optimizer_for(module))
    for p in module.parameters():
        p.grad = torch.full_like(p, 3.0)
    clip_gradients(fabric, optimizer, 0.5)
    own = [p.grad for name, p in module.named_parameters() if "opponent" not in name]
    assert torch.cat([g.flatten() for g in own]).norm().item() == pytest.approx(0.5, rel=1e-4)
    assert all(bool((p.grad == 3).all()) for p in module["opponent"].parameters())


def test_without_opponents_there_is_one_plain_optimiser():
    module = modules()
    optimizer = optimizer_of(module, module["encoder"], OptimizerSettings("sgd"), [Apart(module["predictor"])])
    assert type(optimizer) is torch.optim.SGD
    assert isinstance(optimizer_for(module), Together)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"nmae": "adam"}, "There is no setting optimizer of an opponent.nmae"),
        ({"name": "adma"}, "did you mean 'adam'"),
        ({"lr": -1.0}, "of an opponent's optimizer of the recipe cannot be used"),
    ],
)
def test_settings_of_an_opponents_optimiser_are_checked(changes, message):
    with pytest.raises(ScanlearnError, match=message):
        optimizer_for(modules(), **changes)
