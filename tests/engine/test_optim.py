import math

import numpy as np
import pytest
import torch
from torch import nn

from scanlearn.engine.optim import Lars, build_optimizer, parameter_groups, set_learning_rate
from scanlearn.engine.recipe import OptimizerSettings, ScheduleSettings
from scanlearn.engine.schedule import factor
from scanlearn.errors import ScanlearnError
from scanlearn.objectives.objective import Apart


def small_module():
    return nn.ModuleDict({"encoder": nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), "head": nn.Linear(4, 2)})


def test_lars_equals_the_plain_rule():
    torch.manual_seed(0)
    weight, bias = (
        nn.Parameter(torch.randn(3, 2, dtype=torch.float64)),
        nn.Parameter(torch.randn(3, dtype=torch.float64)),
    )
    w, b = weight.detach().numpy().copy(), bias.detach().numpy().copy()
    optimizer = Lars([weight, bias], lr=0.5, momentum=0.9, weight_decay=0.01, trust=0.002)
    momentum = {"w": np.zeros_like(w), "b": np.zeros_like(b)}
    for step in range(3):
        weight.grad, bias.grad = torch.full_like(weight, step + 1.0), torch.full_like(bias, 2.0)
        gradient = (step + 1.0) + 0.01 * w
        update = gradient * 0.002 * math.sqrt((w**2).sum()) / math.sqrt((gradient**2).sum())
        momentum["w"] = 0.9 * momentum["w"] + update
        momentum["b"] = 0.9 * momentum["b"] + 2.0
        w, b = w - 0.5 * momentum["w"], b - 0.5 * momentum["b"]
        optimizer.step()
    np.testing.assert_allclose(weight.detach().numpy(), w, rtol=1e-12)
    np.testing.assert_allclose(bias.detach().numpy(), b, rtol=1e-12)


def test_groups_part_encoder_from_head_and_weights_from_vectors():
    module = small_module()
    settings = OptimizerSettings(weight_decay=0.1, decay_norm_and_bias=False, encoder_lr_scale=0.25)
    groups = parameter_groups(module, module["encoder"], settings)
    found = {(g["lr_scale"], g["weight_decay"]): sum(p.numel() for p in g["params"]) for g in groups}
    assert found == {(0.25, 0.1): 12, (0.25, 0.0): 12, (1.0, 0.1): 8, (1.0, 0.0): 2}


def test_frozen_parameters_are_not_optimised():
    module = small_module()
    module["encoder"].requires_grad_(False)
    groups = parameter_groups(module, module["encoder"], OptimizerSettings())
    assert sum(p.numel() for g in groups for p in g["params"]) == 10


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "lars"])
def test_each_optimizer_moves_by_its_own_learning_rate(name):
    module = small_module()
    settings = OptimizerSettings(name=name, lr=1.0, encoder_lr_scale=0.0)
    optimizer = build_optimizer(parameter_groups(module, module["encoder"], settings), settings)
    set_learning_rate(optimizer, 0.1)
    before = {k: v.clone() for k, v in module.named_parameters()}
    for p in module.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    for key, p in module.named_parameters():
        assert torch.equal(p, before[key]) == key.startswith("encoder"), key


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(ScanlearnError, match="did you mean 'adam'"):
        build_optimizer([{"params": [nn.Parameter(torch.ones(1))]}], OptimizerSettings(name="adma"))
    with pytest.raises(ScanlearnError, match="did you mean 'cosine'"):
        factor(ScheduleSettings("cosin"), 0, 10)


def test_warm_up_is_linear_and_ends_at_the_full_rate():
    settings = ScheduleSettings("constant", warmup_steps=4)
    assert [factor(settings, step, 10) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_cosine_falls_from_one_to_zero_and_per_epoch_in_stairs():
    smooth = [factor(ScheduleSettings("cosine"), step, 100) for step in range(100)]
    assert smooth[0] == 1.0 and smooth == sorted(smooth, reverse=True) and smooth[-1] < 0.001
    stairs = [factor(ScheduleSettings("cosine", per_epoch=True), step, 100, 10) for step in range(100)]
    assert all(len(set(stairs[i : i + 10])) == 1 for i in range(0, 100, 10))
    assert stairs[30] == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.3)))


def test_a_constant_group_keeps_the_rate_while_the_schedule_falls():
    # SimSiam's predictor, spec_dira §2.2.
    module = small_module()
    groups = parameter_groups(module, module["encoder"], OptimizerSettings(), [Apart(module["head"])])
    optimizer = build_optimizer(groups, OptimizerSettings())
    set_learning_rate(optimizer, 0.01, 0.5)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert {rates[id(p)] for p in module["head"].parameters()} == {0.5}
    assert {rates[id(p)] for p in module["encoder"].parameters()} == {0.01}


def test_lars_of_barlow_twins_moves_weights_by_02_and_vectors_by_00048_without_trust_or_decay():
    # spec_dira §2.3: rates at batch 256; momentum 0.9, trust 0.001, decay 1e-6.
    module = small_module()
    settings = OptimizerSettings("lars", lr=0.2, weight_decay=1e-6, vector_lr_scale=0.024, trust=0.001)
    optimizer = build_optimizer(parameter_groups(module, module["encoder"], settings), settings)
    set_learning_rate(optimizer, 0.2)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    for p in module.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    for name, p in module.named_parameters():
        moved = before[name] - p.detach()
        if p.ndim == 1:
            torch.testing.assert_close(moved, torch.full_like(p, 0.0048))
        else:
            gradient = 1 + 1e-6 * before[name]
            torch.testing.assert_close(moved, 0.2 * 0.001 * before[name].norm() / gradient.norm() * gradient)


def test_the_schedule_of_barlow_twins_warms_up_ten_epochs_and_ends_at_a_thousandth():
    settings = ScheduleSettings("cosine", warmup_epochs=10, end=0.001)
    rates = [factor(settings, step, 1000, steps_per_epoch=5) for step in range(1001)]
    assert rates[:3] == pytest.approx([0.02, 0.04, 0.06]) and rates[49] == rates[50] == 1.0
    for step in (50, 300, 777, 1000):
        q = 0.5 * (1 + math.cos(math.pi * (step - 50) / 950))
        assert rates[step] == pytest.approx(q + 0.001 * (1 - q))
    assert rates[1000] == pytest.approx(0.001) and rates[50:] == sorted(rates[50:], reverse=True)
