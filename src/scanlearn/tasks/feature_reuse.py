"""How much of a network's features fine-tuning kept: linear centred kernel alignment, stage by stage.

Source: Kornblith et al., ICML 2019, arXiv 1905.00414; spec_dira, section 5.6 (what exactly was compared there is not
published).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scanlearn.discovery.recurrence import evenly
from scanlearn.engine.embedding import grid_boxes, unit_scans
from scanlearn.networks.network import Network
from scanlearn.scans.resample import resample
from scanlearn.scans.store import Store
from scanlearn.weights.encoder import load_network

SCANS, TOGETHER = 64, 8  # compared, and in one pass
NOTHING = 1e-26  # of the squared products: less is what rounding leaves of features that never vary


class Alignment:
    """Linear CKA of features that come in parts; it keeps the sums of C x C products and no feature.

    CKA = |Y'X|² / ( |X'X| |Y'Y| ), Frobenius norms of centred features X (n, C) and Y (n, D). 1 where one is a rotation
    and scaling of the other, 0 where nothing of one can be told linearly from the other.
    """

    def __init__(self) -> None:
        self._count = 0
        self._sums: list[Tensor] = []
        self._products: list[Tensor] = []

    def add(self, x: Tensor, y: Tensor) -> None:
        """Take in rows (n, C) and (n, D), in any precision; they are summed in float64 on the CPU."""
        x, y = x.detach().double().cpu(), y.detach().double().cpu()
        sums, products = [x.sum(0), y.sum(0)], [y.T @ x, x.T @ x, y.T @ y]
        if self._count:
            sums = [a + b for a, b in zip(self._sums, sums, strict=True)]
            products = [a.add_(b) for a, b in zip(self._products, products, strict=True)]
        self._sums, self._products, self._count = sums, products, self._count + len(x)

    def value(self) -> float:
        """The alignment of what was added; NaN where either side never varies."""
        x, y = self._sums
        means = [torch.outer(y, x), torch.outer(x, x), torch.outer(y, y)]
        cross, within_x, within_y = (
            float((p - m / self._count).square().sum()) for p, m in zip(self._products, means, strict=True)
        )
        whole_x, whole_y = (float(p.square().sum()) for p in self._products[1:])
        if within_x <= NOTHING * whole_x or within_y <= NOTHING * whole_y:
            return float("nan")
        return cross / (within_x * within_y) ** 0.5


def linear_cka(x: Tensor, y: Tensor) -> float:
    """Linear CKA of features (n, C) and (n, D) of the same n examples; see ``Alignment``."""
    alignment = Alignment()
    alignment.add(x, y)
    return alignment.value()


@torch.no_grad()
def stage_alignments(first: Network, second: Network, batches: Iterator[Tensor]) -> list[float]:
    """The alignment of each map of two networks of one architecture, fine to coarse.

    Every place of a map is an example and its channels are the features, so that memory depends on the channels alone.
    Both networks should be in evaluation mode.
    """
    stages: list[Alignment] = []
    for images in batches:
        maps = list(zip(first.features(images), second.features(images), strict=True))
        stages = stages or [Alignment() for _ in maps]
        for stage, (a, b) in zip(stages, maps, strict=True):
            stage.add(*(m.flatten(2).transpose(1, 2).flatten(0, 1) for m in (a, b)))
    return [stage.value() for stage in stages]


def feature_reuse(
    init: str | Path, network: Network, store: Store, rows: np.ndarray, size: Sequence[int]
) -> dict[str, Any]:
    """What of the weights at ``init`` is left in a fine-tuned ``network``, on scans of a store (the test part).

    Returns:
        ``{"scans", "stages": [CKA of each map, fine to coarse], "strides"}``; at most 64 scans, evenly from ``rows``, of
        a volume its middle patch.
    """
    device = next(network.parameters()).device
    rows = rows[evenly(len(rows), SCANS)]
    before, training = load_network(init).to(device).eval(), network.training
    stages = stage_alignments(before, network.eval(), _middles(store, rows, size, device))
    network.train(training)
    return {"scans": len(rows), "stages": stages, "strides": list(network.encoder.strides)}


def _middles(store: Store, rows: np.ndarray, size: Sequence[int], device: torch.device) -> Iterator[Tensor]:
    """(n, C, *size) in [0, 1]: whole scans, resized, in 2D, their middle patches in 3D."""
    flat = store.spatial_dims == 2
    for begin in range(0, len(rows), TOGETHER):
        some = rows[begin : begin + TOGETHER]
        boxes = None
        if not flat:
            grids = [grid_boxes(store.shape(int(row)), size) for row in some]
            boxes = [grid[len(grid) // 2] for grid in grids]
        images = unit_scans(store, some, boxes, device)
        yield resample(images, size) if flat else images
