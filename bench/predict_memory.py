"""Memory of the objective ``predict`` at the paper's crop and at half of it, with and without chunks.

    python bench/predict_memory.py [--process] [--width 16] [--out docs/results/predict_memory.json]

Counted is what the graph keeps for the backward pass, by hooks on saved tensors, each storage once, parameters left
out; on tensors without memory, so that the paper's crop (4 channels, 144 x 144 x 128, 448 patches of 32, width 32) fits
anywhere. With chunks the graph keeps hardly anything, and the backward pass holds what one chunk keeps at a time.
``--process`` also runs half the crop for real, each way in a process of its own, and says what it held at most and by
how much that was more than before (VmHWM; Linux). ``--width`` is that of the encoder which is run: half the published
one keeps half as much and takes a quarter of the time. What was measured at other widths stays in the file.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scanlearn.networks.network import Network, build_network
from scanlearn.objectives.predict import Predict
from scanlearn.objectives.step import Step

PAPER, HALF = (144, 144, 128), (72, 72, 64)
PATCH, STRIDE, WIDTH = 32, 16, 32
CHUNKS = ("none", "9")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--process", action="store_true", help="also run half the crop for real")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--width", type=int, default=WIDTH, help="of the encoder that is run for real")
    parser.add_argument("--one", help="run half the crop in this process: none, or patches of a chunk")
    how = parser.parse_args()
    if how.one:
        print(json.dumps(measured(HALF, None if how.one == "none" else int(how.one), how.width)))
        return
    before = json.loads(how.out.read_text()) if how.out and how.out.is_file() else {}
    told: dict[str, Any] = {
        "channels": 4,
        "width": WIDTH,
        "patch": PATCH,
        "half": of_crop(HALF),
        "paper": of_crop(PAPER),
    }
    told["process"] = before.get("process", {})
    if how.process:
        runs = told["process"][f"width_{how.width}"] = {}
        for chunk in CHUNKS:
            command = [sys.executable, __file__, "--one", chunk, "--width", str(how.width)]
            runs[chunk] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    print(json.dumps(told, indent=1))
    if how.out:
        how.out.write_text(json.dumps(told, indent=1) + "\n")


def of_crop(size: tuple[int, ...]) -> dict[str, object]:
    """What is kept for the backward pass of a crop, in MB (10^6 bytes), for each chunk."""
    count = prod((side - PATCH) // STRIDE + 1 for side in size)
    whole = counted(size, None)
    each = counted((PATCH, PATCH, PATCH + STRIDE), None) / 2  # the smallest grid has two patches
    told: dict[str, object] = {"size": size, "patches": count, "one_patch_mb": round(each, 1)}
    told["no_chunks"] = {"kept_mb": round(whole, 1), "peak_mb": round(whole, 1)}
    for chunk in (32, 8, 1):
        kept = counted(size, chunk)
        told[f"chunk_{chunk}"] = {"kept_mb": round(kept, 1), "peak_mb": round(kept + min(chunk, count) * each, 1)}
    return told


def counted(size: tuple[int, ...], chunk: int | None) -> float:
    """MB that features and predictor keep for the backward pass; the loss itself keeps next to nothing."""
    with torch.device("meta"):
        network, objective = parts(chunk)
        image = torch.empty(1, 4, *size)
    kept = Kept([*network.parameters(), *objective.parameters()])
    with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor):
        grid = objective.features(Step(network, {"image": image}, {}))
        objective.predictor(grid[..., : grid.shape[-1] // 2])
    return kept.bytes / 1e6


def parts(chunk: int | None, width: int = WIDTH) -> tuple[Network, Predict]:
    """Encoder and objective as published, but for the width."""
    network = build_network({"encoder": {"name": "segres", "in_channels": 4, "width": width}})
    return network, Predict(network, chunk=chunk, negatives=16)


class Kept:
    """Counts what the graph saves, each storage once and none of ``own``."""

    def __init__(self, own: list[Tensor]):
        self.seen = {tensor.untyped_storage()._cdata for tensor in own}
        self.alive: list[object] = []  # so that no storage takes the place of one that was counted
        self.bytes = 0

    def pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self.seen:
            self.seen.add(storage._cdata)
            self.alive.append(storage)
            self.bytes += storage.nbytes()
        return tensor


def measured(size: tuple[int, ...], chunk: int | None, width: int) -> dict[str, float]:
    """One forward and backward pass for real: loss, growth and peak of the process, seconds of its own work."""
    torch.manual_seed(0)
    network, objective = parts(chunk, width)
    for p in [*network.parameters(), *objective.parameters()]:
        p.grad = torch.zeros_like(p)  # gradients are there in every training, so they are no part of the growth
    image = torch.rand(1, 4, *size)
    before = resident("VmRSS")
    Path(f"/proc/{os.getpid()}/clear_refs").write_text("5")  # lets VmHWM begin anew
    began = time.process_time()
    loss = objective(Step(network, {"image": image}, {"step": 0, "position": torch.zeros(1, dtype=torch.int64)}))
    loss.backward()
    return {
        "loss": round(loss.item(), 4),
        "process_mb": round((resident("VmHWM") - before) * 1024 / 1e6, 1),
        "peak_mb": round(resident("VmHWM") * 1024 / 1e6, 1),
        "processor_seconds": round(time.process_time() - began, 1),
    }


def resident(what: str) -> int:
    """KiB of this process: VmRSS now, VmHWM at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(what)).split()[1])


if __name__ == "__main__":
    main()
