"""Where and how a run computes: devices and ranks through Fabric, precision by what the device does fast."""

from __future__ import annotations

import logging
import os
import platform
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision
from lightning_fabric.strategies import DDPStrategy, ModelParallelStrategy
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from scanlearn import __version__
from scanlearn.engine.checkpoint import CheckedIO
from scanlearn.errors import ScanlearnError, unknown
from scanlearn.networks.network import Network, build_network

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


def default_device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def auto_precision() -> str:
    """bf16 where the device multiplies it in hardware (1.6-2.1 times faster), fp16 on older GPUs, else float32."""
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    has_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return "bf16-mixed" if has_bf16 else "32-true"


class Autocast(MixedPrecision):
    """Mixed precision that leaves the inputs alone: targets and keys stay float32, only the network's arithmetic is short.

    Fabric's own also casts every input to 16 bits, which would round the images that restoration is measured against.
    """

    def convert_input(self, data: Any) -> Any:
        """The data as they are."""
        return data


def launched_ranks() -> tuple[int, int]:
    """(processes on this node, nodes) as torchrun or SLURM started them; (1, 1) without a launcher."""
    env = os.environ
    if "LOCAL_WORLD_SIZE" in env:
        local = int(env["LOCAL_WORLD_SIZE"])
        return local, max(int(env.get("WORLD_SIZE", local)) // local, 1)
    if "SLURM_NTASKS" in env and env.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        nodes = int(env.get("SLURM_NNODES", 1))
        return max(int(env["SLURM_NTASKS"]) // nodes, 1), nodes
    return 1, 1


def first_launched() -> bool:
    """True in the process that speaks, also before the ranks know each other."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "SLURM_PROCID"))


def _shard(module: nn.Module, mesh: Any) -> nn.Module:
    from torch.distributed.fsdp import fully_shard

    fully_shard(module, mesh=mesh["data_parallel"])  # in place
    return module


def start_fabric(precision: str = "auto", strategy: str = "auto", unused_parameters: bool = False) -> Fabric:
    """Fabric for the ranks that torchrun or SLURM launched (one device without them).

    Args:
        precision: auto | 32-true | bf16-mixed | 16-mixed.
        strategy: auto (one device, or DDP) | ddp | fsdp (FSDP2, parameters and optimiser sharded).
        unused_parameters: stages that skip an objective leave parameters without gradient.
    """
    if precision == "auto":
        precision = auto_precision()
    if precision not in PRECISIONS:
        raise unknown("precision", precision, ("auto", *PRECISIONS))
    if strategy not in ("auto", "ddp", "fsdp"):
        raise unknown("strategy", strategy, ("auto", "ddp", "fsdp"))
    devices, nodes = launched_ranks()
    chosen: Any = "auto"
    if strategy == "fsdp":
        chosen = ModelParallelStrategy(
            _shard,
            data_parallel_size=devices * nodes,
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
        )
    elif devices * nodes > 1:
        # Buffers (queue, running statistics) are equal by construction or belong to their rank: not sent at each step.
        chosen = DDPStrategy(broadcast_buffers=False, find_unused_parameters=unused_parameters)
    accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    # One line of our own says the precision; Fabric's does not fit between ours.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    how: dict[str, Any] = {"precision": precision}
    if precision.endswith("-mixed"):
        how = {"plugins": [Autocast(precision, device=accelerator)]}  # type: ignore[arg-type]
    # FSDP writes by itself; everything else through our own writer.
    if strategy != "fsdp":
        how["plugins"] = [*how.get("plugins", []), CheckedIO()]
    fabric = Fabric(accelerator=accelerator, devices=devices, num_nodes=nodes, strategy=chosen, **how)
    fabric.launch()
    return fabric


def to_memory_format(module: nn.Module, choice: str, spatial_dims: int, fabric: Fabric) -> torch.memory_format:
    """Lay convolution weights out as asked and return the format for the images.

    ``auto`` is channels_last: 1.1-1.4 times faster for our 2D networks, 1.3 times and more for the U-Net in 3D. FSDP
    cannot shard weights that are not contiguous, so there only the images change.
    """
    if choice not in ("auto", "contiguous", "channels_last"):
        raise unknown("memory_format", choice, ("auto", "contiguous", "channels_last"))
    if choice == "contiguous":
        return torch.contiguous_format
    layout = torch.channels_last if spatial_dims == 2 else torch.channels_last_3d
    if not isinstance(fabric.strategy, ModelParallelStrategy):
        module.to(memory_format=layout)  # type: ignore[call-overload]
    return layout


def reshard(wrapped: nn.Module) -> None:
    """Give the gathered parameters back after a forward pass without backward (FSDP keeps them until a backward)."""
    for module in wrapped.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def unsharded(network: Network) -> Network:
    """The network with whole tensors, to be exported; all ranks call this. Without FSDP it is the network itself."""
    state = network.state_dict()
    if not any(isinstance(value, DTensor) for value in state.values()):
        return network
    whole = build_network(network.describe())
    whole.load_state_dict({k: v.full_tensor() if isinstance(v, DTensor) else v for k, v in state.items()})
    return whole


def environment(fabric: Fabric) -> dict[str, Any]:
    """What a reader needs to judge or repeat a run. No host name, no user name, no path."""
    import numpy

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else _cpu_name()
    return {
        "scanlearn": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "device": device,
        "threads": torch.get_num_threads(),
        "ranks": fabric.world_size,
        "precision": fabric._precision.precision,
        "strategy": type(fabric.strategy).__name__,
    }


def _cpu_name() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "CPU"


def per_rank(batch_size: int, accumulate: int, world_size: int) -> int:
    """Samples of one part on one rank; a batch that does not divide is refused."""
    parts = accumulate * world_size
    if batch_size % parts:
        raise ScanlearnError(
            f"batch_size {batch_size} cannot be cut into {accumulate} accumulated part(s) on {world_size} rank(s): "
            f"take a multiple of {parts}."
        )
    return batch_size // parts
