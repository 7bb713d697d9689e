"""Where a fine-tuned classifier looks: Grad-CAM in 2D and 3D, for any class and any stage of the encoder.

Source: Selvaraju et al., ICCV 2017, arXiv 1610.02391; spec_dira, section 5.5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from scanlearn.engine.embedding import grid_boxes, unit_scans
from scanlearn.errors import ScanlearnError
from scanlearn.networks.network import Network
from scanlearn.scans.boxes import cuts_of
from scanlearn.scans.resample import resample
from scanlearn.scans.store import Box, Store
from scanlearn.tasks.trained import Trained, probabilities

TOGETHER = 16  # patches in one pass


def grad_cam(network: Network, pull: Tensor, images: Tensor, stage: int = -1) -> Tensor:
    """Maps (n, *size of the stage's map), 0 and more: relu( Σ_k a_k A_k ), a_k the mean over places of dy/dA_k.

    Args:
        pull: (n, num_features): the gradient of the class's logit y with respect to the pooled features.
        images: (n, C, *S) in [0, 1].
        stage: which of the encoder's maps A is, fine to coarse; -1 is the last.

    The network is best in evaluation mode, as otherwise the images of a batch share their statistics.

    Raises:
        ScanlearnError: the encoder has no such stage, or the class does not depend on it.
    """
    with torch.enable_grad():
        maps = network.features(images.detach().requires_grad_())
        if not -len(maps) <= stage < len(maps):
            raise ScanlearnError(
                f"The encoder {network.encoder.name!r} has {len(maps)} stages, counted from 0: there is no stage {stage}."
            )
        at = maps[stage]
        y = (maps[-1].flatten(2).mean(2) * pull).sum()
        (gradient,) = torch.autograd.grad(y, at, allow_unused=True)
    if gradient is None:
        raise ScanlearnError(f"What the encoder {network.encoder.name!r} says does not pass through its stage {stage}.")
    weight = gradient.flatten(2).mean(2)
    return torch.einsum("nk,nk...->n...", weight, at.detach()).relu()


def pull_of(logits: Callable[[Tensor], Tensor], pooled: Tensor, place: int) -> Tensor:
    """(n, num_features): the gradient of the logit of class ``place`` at pooled features (n, num_features)."""
    with torch.enable_grad():
        pooled = pooled.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(logits(pooled)[:, place].sum(), pooled)
    return gradient


def heat(
    trained: Trained, store: Store, row: int, places: Sequence[int], stage: int = -1
) -> tuple[np.ndarray, np.ndarray]:
    """(maps float32 (len(places), *S) of one scan on the store's grid, each divided by its largest value; probabilities
    (K,) of all classes).

    A 2D scan is resized to what the classifier takes. A volume is covered by patches, whose features the classifier
    averages: each patch has the gradient of the scan's logit, and where patches overlap their maps are averaged. A class
    that nothing speaks for has a map of zeros.
    """
    size, shape = trained.facts["input_size"], store.shape(row)
    boxes = [((0,) * len(shape), tuple(shape))] if store.spatial_dims == 2 else grid_boxes(shape, size)
    parts = [boxes[i : i + TOGETHER] for i in range(0, len(boxes), TOGETHER)]
    with torch.no_grad():
        pooled = torch.cat([trained.network.pooled(_patches(store, row, part, trained)) for part in parts])
        pooled = pooled.float().mean(dim=0, keepdim=True)
        found = probabilities(trained.class_logits(pooled), trained.facts["multilabel"])[0].cpu().numpy()
    whole = np.zeros((len(places), *shape), np.float32)
    count = np.zeros(shape, np.float32)
    pulls = [pull_of(trained.class_logits, pooled, place) for place in places]
    for part in parts:
        images = _patches(store, row, part, trained)
        maps = [grad_cam(trained.network, pull.expand(len(part), -1), images, stage) for pull in pulls]
        sides = [b - a for a, b in zip(*part[0], strict=True)]
        stretched = resample(torch.stack(maps, dim=1).float(), sides).cpu().numpy()
        for of_patch, cut in zip(stretched, cuts_of(part, np.array([shape] * len(part))), strict=True):
            whole[cut.inside] += of_patch[cut.at]
            count[cut.inside] += 1
    whole /= np.maximum(count, 1)
    largest = whole.reshape(len(places), -1).max(axis=1)
    return whole / np.where(largest > 0, largest, 1).reshape(-1, *[1] * len(shape)).astype(np.float32), found


def _patches(store: Store, row: int, boxes: Sequence[Box], trained: Trained) -> Tensor:
    """(n, C, *input size) in [0, 1]: the whole scan in 2D, resized; its boxes in 3D."""
    device, rows = next(trained.network.parameters()).device, np.full(len(boxes), row)
    flat = store.spatial_dims == 2
    images = unit_scans(store, rows, None if flat else boxes, device)
    return resample(images, trained.facts["input_size"]) if flat else images
