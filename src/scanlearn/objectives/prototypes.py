"""Prototypical networks: tell classes apart by the distance to the mean of a few examples of each.

Snell, Swersky, Zemel, "Prototypical networks for few-shot learning", NIPS 2017 (spec_fewshot §3). A batch is one episode
or several; its order is that of ``scans.episodes.EpisodeWalk``.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from scanlearn.errors import ScanlearnError
from scanlearn.networks.network import Network
from scanlearn.objectives.objective import OBJECTIVES, Objective, full_precision
from scanlearn.objectives.step import Step


def prototype_logits(support: Tensor, query: Tensor) -> Tensor:
    """``- |z - c_j|^2`` with ``c_j`` the mean of class j's support: (E, W, k, d), (E, Q, d) -> (E, Q, W).

    The *squared* distance; differences are taken before squares, so that no digits are lost.
    """
    return -(query[:, :, None] - support.mean(2)[:, None]).square().sum(3)


def prototype_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """``- log softmax(logits)[truth]``, mean over all queries of all episodes. logits (E, Q, W), truth int64 (E, Q)."""
    return functional.cross_entropy(logits.flatten(0, 1), truth.flatten())


@OBJECTIVES.register("prototypes")
class Prototypes(Objective):
    """Mean negative log-likelihood of the queries of each episode; ``episode_accuracy`` is logged.

    Support and query go through the network in one forward pass, so that batch norm sees them together.

    Args:
        network: its encoder gives the features.
        ways, shots, queries: of an episode: classes, and of each class labelled scans and asked ones. The recipe's
            ``episodes`` tells them.
        view: the view that is classified.
        flatten: the coarsest map as one vector, as published; else its global average, which is what ``fewshot``,
            ``probe`` and ``embed`` read.
        normalise: features of length 1; prototypes keep the length that they have.
        temperature: squared distances are divided by it.
    """

    def __init__(
        self,
        network: Network,
        *,
        ways: int | None = None,
        shots: int | None = None,
        queries: int | None = None,
        view: str = "image",
        flatten: bool = True,
        normalise: bool = False,
        temperature: float = 1.0,
    ):
        super().__init__()
        if ways is None or shots is None or queries is None:
            raise ScanlearnError("The objective 'prototypes' learns from episodes: give the recipe `episodes`.")
        if min(ways - 1, shots, queries) < 1 or not temperature > 0:
            raise ScanlearnError(
                "The objective 'prototypes' needs 2 ways or more, 1 shot, 1 query and a temperature above 0, not "
                f"{ways}, {shots}, {queries} and {temperature}."
            )
        self.ways, self.shots, self.queries, self.view = ways, shots, queries, view
        self.flatten, self.normalise, self.temperature = flatten, normalise, temperature

    def features(self, step: Step) -> Tensor:
        """(N, d), float32, in the order of the batch."""
        found = step.features(self.view)[-1].flatten(1) if self.flatten else step.pooled(self.view)
        return functional.normalize(found.float(), dim=1) if self.normalise else found.float()

    def forward(self, step: Step) -> Tensor:
        features = self.features(step)
        size = self.ways * (self.shots + self.queries)
        if len(features) % size:
            raise ScanlearnError(
                f"A batch of {len(features)} scans is no whole number of episodes of {self.ways} ways, {self.shots} shots "
                f"and {self.queries} queries: set episodes.per_step to a multiple of the ranks."
            )
        with full_precision(features):
            episodes = features.view(-1, size, features.shape[1])
            support = episodes[:, : self.ways * self.shots].unflatten(1, (self.ways, self.shots))
            query = episodes[:, self.ways * self.shots :]
            logits = prototype_logits(support, query) / self.temperature
            way = torch.arange(self.ways, device=features.device).repeat_interleave(self.queries)
            truth = way.expand(len(logits), -1)
            step.log("episode_accuracy", (logits.argmax(dim=2) == truth).float().mean())
            return prototype_loss(logits, truth)
