"""The few collectives that objectives need. With one process each is the identity, so there is one code path."""

from __future__ import annotations

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
