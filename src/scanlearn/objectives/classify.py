"""Classification of whole scans from pooled features: one label per scan, or several at once."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scanlearn.networks.network import Network
from scanlearn.objectives.objective import OBJECTIVES, Objective, full_precision
from scanlearn.objectives.ranks import averaged
from scanlearn.objectives.step import Step


def known_cells(labels: Tensor) -> Tensor:
    """How many of the labels (N, K) are known, over the batches of all ranks divided by their number; 1 at least."""
    count = averaged((~labels.isnan()).sum().float())
    return torch.where(count > 0, count, 1.0)


def masked_bce(logits: Tensor, labels: Tensor, count: Tensor | None = None) -> Tensor:
    """Binary cross-entropy over the labels that are known.

    logits (N, K); labels (N, K) in [0, 1], NaN = unknown, left out; ``count`` to divide by instead of their number.
    """
    known = ~labels.isnan()
    loss = F.binary_cross_entropy_with_logits(logits, labels.nan_to_num(), reduction="none")
    return (loss * known).sum() / (known.sum().clamp(min=1) if count is None else count)


def masked_three_way(logits: Tensor, labels: Tensor, count: Tensor | None = None) -> Tensor:
    """Cross-entropy of absent, present and uncertain, a question for each label (U-MultiClass, arXiv 1901.07031).

    logits (N, K, 3); labels (N, K): -1 = uncertain, NaN = unknown, left out, others in [0, 1] the share of present.
    """
    known = ~labels.isnan()
    uncertain, present = (labels == -1).to(logits.dtype), labels.nan_to_num().clamp(min=0).to(logits.dtype)
    target = torch.stack([1 - uncertain - present, present, uncertain], dim=-1)
    loss = -(target * F.log_softmax(logits, dim=-1)).sum(dim=-1)
    return (loss * known).sum() / (known.sum().clamp(min=1) if count is None else count)


@OBJECTIVES.register("classify")
class Classify(Objective):
    """A linear head on the pooled features, or one with a hidden layer.

    Args:
        network: its encoder gives the features.
        classes: number of classes K.
        multilabel: labels are (N, K) in [0, 1] or NaN (binary cross-entropy) instead of (N,) indices (cross-entropy).
        three_way: of several labels each has three outputs, absent, present and uncertain (label -1). What it answers is
            the softmax restricted to the first two, that is the sigmoid of their difference.
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
        three_way: bool = False,
        view: str = "image",
        label_smoothing: float = 0.0,
        dropout: float = 0.0,
        hidden: int | None = None,
    ):
        super().__init__()
        if three_way and not multilabel:
            raise ValueError("three_way is for scans with several labels")
        self.multilabel, self.view, self.label_smoothing = multilabel, view, label_smoothing
        self.three_way = three_way
        outputs = 3 * classes if three_way else classes
        widths = [network.encoder.num_features, *([] if hidden is None else [hidden]), outputs]
        layers: list[nn.Module] = [nn.Dropout(dropout)]
        for before, after in pairwise(widths):
            linear = nn.Linear(before, after)
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.ReLU()]
        self.head = nn.Sequential(*layers[:-1])

    def logits(self, step: Step) -> Tensor:
        """Outputs (N, K), float32; (N, 3 K) where they are three-way."""
        return self.head(step.pooled(self.view)).float()

    def answers(self, features: Tensor) -> Tensor:
        """Logits (N, K) of the classes, from pooled features (N, num_features)."""
        outputs = self.head(features).float()
        return present_against_absent(outputs, dim=1) if self.three_way else outputs

    def exported(self) -> dict[str, Tensor]:
        """The tensors of a head whose outputs are ``answers``: of a three-way one the differences of its rows."""
        state = dict(self.state_dict())
        if self.three_way:
            last = len(self.head) - 1
            for name in (f"head.{last}.weight", f"head.{last}.bias"):
                state[name] = present_against_absent(state[name], dim=0)
        return state

    def loss(self, logits: Tensor, labels: Tensor, count: Tensor | None = None) -> Tensor:
        """Mean over what is labelled; logits as above, labels (N,) with -1, or (N, K) with NaN, where there is none.

        ``count``: of several labels, the number of known cells to divide by.
        """
        with full_precision(logits):
            if not self.multilabel:
                return F.cross_entropy(logits, labels.long(), label_smoothing=self.label_smoothing, ignore_index=-1)
            labels = labels.to(torch.float32)
            if self.three_way:
                return masked_three_way(logits.unflatten(1, (-1, 3)), labels, count)
            return masked_bce(logits, labels, count)

    def forward(self, step: Step) -> Tensor:
        labels = step.batch["label"]
        return self.loss(self.logits(step), labels, known_cells(labels) if self.multilabel else None)


def present_against_absent(outputs: Tensor, dim: int) -> Tensor:
    """Differences of the second and first of every three: (..., 3 K, ...) -> (..., K, ...)."""
    absent, present, _ = outputs.unflatten(dim, (-1, 3)).unbind(dim + 1)
    return present - absent
