"""Detection of one kind of finding by boxes: RetinaNet's focal loss and box regression, anchors matched by ATSS.

Sources: Lin et al., "Focal loss for dense object detection", ICCV 2017, arXiv 1708.02002; Zhang et al., "Bridging the
gap between anchor-based and anchor-free detection via adaptive training sample selection" (ATSS), CVPR 2020, arXiv
1912.02424.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from scanlearn.errors import ScanlearnError
from scanlearn.networks.network import Network
from scanlearn.networks.retina import RetinaNet, encode
from scanlearn.objectives.objective import OBJECTIVES, Objective, full_precision
from scanlearn.objectives.step import Step

NOT_MATCHED = -1
INSIDE = 0.01  # voxels by which the centre of an anchor must lie inside its box


def overlaps(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Intersection over union (N, M, A) of boxes (N, M, 4) and anchors (A, 4); 0 for boxes without volume."""
    low = torch.maximum(boxes[:, :, None, :2], anchors[:, :2])
    high = torch.minimum(boxes[:, :, None, 2:], anchors[:, 2:])
    both = (high - low).clamp(min=0).prod(dim=-1)
    area = [(b[..., 2:] - b[..., :2]).clamp(min=0).prod(dim=-1) for b in (boxes, anchors)]
    return both / (area[0][:, :, None] + area[1] - both).clamp(min=1e-9)


@torch.no_grad()
def match(boxes: Tensor, anchors: Tensor, places: Sequence[int], candidates: int) -> Tensor:
    """Which box of its image each anchor should find, int64 (N, A), ``NOT_MATCHED`` for none (ATSS, algorithm 1).

    Of each level the anchors of the ``candidates`` places nearest to the centre of a box are looked at. Those count whose overlap
    reaches the mean plus one standard deviation over all that are looked at, and whose centre lies inside the box. An
    anchor of several boxes takes the one that it overlaps most.

    Args:
        boxes: float (N, M, 4); those without volume are no boxes.
        anchors: (A, 4), level by level, those of a place side by side around one centre.
        places: how many places each level has.
    """
    real = (boxes[..., 2:] > boxes[..., :2]).all(dim=-1)
    iou = overlaps(boxes, anchors)
    shapes = len(anchors) // sum(places)
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    # Not by torch.cdist: its matrix product rounds by more than places lie apart.
    distance = ((boxes[:, :, None, :2] + boxes[:, :, None, 2:]) / 2 - centres[::shapes]).square().sum(dim=-1)
    begin, looked_at = 0, []
    for count in places:
        nearest = distance[..., begin : begin + count].topk(min(candidates, count), dim=-1, largest=False).indices
        looked_at.append(nearest + begin)
        begin += count
    near = torch.cat(looked_at, dim=-1)
    which = (near[..., None] * shapes + torch.arange(shapes, device=near.device)).flatten(2)  # (N, M, K)
    found = iou.gather(2, which)
    bar = found.mean(dim=-1, keepdim=True) + (found.std(dim=-1, keepdim=True) if found.shape[-1] > 1 else 0.0)
    at = centres[which]
    inside = torch.cat([at - boxes[:, :, None, :2], boxes[:, :, None, 2:] - at], dim=-1).amin(dim=-1) > INSIDE
    counts = (found >= bar) & inside & real[..., None]
    best = torch.full_like(iou, -1.0).scatter(2, which, torch.where(counts, found, -1.0))
    value, box = best.max(dim=1)
    return torch.where(value >= 0, box, NOT_MATCHED)


def detection_losses(
    logits: Tensor,
    offsets: Tensor,
    boxes: Tensor,
    anchors: Tensor,
    matched: Tensor,
    alpha: float,
    gamma: float,
    beta: float,
) -> tuple[Tensor, Tensor]:
    """(focal loss of the logits, smooth L1 of the offsets), each the mean over images of the sum over anchors divided
    by the image's matched anchors, or by 1 where there are none; so ranks and batches add up to the same.

    Args:
        logits: (N, A), whether an anchor shows something.
        offsets: (N, A, 4), see ``networks.retina.encode``.
        boxes, anchors, matched: see ``match``.
        alpha, gamma: weight of matched anchors, and how much sure answers are played down.
        beta: where smooth L1 turns from square to linear.
    """
    positive = matched >= 0
    count = positive.sum(dim=1).clamp(min=1)
    truth = positive.to(logits.dtype)
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    wrong = torch.where(positive, 1 - logits.sigmoid(), logits.sigmoid())
    focal = (alpha * truth + (1 - alpha) * (1 - truth)) * wrong**gamma * entropy
    target = boxes.gather(1, matched.clamp(min=0)[..., None].expand(-1, -1, 4))
    target = torch.where(positive[..., None], target, anchors)  # so that no logarithm of 0 is taken where none counts
    distance = F.smooth_l1_loss(offsets, encode(target, anchors), reduction="none", beta=beta).sum(dim=-1)
    return (focal.sum(dim=1) / count).mean(), ((distance * truth).sum(dim=1) / count).mean()


@OBJECTIVES.register("detect")
class Detect(Objective):
    """RetinaNet on the encoder's maps: does an anchor show a finding, and where does its box lie.

    Args:
        network: its encoder gives the maps.
        view: the view in which boxes are found.
        boxes: name of the boxes in the views, float (N, M, 4) in voxels; spatial views move them with the image.
        channels, maps, extra, anchor, scales, ratios: see ``networks.retina.RetinaNet``.
        candidates: places of each level whose anchors are looked at for a box.
        alpha, gamma: of the focal loss.
        beta: of the smooth L1 loss.
        box_weight: of the smooth L1 loss against the focal one.
    """

    def __init__(
        self,
        network: Network,
        *,
        view: str = "image",
        boxes: str = "boxes",
        channels: int = 256,
        maps: int = 3,
        extra: int = 2,
        anchor: float = 4.0,
        scales: Sequence[float] = (1.0,),
        ratios: Sequence[float] = (0.5, 1.0, 2.0),
        candidates: int = 4,
        alpha: float = 0.25,
        gamma: float = 2.0,
        beta: float = 1 / 9,
        box_weight: float = 1.0,
    ):
        super().__init__()
        if candidates < 1 or beta <= 0:
            raise ScanlearnError(f"detect needs candidates of 1 or more and beta above 0, not {candidates} and {beta}.")
        self.view, self.boxes = view, boxes
        self.candidates, self.alpha, self.gamma, self.beta = candidates, alpha, gamma, beta
        self.box_weight = box_weight
        self.head = RetinaNet(
            network.encoder, channels=channels, maps=maps, extra=extra, anchor=anchor, scales=scales, ratios=ratios
        )

    def losses(self, features: list[Tensor], boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(focal loss, box loss, share of boxes that some anchor is matched to) of the encoder's maps."""
        logits, offsets = (x.float() for x in self.head(features))
        with full_precision(logits):
            anchors, boxes = self.head.anchors(features), boxes.float()
            matched = match(boxes, anchors, self.head.places(features), self.candidates)
            focal, distance = detection_losses(
                logits, offsets, boxes, anchors, matched, self.alpha, self.gamma, self.beta
            )
        real = (boxes[..., 2:] > boxes[..., :2]).all(dim=-1)
        number = torch.arange(boxes.shape[1], device=boxes.device)
        found = (matched[:, None] == number[:, None]).any(dim=-1) & real
        return focal, distance, found.sum() / real.sum().clamp(min=1)

    def forward(self, step: Step) -> Tensor:
        focal, distance, found = self.losses(step.features(self.view), step.view(self.boxes))
        step.log("focal", focal)
        step.log("box_distance", distance)
        step.log("boxes_matched", found)
        return focal + self.box_weight * distance
