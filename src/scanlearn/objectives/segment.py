"""Segmentation: Dice plus cross-entropy on the decoder's output (nnU-Net's default pair; Isensee et al. 2021), of plain
classes or of regions that overlap (spec_cpcseg §2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from scanlearn.errors import ScanlearnError, unknown
from scanlearn.networks.network import Network
from scanlearn.objectives.objective import OBJECTIVES, Objective, full_precision
from scanlearn.objectives.overlap import Overlap, Share
from scanlearn.objectives.regions import Member, checked_regions, pairs, region_masks
from scanlearn.objectives.step import Step

COUNTS = ("labelled", "batch")


@OBJECTIVES.register("segment")
class Segment(Objective):
    """Soft Dice + cross-entropy over all voxels of the scans that have a mask.

    In a batch with ``labelled``, bool (N,), the other scans count for nothing and send no gradient.

    Args:
        network: its decoder has ``classes`` output channels, background first; or two for each region.
        classes: number of classes of the mask, background included; or their names, where regions name them.
        view: the view that is segmented.
        mask: name of the mask in the views, int64 (N, 1, *spatial); spatial ops move it with the image. ``mask`` is that
            of the recipe's first view, ``VIEW.mask`` that of another.
        regions: classes of each region by number or name, {whole: [1, 2, 3], core: [2, 3]}; each is a softmax of its own
            over outside and inside, and their losses are added. None: plain classes.
        dice, cross_entropy: weights of the two terms.
        background: whether Dice counts what is outside too.
        squared: square both sums below the line of Dice.
        batch_dice: sum over the batch before the ratio (steadier when a class is missing from many patches).
        smooth: added above and below the line of the ratio. Models Genesis fine-tunes with 1, Dice alone.
        count: the mean is taken over the ``labelled`` scans of the global batch, or over all of the ``batch`` (as
            published for ssCPCseg).
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
        background: bool = False,
        squared: bool = False,
        batch_dice: bool = True,
        smooth: float = 1e-5,
        count: str = "labelled",
    ):
        super().__init__()
        if network.decoder is None:
            raise ScanlearnError("The objective 'segment' needs a decoder: set network.decoder in the recipe.")
        if count not in COUNTS:
            raise unknown("count", count, COUNTS)
        self.view, self.mask, self.count = view, mask, count
        self.classes = classes if isinstance(classes, int) else len(classes)
        self.regions = None if regions is None else checked_regions(regions, classes, "segment")
        self.loss = Overlap(dice, cross_entropy, background, squared, batch_dice, smooth)

    def forward(self, step: Step) -> Tensor:
        logits, mask = step.segmented(self.view).float(), step.view(self.mask)
        with full_precision(logits):
            share = Share(len(mask), step.batch.get("labelled"), self.count)
            losses = [self.loss(*each, share) for each in self.drawn(logits, mask)]
            return sum(losses[1:], losses[0])

    def drawn(self, logits: Tensor, mask: Tensor) -> list[tuple[Tensor, Tensor]]:
        """What is held against what, logits (N, k, *spatial) and int64 (N, *spatial): all classes at once, or region by
        region. logits (N, channels, *spatial), mask int64 (N, 1, *spatial)."""
        if self.regions is None:
            return [(logits, mask[:, 0])]
        inside = region_masks(mask, self.regions, self.classes).long().unbind(dim=1)
        return list(zip(pairs(logits, len(self.regions)), inside, strict=True))
