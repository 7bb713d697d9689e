"""Classification of whole scans from pooled features: one label per scan, or several at once."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scanlearn.networks.network import Network
from scanlearn.objectives.objective import OBJECTIVES, Objective, full_precision
from scanlearn.objectives.step import Step


def masked_bce(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy over the labels that are known. logits, labels (N, K); NaN = unknown, left out."""
    known = ~labels.isnan()
    loss = F.binary_cross_entropy_with_logits(logits, labels.nan_to_num(), reduction="none")
    return (loss * known).sum() / known.sum().clamp(min=1)


@OBJECTIVES.register("classify")
class Classify(Objective):
    """Linear head on the pooled features.

    Args:
        network: its encoder gives the features.
        classes: number of outputs K.
        multilabel: labels are (N, K) in {0, 1, NaN} (binary cross-entropy) instead of (N,) indices (cross-entropy).
        view: the view that is classified.
        label_smoothing: share of the target spread over all classes.
        dropout: on the pooled features.
    """

    def __init__(
        self,
        network: Network,
        *,
        classes: int,
        multilabel: bool = False,
        view: str = "image",
        label_smoothing: float = 0.0,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.multilabel, self.view, self.label_smoothing = multilabel, view, label_smoothing
        linear = nn.Linear(network.encoder.num_features, classes)
        nn.init.zeros_(linear.bias)
        self.head = nn.Sequential(nn.Dropout(dropout), linear)

    def logits(self, step: Step) -> Tensor:
        """(N, K), float32."""
        return self.head(step.pooled(self.view)).float()

    def forward(self, step: Step) -> Tensor:
        logits, labels = self.logits(step), step.batch["label"]
        with full_precision(logits):
            if self.multilabel:
                return masked_bce(logits, labels.to(torch.float32))
            return F.cross_entropy(logits, labels.long(), label_smoothing=self.label_smoothing, ignore_index=-1)
