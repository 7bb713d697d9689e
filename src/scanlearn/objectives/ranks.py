"""The few collectives that objectives need. With one process each is the identity, so there is one code path."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


@torch.no_grad()
def gather(x: Tensor) -> Tensor:
    """Concatenate ``x`` (n, ...) of all ranks in rank order -> (world * n, ...), the global batch. No gradient."""
    if world_size() == 1:
        return x
    parts = [torch.empty_like(x) for _ in range(world_size())]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts)


def own_part(x: Tensor) -> Tensor:
    """This rank's contiguous chunk of something that all ranks hold for the global batch."""
    return x.chunk(world_size())[rank()]


class _Summed(torch.autograd.Function):
    """Sum over ranks; see ``summed``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * world_size()


def summed(x: Tensor) -> Tensor:
    """The sum of ``x`` over all ranks, for losses that every rank computes alike from it.

    The engine averages gradients over ranks. As a rank's ``x`` moves the loss of all of them, its gradient is that of
    their sum, ranks times its own: without that factor the average would be too small by the number of ranks.
    """
    return x if world_size() == 1 else _Summed.apply(x)


@torch.no_grad()
def averaged(x: Tensor) -> Tensor:
    """The mean of ``x`` over all ranks. No gradient."""
    if world_size() == 1:
        return x
    x = x.clone()
    dist.all_reduce(x)
    return x / world_size()
