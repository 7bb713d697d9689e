"""Soft Dice and cross-entropy of drawn classes, over the samples that have a label.

Source: Milletari et al., "V-Net", 3DV 2016 (Dice); Isensee et al. 2021 and spec_cpcseg §2.2 for the pair of both. The
values are those of MONAI's ``DiceCELoss``, which cannot leave samples out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from scanlearn.objectives.ranks import gather


@dataclass(frozen=True)
class Overlap:
    """How predicted classes are held against a mask.

    Attributes:
        dice, cross_entropy: weights of the two terms.
        background: whether class 0 counts in Dice.
        squared: square both sums below the line of the ratio.
        batch_dice: sum over the batch before the ratio, not for each sample.
        smooth: added above and below the line.
    """

    dice: float = 1.0
    cross_entropy: float = 1.0
    background: bool = False
    squared: bool = False
    batch_dice: bool = True
    smooth: float = 1e-5

    def __call__(self, logits: Tensor, mask: Tensor, share: Share, weights: Tensor | None = None) -> Tensor:
        """The loss, a scalar: logits (N, K, *spatial) float32, mask int64 (N, *spatial).

        ``weights`` (N, *spatial) of the voxels in the cross-entropy, whose mean is still taken over all voxels.
        """
        above, below, surprise = self.sums(logits, mask, weights)
        total = self.cross_entropy * share.mean(surprise / mask[0].numel())
        if not self.dice:
            return total
        if self.batch_dice:
            return total + self.dice * share.weight * self.lacking(share.total(above), share.total(below)).mean()
        return total + self.dice * share.mean(self.lacking(above, below).mean(dim=1))

    def sums(self, logits: Tensor, mask: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """What the loss is made of, for each sample: the sum of p t and of p + t (or their squares) over the voxels of
        each class (N, classes), and the sum of -log p (N,)."""
        log_p = F.log_softmax(logits, dim=1)
        surprise = -log_p.gather(1, mask[:, None])[:, 0]
        surprise = surprise if weights is None else surprise * weights
        p, first = log_p.exp(), 0 if self.background else 1
        above, below = [], []
        for c in range(first, p.shape[1]):  # one class at a time: no copy of the mask with a channel for each
            truth = (mask == c).to(p.dtype)
            above.append((p[:, c] * truth).flatten(1).sum(dim=1))
            below.append(((p[:, c].square() if self.squared else p[:, c]) + truth).flatten(1).sum(dim=1))
        return torch.stack(above, dim=1), torch.stack(below, dim=1), surprise.flatten(1).sum(dim=1)

    def lacking(self, above: Tensor, below: Tensor) -> Tensor:
        """1 - Dice of such sums."""
        return 1.0 - (2.0 * above + self.smooth) / (below + self.smooth)


class Share:
    """Which samples of this rank have a label, and what each counts, so that the mean over ranks is the wanted mean.

    Args:
        labelled: bool (N,), or None where every sample has a label.
        count: ``labelled``: the mean over the labelled samples of the global batch; ``batch``: the sum over them
            divided by all samples (spec_cpcseg §6.5).
    """

    def __init__(self, samples: int, labelled: Tensor | None = None, count: str = "labelled"):
        self.there = None if labelled is None else labelled.float()
        if self.there is None:
            self.divisor: Tensor | float = float(samples)
            self.weight: Tensor | float = 1.0
            return
        own = self.there.sum()
        ranks = gather(own[None])
        self.divisor = ranks.mean().clamp(min=1.0 / len(ranks)) if count == "labelled" else own.new_tensor(samples)
        self.weight = own / self.divisor  # of a figure that is a mean over this rank's labelled samples already

    def mean(self, values: Tensor) -> Tensor:
        """Of values (N,), one for each sample."""
        return self.total(values) / self.divisor

    def total(self, values: Tensor) -> Tensor:
        """The sum over the labelled samples of values (N, ...). What stands for the others may be anything finite."""
        if self.there is not None:
            values = values * self.there.view(-1, *[1] * (values.ndim - 1))
        return values.sum(dim=0)
