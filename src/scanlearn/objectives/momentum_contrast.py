"""Momentum contrast (MoCo v1: He et al., CVPR 2020, arXiv 1911.05722; v2: Chen et al., arXiv 2003.04297; the head and
temperature of Chen et al., Pattern Recognition 2021 are settings). The presets are the recipes moco_v1, moco_v2, chen2021.

A query and a key are two views of one scan. The query should recognise its key among the keys of earlier batches.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from scanlearn.objectives.momentum_keys import MomentumKeys, contrast_logits, enqueue, first_is_right
from scanlearn.objectives.objective import OBJECTIVES, full_precision
from scanlearn.objectives.ranks import gather, own_part
from scanlearn.objectives.step import Step


def info_nce(query: Tensor, key: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """``-log( exp(q·k/T) / (exp(q·k/T) + sum_n exp(q·n/T)) )``, mean over the N queries (MoCo, equation 1)."""
    return first_is_right(contrast_logits(query, key, queue, temperature))


@OBJECTIVES.register("momentum_contrast")
class MomentumContrast(MomentumKeys):
    """InfoNCE of each query against its key and a queue of earlier keys; the settings are those of ``MomentumKeys``.

    Take a ``queue_size`` of at most a quarter of the data set; ``head`` is ``mlp`` (v2, Chen 2021) or ``linear`` (v1).
    """

    called = "momentum_contrast"

    @torch.no_grad()
    def make_keys(self, step: Step) -> tuple[Tensor, Tensor]:
        """(own keys (N, dim), keys of the global batch), unit length; the encoder sees the batch in shuffled order."""
        images = gather(step.view(self.key))
        order = step.permutation(len(images))
        keys = F.normalize(self.encode_keys(images[own_part(order)], order), dim=1)
        return own_part(keys), keys

    def forward(self, step: Step) -> Tensor:
        query = self.project(step)
        keys, all_keys = self.make_keys(step)
        with full_precision(query):
            logits = contrast_logits(query, keys, self.queue.clone() if self.training else self.queue, self.temperature)
            loss = first_is_right(logits)
            step.log("contrast_accuracy", (logits.argmax(dim=1) == 0).float().mean())
        if self.training:
            enqueue(self.queue, self.pointer, all_keys)
        return loss
