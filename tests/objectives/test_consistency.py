import math

import numpy as np
import pytest
import torch

from ranks import on_ranks
from scanlearn.engine.learner import build_learner
from scanlearn.engine.recipe import parse_recipe
from scanlearn.errors import ScanlearnError
from scanlearn.objectives.consistency import ramp
from scanlearn.objectives.ranks import own_part

NETWORK = {
    "encoder": {"name": "segres", "width": 8, "blocks": [1, 1], "dropout": 0.0, "groups": 4},
    "decoder": {"name": "segres", "out_channels": 4, "groups": 4},
}


def learner_of(dims=2, network=NETWORK, **settings):
    data = {
        "name": "small",
        "spatial_dims": dims,
        "network": network,
        "views": {"image": {"ops": []}, "teacher": {"ops": []}},
        "objectives": {"consistency": {"ramp_up": 0, **settings}},
    }
    learner = build_learner(parse_recipe(data), seed=0, world_size=1)
    with torch.no_grad():  # or else network and teacher begin as one
        for parameter in learner.network.parameters():
            parameter.mul_(1.5)
    return learner


def views(samples=4, dims=2):
    generator = torch.Generator().manual_seed(1)
    return {name: torch.rand((samples, 1, *[8] * dims), generator=generator) for name in ("image", "teacher")}


def run(learner, images, step=0):
    return learner(images, {"step": step}, {"consistency": 1.0})[0]


def softmax(x, axis):
    return np.exp(x) / np.exp(x).sum(axis=axis, keepdims=True)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("regions", [None, 2])
def test_loss_is_the_mean_squared_difference_of_probabilities(dims, regions):
    learner, images = learner_of(dims, regions=regions), views(dims=dims)
    with torch.no_grad():
        drawn = learner.network.restored(images["image"]).double().numpy()
        other = learner.objectives["consistency"].teacher.restored(images["teacher"]).double().numpy()
    parts = [slice(0, 4)] if regions is None else [slice(0, 2), slice(2, 4)]
    wanted = np.mean([(softmax(drawn[:, p], 1) - softmax(other[:, p], 1)) ** 2 for p in parts])
    assert run(learner, images).item() == pytest.approx(float(wanted), rel=1e-5)


def test_the_network_learns_and_the_teacher_does_not():
    learner = learner_of()
    run(learner, views()).backward()
    for name, parameter in learner.named_parameters():
        if ".teacher." in name:
            assert parameter.grad is None and not parameter.requires_grad, name
        else:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_the_teacher_follows_at_first_at_once_and_then_by_the_momentum():
    learner = learner_of(momentum=0.75)
    objective = learner.objectives["consistency"]
    teacher, student = next(objective.teacher.parameters()), next(learner.network.parameters())
    wanted = teacher.clone()
    for update in range(8):
        with torch.no_grad():
            student.add_(0.1)
        learner.after_update()
        m = min(1 - 1 / (update + 1), 0.75)
        wanted = m * wanted + (1 - m) * student.detach()
        torch.testing.assert_close(teacher, wanted)


def test_the_weight_grows_as_published():
    assert ramp(0, 100) == pytest.approx(math.exp(-5)) and ramp(50, 100) == pytest.approx(math.exp(-1.25))
    assert ramp(100, 100) == ramp(10_000, 100) == ramp(3, 0) == 1
    learner, images = learner_of(ramp_up=100), views()
    first, last = run(learner, images, step=0), run(learner, images, step=100)
    assert first.item() == pytest.approx(math.exp(-5) * last.item(), rel=1e-5)


def test_evaluation_moves_neither_teacher_nor_its_statistics():
    network = {"encoder": {"name": "unet", "width": 4}, "decoder": {"name": "unet", "out_channels": 4}}
    learner = learner_of(network=network).eval()
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    with torch.no_grad():
        run(learner, views())
    assert all(torch.equal(value, before[name]) for name, value in learner.state_dict().items())


def gradients(images):
    learner = learner_of()
    loss = run(learner, {name: own_part(view) for name, view in images.items()})
    loss.backward()
    return [loss.detach(), *[p.grad for p in learner.parameters() if p.grad is not None]]


def test_two_ranks_give_the_loss_and_gradients_of_one_process(tmp_path):
    alone, ranks = gradients(views()), on_ranks(tmp_path, gradients, views())
    for whole, *parts in zip(alone, *ranks, strict=True):
        torch.testing.assert_close(torch.stack(parts).mean(dim=0), whole, atol=1e-5, rtol=1e-4)


def test_views_of_other_voxels_and_networks_without_decoder_are_refused():
    images = views()
    images["teacher"] = images["teacher"][..., :4]
    with pytest.raises(ScanlearnError, match="the same voxels"):
        run(learner_of(), images)
    with pytest.raises(ScanlearnError, match="needs a decoder"):
        learner_of(network={**NETWORK, "decoder": None})
