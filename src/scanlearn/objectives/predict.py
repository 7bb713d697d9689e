"""Contrastive predictive coding: from the patches of one half of a scan, which patch of the other half is where?

Source: van den Oord et al., arXiv 1807.03748; Hénaff et al., ICML 2020; Iwasawa et al. 2020, spec_cpcseg §5. In the code
released for ssCPCseg this loss has no gradient; here every part of it has (§5.4).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from scanlearn.errors import ScanlearnError, unknown
from scanlearn.networks.conv import CONV
from scanlearn.networks.network import Network
from scanlearn.networks.norm import without_running_statistics
from scanlearn.networks.segres import ResBlock, lecun_normal
from scanlearn.objectives.objective import OBJECTIVES, Objective, full_precision
from scanlearn.objectives.step import Step
from scanlearn.randomness import Draws

DIRECTIONS = ("low_to_high", "both")


def patch_grid(image: Tensor, side: int, stride: int) -> Tensor:
    """All patches of an image (N, C, *spatial), a view of it: (N, *grid, C, *side), grid = (size - side) // stride + 1."""
    dims = image.ndim - 2
    for axis in range(2, image.ndim):
        image = image.unfold(axis, side, stride)
    return image.movedim(1, 1 + dims)


def encoded_patches(
    patches: Tensor, encode: Callable[[Tensor], Tensor], chunk: int | None, module: nn.Module
) -> Tensor:
    """``encode`` ((n, C, *side) -> (n, F)) of all patches of a grid (N, *grid, C, *side): (N, F, *grid).

    With ``chunk`` patches at a time, whose activations are computed again in the backward pass, memory holds the
    activations of one chunk whatever the scan's size. The second computation leaves the running statistics of
    ``module`` alone.
    """
    grid = patches.shape[: patches.ndim // 2]
    index = torch.cartesian_prod(*(torch.arange(side, device=patches.device) for side in grid))

    def of(part: Tensor) -> Tensor:
        return encode(patches[tuple(part.T)])

    if chunk is None:
        features = of(index)
    elif not torch.is_grad_enabled():
        features = torch.cat([of(part) for part in index.split(chunk)])
    else:
        contexts = lambda: (nullcontext(), without_running_statistics(module))  # noqa: E731
        features = torch.cat(
            [checkpoint(of, part, use_reentrant=False, context_fn=contexts) for part in index.split(chunk)]
        )
    return features.unflatten(0, grid).movedim(-1, 1)


def prediction_logits(predicted: Tensor, right: Tensor, others: Tensor) -> Tensor:
    """Dot products (N, P, P + M) of predictions (N, F, P) with the right features (N, F, P) and others (N, F, M)."""
    return predicted.transpose(1, 2) @ torch.cat([right, others], dim=2)


@OBJECTIVES.register("predict")
class Predict(Objective):
    """InfoNCE of predicted patch features: for each patch of the last half of the grid along one axis, the right one
    among all patches of that half and ``negatives`` others of the same scan. Needs no label.

    With G patches along the axis and c = G // 2, the first c slabs are seen, the last c are predicted, slab by slab
    G - c further on; the others come from all slabs but the last c, one draw for each scan and step.

    Args:
        network: its encoder makes the features: the mean of the coarsest map.
        view: the view that is cut into patches.
        patch, stride: voxels of a patch's side, and between patches.
        blocks: residual blocks of the predictor.
        groups: of its group norms.
        negatives: other patches.
        axis: along which is predicted; the last by default.
        direction: ``low_to_high``, or ``both``, the mean of that and of the mirrored grid by the same predictor.
        temperature: divides the dot products.
        normalise: give features and predictions length 1 first.
        detach_targets: send no gradient through what is predicted and the others.
        chunk: patches that are encoded at a time, see ``encoded_patches``; None for all at once. Batch norm takes its
            statistics from a chunk.
    """

    def __init__(
        self,
        network: Network,
        *,
        view: str = "image",
        patch: int = 32,
        stride: int = 16,
        blocks: int = 8,
        groups: int = 8,
        negatives: int = 20,
        axis: int = -1,
        direction: str = "low_to_high",
        temperature: float = 1.0,
        normalise: bool = False,
        detach_targets: bool = False,
        chunk: int | None = 32,
    ):
        super().__init__()
        if direction not in DIRECTIONS:
            raise unknown("direction", direction, DIRECTIONS)
        dims, features = network.encoder.spatial_dims, network.encoder.num_features
        if temperature <= 0 or patch < 1 or stride < 1 or negatives < 0 or not -dims <= axis < dims:
            raise ScanlearnError(
                f"The objective 'predict' needs a patch, stride and temperature above 0, negatives of 0 or more and an axis "
                f"of the scan; it was given {patch}, {stride}, {temperature}, {negatives} and {axis}."
            )
        self.view, self.patch, self.stride, self.chunk = view, patch, stride, chunk
        self.negatives, self.axis, self.direction = negatives, axis % dims, direction
        self.temperature, self.normalise, self.detach_targets = temperature, normalise, detach_targets
        body = (ResBlock(dims, features, groups) for _ in range(blocks))
        self.predictor = nn.Sequential(*body, CONV[dims](features, features, kernel_size=1))
        lecun_normal(self)

    def features(self, step: Step) -> Tensor:
        """Features (N, F, *grid) of all patches of the view, the axis that is predicted along as the last."""
        image = step.view(self.view)
        if min(image.shape[2:]) < self.patch:
            raise ScanlearnError(
                f"The view {self.view!r} has {list(image.shape[2:])} voxels, less than one patch of {self.patch}: set a "
                "smaller objectives.predict.patch."
            )
        encoder = step.network.encoder
        grid = encoded_patches(
            patch_grid(image, self.patch, self.stride),
            lambda patches: encoder(patches)[-1].flatten(2).mean(2),
            self.chunk,
            encoder,
        )
        return grid.movedim(2 + self.axis, -1)

    def contrast(self, grid: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """(loss, share that is recognised) of features (N, F, *grid), from the low half of the last axis to the high."""
        seen = grid.shape[-1] // 2
        pool = grid[..., : grid.shape[-1] - seen].flatten(2)
        if seen < 1 or pool.shape[2] < max(self.negatives, 1):
            raise ScanlearnError(
                f"A grid of {list(grid.shape[2:])} patches has {pool.shape[2]} to draw {self.negatives} negatives from and "
                f"{seen} slabs to predict: set a smaller stride, patch or number of negatives of objectives.predict."
            )
        predicted = self.predictor(grid[..., :seen]).flatten(2).float()
        chosen = draws.permutation(pool.shape[2])[:, None, : self.negatives].expand(-1, pool.shape[1], -1)
        right, others = grid[..., -seen:].flatten(2).float(), pool.float().gather(2, chosen)
        with full_precision(right):
            if self.normalise:
                predicted, right, others = (F.normalize(x, dim=1) for x in (predicted, right, others))
            if self.detach_targets:
                right, others = right.detach(), others.detach()
            logits = prediction_logits(predicted, right, others) / self.temperature
            wanted = torch.arange(right.shape[2], device=logits.device).expand(len(logits), -1)
            recognised = (logits.detach().argmax(dim=2) == wanted).float().mean()
            return F.cross_entropy(logits.flatten(0, 1), wanted.flatten()), recognised

    def forward(self, step: Step) -> Tensor:
        grid, draws = self.features(step), step.draws("predict")
        loss, recognised = self.contrast(grid, draws)
        if self.direction == "both":
            back, of_back = self.contrast(grid.flip(-1), draws)
            loss, recognised = (loss + back) / 2, (recognised + of_back) / 2
        step.log("predict_accuracy", recognised)
        return loss
