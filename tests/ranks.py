"""Run a function in two processes that talk over gloo, and get back what each rank returned."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def _rank(rank: int, world_size: int, folder: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size)
    torch.save(function(*arguments), f"{folder}/rank{rank}.pt")
    gc.collect()  # objects of DDP must not outlive the group
    dist.barrier()
    dist.destroy_process_group()


def on_ranks(folder: Path, function: Callable[..., Any], *arguments: Any, world_size: int = 2) -> list[Any]:
    """``function(*arguments)`` on every rank of a gloo group; must be importable. Returns the results by rank."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    mp.spawn(_rank, args=(world_size, str(folder), function, arguments), nprocs=world_size, join=True)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(world_size)]
