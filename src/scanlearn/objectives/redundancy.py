"""Redundancy reduction (Barlow Twins: Zbontar et al., ICML 2021, arXiv 2103.03230; spec_dira §2.3).

Over the batch, each feature of one view should correlate with itself in the other view, and with no other feature.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from scanlearn.errors import ScanlearnError
from scanlearn.networks.network import Network
from scanlearn.objectives.objective import OBJECTIVES, Objective, full_precision
from scanlearn.objectives.ranks import summed, world_size
from scanlearn.objectives.siamese import two_views
from scanlearn.objectives.step import Step


def cross_correlation(first: Tensor, second: Tensor) -> Tensor:
    """``z1^T z2 / N`` of the global batch, (D, D). first, second: this rank's (n, D), normalised over the batch."""
    return summed(first.T @ second) / (len(first) * world_size())


def redundancy_terms(correlation: Tensor) -> tuple[Tensor, Tensor]:
    """``sum_i (C_ii - 1)^2`` and ``sum_{i != j} C_ij^2`` of (D, D)."""
    size = len(correlation)
    on_diagonal = (correlation.diagonal() - 1).square().sum()
    # Without its last entry, rows of D + 1 begin on the diagonal: a view, where a mask would cost another D x D.
    off_diagonal = correlation.flatten()[:-1].view(size - 1, size + 1)[:, 1:].square().sum()
    return on_diagonal, off_diagonal


@OBJECTIVES.register("redundancy")
class Redundancy(Objective):
    """``sum_i (C_ii - 1)^2 + strength * sum_{i != j} C_ij^2`` with the cross-correlation C of the two views' projections.

    C is that of the global batch, and every rank has the same loss. With ``accumulate`` it is that of each part: take the
    batch in one part. The loss is large, about ``strength * dim^2 / N`` from sampling noise alone: 1,337 for 8192 features
    and a batch of 256. Beside other objectives look at ``gradient_*`` in the log, or set ``loss_normaliser``.

    Args:
        network: its encoder sees both views.
        views: names of the two views.
        dim: width of the projector's three layers, 8192.
        strength: of the off-diagonal part, 0.0051.
    """

    reduction = "one matrix of the global batch, the same on every rank"

    def __init__(
        self,
        network: Network,
        *,
        views: Sequence[str] = ("query", "key"),
        dim: int = 8192,
        strength: float = 0.0051,
    ):
        super().__init__()
        self.views = two_views("redundancy", views)
        if dim < 2 or strength < 0:
            raise ScanlearnError(
                f"redundancy needs a dim of 2 or more and no negative strength, not {dim} and {strength}."
            )
        self.strength = strength
        features = network.encoder.num_features
        # The order of the layers gives the tensors their published names: projector.0 to projector.6, bn.
        self.projector = nn.Sequential(
            *(nn.Linear(features, dim, bias=False), nn.BatchNorm1d(dim), nn.ReLU(inplace=True)),
            *(nn.Linear(dim, dim, bias=False), nn.BatchNorm1d(dim), nn.ReLU(inplace=True)),
            nn.Linear(dim, dim, bias=False),
        )
        self.bn = nn.BatchNorm1d(dim, affine=False)

    def forward(self, step: Step) -> Tensor:
        first, second = (self.projector(step.pooled(view)).float() for view in self.views)
        with full_precision(first):
            correlation = cross_correlation(self.bn(first), self.bn(second))
            on_diagonal, off_diagonal = redundancy_terms(correlation)
            step.log("redundancy_on_diagonal", on_diagonal)
            step.log("redundancy_off_diagonal", self.strength * off_diagonal)
            return on_diagonal + self.strength * off_diagonal
