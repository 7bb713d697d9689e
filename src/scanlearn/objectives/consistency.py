"""Consistency with a mean teacher: what a slow copy of the network draws of one view, the network should draw of another.

Source: Tarvainen, Valpola, "Mean teachers are better role models", NeurIPS 2017, arXiv 1703.01780. It is the baseline of
semi-supervised segmentation: no label is needed, so unlabelled scans count.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor

from scanlearn.errors import ScanlearnError
from scanlearn.networks.network import Network
from scanlearn.objectives.objective import OBJECTIVES, Objective, full_precision
from scanlearn.objectives.regions import pairs
from scanlearn.objectives.step import Step


def ramp(step: int, length: int) -> float:
    """exp(-5 (1 - t)²) with t = step / length, from 0.0067 to 1 (Laine and Aila 2017); 1 from ``length`` on."""
    share = 1.0 if length <= 0 else min(step / length, 1.0)
    return math.exp(-5.0 * (1.0 - share) ** 2)


@OBJECTIVES.register("consistency")
class Consistency(Objective):
    """Mean squared difference of the probabilities that network and teacher give, over all voxels and classes.

    The two views must show the same voxels: make the teacher's from the student's source with ops that move nothing.

    Args:
        network: its decoder draws classes, or pairs of channels for regions.
        view, teacher_view: what the network and what the teacher sees.
        momentum: m in ``teacher = m * teacher + (1 - m) * network``, at most; at step t it is 1 - 1 / (t + 1) while that
            is less, so that the teacher forgets how the network began.
        ramp_up: steps over which the weight grows to 1, see ``ramp``.
        regions: number of regions where the output is a pair of channels for each; None: a softmax over classes.
    """

    updates: Tensor

    def __init__(
        self,
        network: Network,
        *,
        view: str = "image",
        teacher_view: str = "teacher",
        momentum: float = 0.99,
        ramp_up: int = 1000,
        regions: int | None = None,
    ):
        super().__init__()
        if network.decoder is None:
            raise ScanlearnError("The objective 'consistency' needs a decoder: set network.decoder in the recipe.")
        if not 0 <= momentum <= 1 or ramp_up < 0:
            raise ScanlearnError(
                f"consistency needs a momentum from 0 to 1 and a ramp_up of 0 or more, not {momentum} and {ramp_up}."
            )
        self.view, self.teacher_view, self.momentum = view, teacher_view, momentum
        self.ramp_up, self.regions = ramp_up, regions
        self.teacher = copy.deepcopy(network).requires_grad_(False)
        self.register_buffer("updates", torch.zeros(1, dtype=torch.long))
        self._student = (network,)  # a tuple: not registered a second time

    def start_from(self, network: Network) -> None:
        self.teacher.load_state_dict(network.state_dict())

    def probabilities(self, drawn: Tensor) -> Tensor:
        """(N, channels, *spatial) from what a decoder drew."""
        if self.regions is None:
            return drawn.float().softmax(dim=1)
        return torch.cat([pair.float().softmax(dim=1) for pair in pairs(drawn, self.regions)], dim=1)

    def forward(self, step: Step) -> Tensor:
        drawn, other = step.segmented(self.view), step.view(self.teacher_view)
        if drawn.shape[2:] != other.shape[2:]:
            raise ScanlearnError(
                f"The views {self.view!r} and {self.teacher_view!r} have {list(drawn.shape[2:])} and "
                f"{list(other.shape[2:])} voxels; 'consistency' needs the same voxels in both."
            )
        with torch.no_grad():
            wanted = self.probabilities(self.teacher.segmented(other))
        with full_precision(drawn):
            difference = (self.probabilities(drawn) - wanted).square().mean()
        step.log("teacher_difference", difference)
        return ramp(int(step.batch["step"]), self.ramp_up) * difference

    @torch.no_grad()
    def after_update(self) -> None:
        """Of the parameters; the teacher's batch-norm buffers follow from its own batches."""
        follow = (1.0 / (self.updates + 1).float()).clamp(min=1.0 - self.momentum)
        self.updates += 1
        teacher: list[Tensor] = list(self.teacher.parameters())
        student: list[Tensor] = list(self._student[0].parameters())
        steps = list(torch._foreach_sub(student, teacher))
        torch._foreach_mul_(steps, follow[0])
        torch._foreach_add_(teacher, steps)
