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
        log_p = F.log_softmax(logits, dim=1)
        surprise = -log_p.gather(1, mask[:, None])[:, 0]
        surprise = surprise if weights is None else surprise * weights
        total = self.cross_entropy * share.mean(surprise.flatten(1).mean(dim=1))
        if self.dice:
            total = total + self.dice * self._dice(log_p.exp(), mask, share)
        return total

    def _dice(self, p: Tensor, mask: Tensor, share: Share) -> Tensor:
        classes = range(0 if self.background else 1, p.shape[1])
        terms = [self._sums(p[:, c], (mask == c).to(p.dtype)) for c in classes]  # one class at a time: no one-hot copy
        above, below = (torch.stack(part, dim=1) for part in zip(*terms, strict=True))  # (N, classes)
        if self.batch_dice:
            above, below = share.total(above), share.total(below)
        ratio = 1.0 - (2.0 * above + self.smooth) / (below + self.smooth)
        return share.weight * ratio.mean() if self.batch_dice else share.mean(ratio.mean(dim=1))

    def _sums(self, p: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        below = p.square() + truth if self.squared else p + truth
        return (p * truth).flatten(1).sum(dim=1), below.flatten(1).sum(dim=1)


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
