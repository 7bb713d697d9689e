"""Boxes that follow their image through the ops that move it without bending it: flips, turns, crops, resizing, scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from scanlearn.errors import ScanlearnError
from scanlearn.views.crop import CentreCrop, RandomCrop, RandomResizedCrop, Resize, full_size
from scanlearn.views.geometry import Flip, LabelledTurns, QuarterTurns
from scanlearn.views.op import Op, Params
from scanlearn.views.scale import RandomScale

Corners = tuple[Tensor, Tensor]  # low and high corner of each box, (N, M, dims)


def move_boxes(boxes: Tensor, op: Op, params: Params, shape: Sequence[int], least: float = 0.0) -> Tensor:
    """Boxes moved as ``op`` with these parameters moves its images.

    Args:
        boxes: float (N, M, 2 * dims), for each image the low corner of M boxes along each axis, then the high one, in
            voxels; a box covers low <= x < high, so that voxel i lies between i and i + 1. Images with fewer boxes have
            some without volume behind.
        op: its ``params`` are those that it moved the images with.
        shape: of the images before, (N, C, *spatial).
        least: boxes of which a smaller share is left inside the image are lost.

    Returns:
        float (N, M, 2 * dims) in voxels of the image after; lost boxes, and those without volume, are all 0.

    Raises:
        ScanlearnError: the op turns by any angle, bends the image, or is one of several.
    """
    if not op.moves:
        return boxes
    move = MOVES.get(type(op))
    if move is None:
        raise ScanlearnError(
            f"Boxes cannot follow {type(op).__name__}: use flip, quarter_turns, labelled_turns, crops, resize or random_scale to "
            "move images that have boxes."
        )
    chosen = params.get("chosen")
    if chosen is not None and not bool(chosen.any()):
        return boxes
    spatial = torch.tensor(shape[2:], device=boxes.device)
    low, high = boxes.chunk(2, dim=-1)
    (low, high), after = move(op, params, (low, high), spatial)
    inside = torch.cat([torch.minimum(corner.clamp(min=0), after) for corner in (low, high)], dim=-1)
    whole, left = volume(torch.cat([low, high], dim=-1)), volume(inside)
    moved = torch.where(((left > 0) & (left >= least * whole))[..., None], inside, 0.0)
    return moved if chosen is None else torch.where(chosen[:, None, None], moved, boxes)


def volume(boxes: Tensor) -> Tensor:
    """Voxels in each box (..., 2 * dims); 0 where it has none."""
    low, high = boxes.chunk(2, dim=-1)
    return (high - low).clamp(min=0).prod(dim=-1)


def _mirrored(corners: Corners, mirrored: Tensor, spatial: Tensor) -> Corners:
    """``mirrored``: bool (N, dims)."""
    low, high = corners
    which = mirrored[:, None]
    return torch.where(which, spatial - high, low), torch.where(which, spatial - low, high)


def _cut(corners: Corners, start: Tensor, side: Tensor, size: Tensor) -> tuple[Corners, Tensor]:
    """Into the box ``start``, ``side`` (N or 1, dims) of the image, stretched to ``size`` (dims,)."""
    scale = (size / side)[:, None]
    low, high = ((corner - start[:, None]) * scale for corner in corners)
    return (low, high), size


def _turned(corners: Corners, orders: list[tuple[int, ...]], flips: list[tuple[bool, ...]], spatial: Tensor) -> Corners:
    """Each image's axes in another order, then mirrored."""
    order = torch.tensor(orders, device=spatial.device)[:, None].expand(corners[0].shape)
    low, high = (corner.gather(2, order) for corner in corners)
    # The shape stays, as only axes of equal length change places.
    return _mirrored((low, high), torch.tensor(flips, device=spatial.device), spatial)


def _flip(op: Flip, params: Params, corners: Corners, spatial: Tensor) -> tuple[Corners, Tensor]:
    return _mirrored(corners, params["mirrored"], spatial), spatial


def _quarter_turns(op: QuarterTurns, params: Params, corners: Corners, spatial: Tensor) -> tuple[Corners, Tensor]:
    symmetries = op._symmetries(spatial.tolist())
    orders, flips = zip(*(symmetries[which] for which in params["symmetry"].tolist()), strict=True)
    return _turned(corners, list(orders), list(flips), spatial), spatial


def _labelled_turns(op: LabelledTurns, params: Params, corners: Corners, spatial: Tensor) -> tuple[Corners, Tensor]:
    orders, flips = [], []
    for turn in params["quarter_turns"].tolist():
        turns, (a, b) = op.plane(turn, len(spatial))
        order, flip = list(range(len(spatial))), [False] * len(spatial)
        if turns % 2:
            order[a], order[b] = b, a
        flip[a], flip[b] = turns in (1, 2), turns in (2, 3)
        orders.append(tuple(order))
        flips.append(tuple(flip))
    return _turned(corners, orders, flips, spatial), spatial


def _resize(op: Resize, params: Params, corners: Corners, spatial: Tensor) -> tuple[Corners, Tensor]:
    size = torch.tensor(full_size(op.size, len(spatial), "resize"), device=spatial.device)
    return _cut(corners, torch.zeros_like(spatial)[None], spatial[None], size)


def _crop(op: CentreCrop | RandomCrop, params: Params, corners: Corners, spatial: Tensor) -> tuple[Corners, Tensor]:
    size, free = op._free(spatial.tolist(), "crop")
    side = torch.tensor(size, device=spatial.device)
    start = params["start"] if "start" in params else torch.tensor(free, device=spatial.device)[None] // 2
    return _cut(corners, start, side[None], side)


def _resized_crop(op: RandomResizedCrop, params: Params, corners: Corners, spatial: Tensor) -> tuple[Corners, Tensor]:
    size = torch.tensor(full_size(op.size, len(spatial), "random_resized_crop"), device=spatial.device)
    return _cut(corners, params["start"], params["side"], size)


def _scaled(op: RandomScale, params: Params, corners: Corners, spatial: Tensor) -> tuple[Corners, Tensor]:
    middle, factor = spatial / 2, params["factor"][:, None, None]
    low, high = (middle + (corner - middle) * factor for corner in corners)
    return (low, high), spatial


MOVES: dict[type[Op], Callable[..., tuple[Corners, Tensor]]] = {
    Flip: _flip,
    QuarterTurns: _quarter_turns,
    LabelledTurns: _labelled_turns,
    Resize: _resize,
    CentreCrop: _crop,
    RandomCrop: _crop,
    RandomResizedCrop: _resized_crop,
    RandomScale: _scaled,
}
