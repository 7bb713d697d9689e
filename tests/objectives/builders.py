"""Small networks and steps for the tests of the objectives."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from scanlearn.engine.learner import Learner, build_learner
from scanlearn.engine.recipe import parse_recipe
from scanlearn.objectives.ranks import own_part
from scanlearn.objectives.step import Step

MOCO = {"momentum_contrast": {"queue_size": 32, "dim": 8, "temperature": 0.2, "momentum": 0.9}}
RESTORE = {"restore": {"view": "query", "target": "key"}}


def small_recipe(objectives: dict[str, Any], spatial_dims: int = 2, **network: Any) -> Any:
    """A recipe with a U-Net of width 4 and no training to speak of."""
    decoder = {"name": "unet"} if "restore" in objectives or "segment" in objectives else None
    settings = {"encoder": {"name": "unet", "width": 4}, "decoder": decoder, **network}
    views = {"query": {"ops": []}, "key": {"ops": []}}
    data = {
        "name": "small",
        "network": settings,
        "objectives": objectives,
        "views": views,
        "spatial_dims": spatial_dims,
    }
    return parse_recipe(data)


def small_learner(objectives: dict[str, Any], world_size: int = 1, **settings: Any) -> Learner:
    return build_learner(small_recipe(objectives, **settings), seed=0, world_size=world_size)


def two_views(count: int, size: int = 16, spatial_dims: int = 2, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (count, 1, *(size,) * spatial_dims)
    return {name: torch.rand(shape, generator=generator) for name in ("query", "key")}


def step_of(learner: Learner, views: dict[str, Tensor], number: int = 0, **batch: Any) -> Step:
    return Step(learner.network, views, {"step": number, **batch}, learner.seed)


def two_steps_of_gradients(
    objectives: dict[str, Any], world_size: int, batch_norm: dict[str, Any], **batch: Tensor
) -> list[Tensor]:
    """Loss and gradients of two steps on this rank's part of a fixed global batch of 8, averaged over ranks.

    ``batch``: what else the batch holds; a name with a dot is a target of a view.
    """
    learner = small_learner(objectives, world_size, **batch_norm)
    for objective in learner.objectives.values():
        objective.start(scans=40, batch_size=8)
    results = []
    for number in range(2):
        own = {name: own_part(values) for name, values in {**two_views(8, seed=number), **batch}.items()}
        views = {name: values for name, values in own.items() if name in ("query", "key") or "." in name}
        rest = {name: values for name, values in own.items() if name not in views}
        learner.zero_grad()
        loss, _ = learner(views, {"step": number, **rest}, dict.fromkeys(objectives, 1.0))
        loss.backward()
        grads = [p.grad for p in learner.parameters() if p.grad is not None]
        value = loss.detach().clone()
        if world_size > 1:
            for tensor in [value, *grads]:
                dist.all_reduce(tensor)
                tensor.div_(world_size)
        with torch.no_grad():
            for p in learner.parameters():
                if p.grad is not None:
                    p.sub_(p.grad, alpha=0.1)
        learner.after_update()
        results.append([value, *[g.clone() for g in grads]])
    buffers = [b for n, b in learner.named_buffers() if "queue" in n or "pointer" in n]
    return [*results[0], *results[1], *buffers]


def assert_encoder_and_head_learn_and_no_decoder(learner: Learner, loss: Tensor, part: Tensor) -> None:
    """After one forward over one objective: the loss is its value ``part``, and who gets a gradient."""
    loss.backward()
    torch.testing.assert_close(loss.detach(), part)
    for parameter_name, parameter in learner.named_parameters():
        if parameter_name.startswith("network.decoder"):
            assert parameter.grad is None, parameter_name
        elif "conv1.bias" not in parameter_name:  # a bias before batch norm has no effect
            assert parameter.grad.abs().sum() > 0, parameter_name
