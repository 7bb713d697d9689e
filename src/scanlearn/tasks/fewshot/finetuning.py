"""Fine-tuning on the support of each episode, from the same weights every time (spec_fewshot §4, last line).

Costly: the network is trained once for each episode, number of shots and source, so fewer episodes are taken.
"""

from __future__ import annotations

import copy
import math
import time

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from scanlearn.console import say, track
from scanlearn.engine.embedding import scan_batches
from scanlearn.errors import ScanlearnError
from scanlearn.networks.encoder import Encoder
from scanlearn.networks.network import Network
from scanlearn.scans.store import Store

PARTS = {"finetune": "whole", "finetune_last": "last"}  # classifier -> what moves beside the head
RATE, HEAD_RATE = 1e-4, 1e-2  # Adam; of the network that of Self-Trans (spec_fewshot §1)
TOLD = 1.0  # minutes; what takes longer is told
CHUNK = 32  # images in memory at a time; as batch norm does not see the batch, the gradient is that of all


class EpisodeFinetuner:
    """Trains a copy of ``network`` and a linear head on a support, in evaluation mode: batch norm keeps its statistics.

    The head starts at zero and sees features less their mean over the support, in units of their mean length, both
    taken before the first step, so that one rate suits every network.

    Args:
        network: what every episode starts from; it is left as it was.
        size: the image size that it takes.
        part: ``whole``, or ``last``: the parameters that the coarsest map alone depends on.
        steps: of Adam, each on the whole support.
    """

    def __init__(self, network: Network, store: Store, size: tuple[int, ...], *, part: str = "whole", steps: int = 50):
        self.name = next(name for name, moved in PARTS.items() if moved == part)
        self.start = {name: value.clone() for name, value in network.state_dict().items()}
        self.network = copy.deepcopy(network).eval()
        self.store, self.size, self.steps = store, size, steps
        self.device = next(self.network.parameters()).device
        self.network.requires_grad_(True)
        moving = list(self.network.encoder.parameters())
        if part == "last":
            moving = last_stage(self.network.encoder, torch.zeros(1, store.channels, *size, device=self.device))
        self.network.requires_grad_(False)
        self.moving = [parameter.requires_grad_(True) for parameter in moving]

    def logits(self, support: np.ndarray, query: np.ndarray) -> np.ndarray:
        """float64 (E, Q, W) of episodes with the rows support (E, W, k) and query (E, Q), -1 where there is none.

        Under a progress bar; where no terminal shows one, the first episode tells how long the others will take.
        """
        found: list[np.ndarray] = []
        begun, count = time.monotonic(), len(support)
        for rows in track(zip(support, query, strict=True), count, f"  {self.name}, {support.shape[2]} a class"):
            found.append(self._episode(*rows))
            left = (time.monotonic() - begun) * (count - 1) / 60
            if len(found) == 1 and left > TOLD:
                taken = f"{count - 1} more episodes take about {math.ceil(left)} min"
                say(f"  {self.name}, {support.shape[2]} a class: {taken}.")
        return np.stack(found)

    def _episode(self, support: np.ndarray, query: np.ndarray) -> np.ndarray:
        self.network.load_state_dict(self.start)
        images, owner = self._images(support.ravel())
        truth = torch.arange(len(support), device=self.device).repeat_interleave(support.shape[1])[owner]
        with torch.no_grad():
            features = torch.cat([self.network.pooled(part) for part in images.split(CHUNK)])
        centre = features.mean(0)
        scale = (features - centre).norm(dim=1).mean().clamp(min=1e-6)
        head = nn.Linear(features.shape[1], len(support), device=self.device)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        groups = [{"params": self.moving, "lr": RATE}, {"params": list(head.parameters()), "lr": HEAD_RATE}]
        optimizer = torch.optim.Adam(groups)
        for _ in range(self.steps):
            optimizer.zero_grad()
            for part, wanted in zip(images.split(CHUNK), truth.split(CHUNK), strict=True):
                answers = head((self.network.pooled(part) - centre) / scale)
                (functional.cross_entropy(answers, wanted, reduction="sum") / len(images)).backward()
            optimizer.step()
        return self._ask(head, centre, scale, query)

    @torch.no_grad()
    def _ask(self, head: nn.Linear, centre: Tensor, scale: Tensor, query: np.ndarray) -> np.ndarray:
        there = query >= 0
        images, owner = self._images(query[there])
        found = torch.cat([head((self.network.pooled(part) - centre) / scale) for part in images.split(CHUNK)]).double()
        if not found.isfinite().all():
            raise ScanlearnError("Fine-tuning on an episode has diverged: its answers are no numbers.")
        scans = int(there.sum())
        mean = torch.zeros(scans, found.shape[1], dtype=torch.float64, device=self.device).index_add(0, owner, found)
        mean /= torch.bincount(owner, minlength=scans)[:, None]  # a volume is several patches
        logits = np.zeros((len(query), found.shape[1]))
        logits[there] = mean.cpu().numpy()
        return logits

    def _images(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Images (n, C, *size) of distinct rows, and which of the rows each is of, int64 (n,)."""
        place = {int(row): i for i, row in enumerate(rows)}
        batches = list(scan_batches(self.store, rows, self.size, self.device, CHUNK))
        owner = [place[int(row)] for which, _ in batches for row in which]
        return torch.cat([images for _, images in batches]), torch.tensor(owner, device=self.device)


def last_stage(encoder: Encoder, x: Tensor) -> list[nn.Parameter]:
    """The parameters that the coarsest map of ``x`` depends on, and no finer one."""
    maps, parameters = encoder(x), list(encoder.parameters())
    finer = torch.autograd.grad(
        sum((m.sum() for m in maps[:-1]), maps[0].new_zeros(())), parameters, retain_graph=True, allow_unused=True
    )
    coarsest = torch.autograd.grad(maps[-1].sum(), parameters, allow_unused=True)
    return [p for p, a, b in zip(parameters, finer, coarsest, strict=True) if a is None and b is not None]
