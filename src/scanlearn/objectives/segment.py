"""Segmentation: Dice plus cross-entropy on the decoder's output (nnU-Net's default pair; Isensee et al. 2021)."""

from __future__ import annotations

from torch import Tensor

from scanlearn.errors import ScanlearnError
from scanlearn.networks.network import Network
from scanlearn.objectives.objective import OBJECTIVES, Objective, full_precision
from scanlearn.objectives.step import Step


@OBJECTIVES.register("segment")
class Segment(Objective):
    """Soft Dice over the foreground classes + cross-entropy over all.

    Args:
        network: its decoder has ``classes`` output channels, background first.
        classes: number of classes, background included.
        view: the view that is segmented.
        mask: name of the mask in the views, int64 (N, 1, *spatial); spatial views move it with the image.
        dice, cross_entropy: weights of the two terms.
        batch_dice: sum over the batch before the ratio (steadier when a class is missing from many patches).
        smooth: added above and below the line of the ratio. Models Genesis fine-tunes with 1, Dice alone.
    """

    def __init__(
        self,
        network: Network,
        *,
        classes: int,
        view: str = "image",
        mask: str = "mask",
        dice: float = 1.0,
        cross_entropy: float = 1.0,
        batch_dice: bool = True,
        smooth: float = 1e-5,
    ):
        super().__init__()
        if network.decoder is None:
            raise ScanlearnError("The objective 'segment' needs a decoder: set network.decoder in the recipe.")
        from monai.losses import DiceCELoss

        self.view, self.mask, self.classes = view, mask, classes
        self.dice, self.cross_entropy, self.batch_dice, self.smooth = dice, cross_entropy, batch_dice, smooth
        self.loss = DiceCELoss(
            include_background=False,
            to_onehot_y=True,
            softmax=True,
            lambda_dice=dice,
            lambda_ce=cross_entropy,
            batch=batch_dice,
            smooth_nr=smooth,
            smooth_dr=smooth,
        )

    def forward(self, step: Step) -> Tensor:
        logits = step.restored(self.view).float()
        with full_precision(logits):
            return self.loss(logits, step.view(self.mask))
