"""Rotation: by which quarter turns was this scan turned? (Gidaris, Singh, Komodakis, ICLR 2018, arXiv 1803.07728.)

The view op ``labelled_turns`` turns the scan and tells the class: 4 in 2D (0, 90, 180, 270 degrees); 10 in 3D, no turn
and three about each axis (Taleb et al., NeurIPS 2020, arXiv 2006.03829).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from scanlearn.networks.network import Network
from scanlearn.objectives.objective import OBJECTIVES, Objective, full_precision
from scanlearn.objectives.step import Step

TURNS = {2: 4, 3: 10}  # spatial axes -> classes


def rotation_error(logits: Tensor, turns: Tensor) -> Tensor:
    """``-log softmax(logits)[turn]``, mean over the N scans (equation 2). logits (N, 4 or 10), turns int64 (N,)."""
    return F.cross_entropy(logits, turns)


@OBJECTIVES.register("rotation")
class ClassifyRotation(Objective):
    """Linear head on the pooled features, cross-entropy of the turn.

    Args:
        network: its encoder sees the view; a decoder is not touched.
        view: a view with the op ``labelled_turns``.
    """

    def __init__(self, network: Network, *, view: str = "rotated"):
        super().__init__()
        self.view = view
        self.head = nn.Linear(network.encoder.num_features, TURNS[network.encoder.spatial_dims])

    def logits(self, step: Step) -> Tensor:
        """(N, 4 or 10), float32."""
        return self.head(step.pooled(self.view)).float()

    def forward(self, step: Step) -> Tensor:
        logits, turns = self.logits(step), step.target(self.view, "quarter_turns")
        with full_precision(logits):
            step.log("rotation_accuracy", (logits.argmax(dim=1) == turns).float().mean())
            return rotation_error(logits, turns)
