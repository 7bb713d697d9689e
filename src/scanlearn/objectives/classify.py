"""Classification of whole scans from pooled features: one label per scan, or several at once."""

from __future__ import annotations

from itertools import pairwise

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
    """A linear head on the pooled features, or one with a hidden layer.

    Args:
        network: its encoder gives the features.
        classes: number of outputs K.
        multilabel: labels are (N, K) in {0, 1, NaN} (binary cross-entropy) instead of (N,) indices (cross-entropy).
        view: the view that is classified.
        label_smoothing: share of the target spread over all classes.
        dropout: on the pooled features.
        hidden: units of a dense layer with ReLU before the outputs (Models Genesis: 1,024); None for a linear head.
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
        hidden: int | None = None,
    ):
        super().__init__()
        self.multilabel, self.view, self.label_smoothing = multilabel, view, label_smoothing
        widths = [network.encoder.num_features, *([] if hidden is None else [hidden]), classes]
        layers: list[nn.Module] = [nn.Dropout(dropout)]
        for before, after in pairwise(widths):
            linear = nn.Linear(before, after)
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.ReLU()]
        self.head = nn.Sequential(*layers[:-1])

    def logits(self, step: Step) -> Tensor:
        """(N, K), float32."""
        return self.head(step.pooled(self.view)).float()

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean over the labelled scans; logits (N, K), labels (N,) with -1, or (N, K) with NaN, where there is none."""
        with full_precision(logits):
            if self.multilabel:
                return masked_bce(logits, labels.to(torch.float32))
            return F.cross_entropy(logits, labels.long(), label_smoothing=self.label_smoothing, ignore_index=-1)

    def forward(self, step: Step) -> Tensor:
        return self.loss(self.logits(step), step.batch["label"])
