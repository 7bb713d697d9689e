"""What a network restores: of the first scans of its run, at the end of each stage, with its error and its sharpness."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from scanlearn.engine.device import default_device
from scanlearn.networks.network import Network
from scanlearn.study.facts import Facts
from scanlearn.study.page import number
from scanlearn.weights.encoder import CARD, load_network


def ready_network(path: Path) -> Network:
    """A saved network in evaluation mode, on the device, in the memory format that is fast there."""
    network = load_network(path).to(default_device()).eval()
    layout = torch.channels_last if network.encoder.spatial_dims == 2 else torch.channels_last_3d  # faster, CPU too
    network.to(memory_format=layout)  # type: ignore[call-overload]
    return network


def restored_images(facts: Facts, network: Network, views: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """{title: (n, C, *S) in the range of the target}: what ``network`` makes of the distorted view.

    Before it stands what each earlier stage left, where the run kept that and the stage restored. Empty for a recipe
    that does not restore.
    """
    objective = facts.recipe["objectives"].get("restore")
    if objective is None:
        return {}
    found, stages = {}, facts.recipe.get("stages") or []
    for at, stage in enumerate(stages[:-1], 1):
        folder = facts.run.stages / str(at)
        if (folder / CARD).is_file() and (stage.get("weights") or {}).get("restore", objective.get("weight", 1.0)):
            name = stage.get("name") or f"stage {at}"
            found[f"restored after {name}"] = restored(ready_network(folder), views, objective)
    last = (
        f"restored after {facts.train[-1]['stage']}" if found else "restored"
    )  # it may have been stopped before the end
    return {**found, last: restored(network, views, objective)}


def restored(network: Network, views: Mapping[str, Tensor], objective: Mapping[str, Any]) -> Tensor:
    """What one network makes of the distorted view, (n, C, *S)."""
    view = views[objective.get("view", "distorted")]
    with torch.no_grad():
        output = network.restored(view.to(default_device())).float().cpu()
    return torch.sigmoid(output) if objective.get("activation", "sigmoid") == "sigmoid" else output


def sharpness(image: Tensor, target: Tensor) -> float:
    """Mean absolute difference of neighbouring voxels over that of the target, (n, C, *S) each.

    1: edges as strong as the target's; less is blurred, 0 one grey. Noise raises it too, so read it with the error.
    """
    return float(_edges(image) / _edges(target).clamp(min=1e-12))


def _edges(image: Tensor) -> Tensor:
    return torch.stack([image.diff(dim=axis).abs().mean() for axis in range(2, image.ndim)]).mean()


def in_words(images: Mapping[str, Tensor], views: Mapping[str, Tensor], objective: Mapping[str, Any]) -> str:
    """Error and sharpness of what was restored against the clean scan, beside those of the distorted view."""
    target, distorted = views[objective.get("target", "clean")], views[objective.get("view", "distorted")]
    if distorted.shape[1] != target.shape[1]:  # in colour, restored in grey
        distorted = distorted.mean(dim=1, keepdim=True)
    shown = {"distorted": distorted, **images}
    errors = ", ".join(f"{name} {number(float(F.mse_loss(image, target)), 4)}" for name, image in shown.items())
    edges = ", ".join(f"{name} {number(sharpness(image, target), 2)}" for name, image in shown.items())
    return (
        f"Mean squared error against the clean scan, over these {len(target)}: {errors}. Strength of edges, 1 in the clean "
        f"scan: {edges}."
    )
