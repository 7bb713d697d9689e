"""Boundaries of regions, drawn by a stream beside the segmentation that also feeds it (Boundseg).

Source: Iwasawa et al. 2020, spec_cpcseg §4, whose released boundary term has no gradient, pairs depth with channels and
weighs the rare class least; this is what it was meant to be (§4.3, after Hatamizadeh et al. 2019).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from scanlearn.errors import ScanlearnError
from scanlearn.networks.network import Network
from scanlearn.networks.segres_boundary import BOUNDARY
from scanlearn.objectives.objective import OBJECTIVES, Objective, full_precision
from scanlearn.objectives.overlap import Overlap, Share
from scanlearn.objectives.regions import Member, checked_regions, inner_edges, pairs, region_masks
from scanlearn.objectives.step import Step


def balance(edges: Tensor) -> Tensor:
    """Weights (N, *spatial) of voxels, from which are edge, bool (N, *spatial): each kind weighs what the other makes
    up of the sample, so that the rare one counts."""
    rare = edges.flatten(1).float().mean(dim=1).view(-1, *[1] * (edges.ndim - 1))
    return torch.where(edges, 1.0 - rare, rare)


@OBJECTIVES.register("boundary")
class Boundary(Objective):
    """Dice + balanced cross-entropy of the boundary of each region, summed over regions; labelled scans only.

    Args:
        network: with the decoder ``segres_boundary``, two boundary channels for each region.
        classes: as for ``segment``.
        view, mask: as for ``segment``.
        regions: classes of each region; by default each class is one.
        dice, cross_entropy: weights of the two terms; ``cross_entropy: 0`` trains as the released code does.
        count: as for ``segment``.
    """

    def __init__(
        self,
        network: Network,
        *,
        classes: int | Sequence[str],
        view: str = "image",
        mask: str = "mask",
        regions: Mapping[str, Sequence[Member]] | None = None,
        dice: float = 1.0,
        cross_entropy: float = 1.0,
        count: str = "labelled",
    ):
        super().__init__()
        if network.decoder is None or BOUNDARY not in network.decoder.aside:
            raise ScanlearnError("The objective 'boundary' needs network.decoder: segres_boundary in the recipe.")
        self.view, self.mask, self.count = view, mask, count
        self.classes = classes if isinstance(classes, int) else len(classes)
        each = {str(value): [value] for value in range(1, self.classes)} if regions is None else regions
        self.regions = checked_regions(each, self.classes if regions is None else classes, "boundary")
        self.loss = Overlap(dice, cross_entropy, background=True, squared=True, batch_dice=True, smooth=1e-7)

    def forward(self, step: Step) -> Tensor:
        drawn, mask = step.aside(self.view, BOUNDARY).float(), step.view(self.mask)
        with full_precision(drawn):
            share = Share(len(mask), step.batch.get("labelled"), self.count)
            edges = inner_edges(region_masks(mask, self.regions, self.classes)).unbind(dim=1)
            losses = [
                self.loss(pair, edge.long(), share, balance(edge))
                for pair, edge in zip(pairs(drawn, len(self.regions)), edges, strict=True)
            ]
            return sum(losses[1:], losses[0])
