"""Siamese representation learning (SimSiam: Chen, He, CVPR 2021, arXiv 2011.10566; spec_dira §2.2).

From one view of a scan a predictor guesses what the projector makes of the other view; no gradient flows into what is
guessed. There are no negatives, no queue and no second network.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from scanlearn.errors import ScanlearnError
from scanlearn.networks.network import Network
from scanlearn.objectives.objective import OBJECTIVES, Apart, Objective, full_precision
from scanlearn.objectives.step import Step


def negative_cosine(prediction: Tensor, projection: Tensor) -> Tensor:
    """``-cos(p, sg(z))``, mean over the N rows of (N, D); -1 where they agree. No gradient flows into ``projection``."""
    return -(F.normalize(prediction, dim=1) * F.normalize(projection.detach(), dim=1)).sum(dim=1).mean()


def two_views(called: str, views: Sequence[str]) -> tuple[str, str]:
    """The names of two different views, or an error in one sentence."""
    if isinstance(views, str) or len(views) != 2 or views[0] == views[1]:
        raise ScanlearnError(f"The objective {called!r} compares two views of a scan: name both, not {views!r}.")
    return views[0], views[1]


@OBJECTIVES.register("siamese")
class Siamese(Objective):
    """``(-cos(p1, sg(z2)) - cos(p2, sg(z1))) / 2``, from -1 (the views agree) to 1; mean over the batch.

    Each view passes encoder, projector and predictor on its own, so batch norm has statistics of each view. Start with a
    small learning rate for small batches, and watch ``siamese_spread``: 1 when directions are spread evenly, 0 when all
    scans have one (a collapse).

    Args:
        network: its encoder sees both views.
        views: names of the two views.
        hidden: width of the projector's hidden layers; None takes the encoder's number of features, as published.
        dim: length of projections and predictions, 2048.
        bottleneck: width of the predictor's hidden layer, 512.
        predictor_rate: ``constant``, the recipe's learning rate without its schedule (the published recipe), or
            ``scheduled`` as all others.
    """

    def __init__(
        self,
        network: Network,
        *,
        views: Sequence[str] = ("query", "key"),
        hidden: int | None = None,
        dim: int = 2048,
        bottleneck: int = 512,
        predictor_rate: str = "constant",
    ):
        super().__init__()
        self.views = two_views("siamese", views)
        if predictor_rate not in ("constant", "scheduled"):
            raise ScanlearnError(f"The predictor's rate is 'constant' or 'scheduled', not {predictor_rate!r}.")
        if min(dim, bottleneck, hidden or 1) < 1:
            raise ScanlearnError(f"siamese needs widths of 1 or more, not {dim}, {bottleneck} and {hidden}.")
        self.predictor_rate = predictor_rate
        features = network.encoder.num_features
        hidden = hidden or features
        # The order of the layers gives the tensors their published names: fc.0 to fc.7, predictor.0 to predictor.3.
        self.projector = nn.Sequential(
            *(nn.Linear(features, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True)),
            *(nn.Linear(hidden, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True)),
            *(nn.Linear(hidden, dim), nn.BatchNorm1d(dim, affine=False)),
        )
        self.projector[6].bias.requires_grad_(False)  # the batch norm behind it takes it away again
        self.predictor = nn.Sequential(
            *(nn.Linear(dim, bottleneck, bias=False), nn.BatchNorm1d(bottleneck), nn.ReLU(inplace=True)),
            nn.Linear(bottleneck, dim),
        )

    def apart(self) -> list[Apart]:
        """The predictor, whose rate the schedule leaves alone: it should always be up to date with the projections."""
        return [Apart(self.predictor)] if self.predictor_rate == "constant" else []

    def forward(self, step: Step) -> Tensor:
        projections = [self.projector(step.pooled(view)) for view in self.views]
        predictions = [self.predictor(projection).float() for projection in projections]
        first, second = (projection.float() for projection in projections)
        with full_precision(first):
            directions = F.normalize(first.detach(), dim=1)
            step.log("siamese_spread", directions.std(dim=0).mean() * directions.shape[1] ** 0.5)
            return (negative_cosine(predictions[0], second) + negative_cosine(predictions[1], first)) / 2
