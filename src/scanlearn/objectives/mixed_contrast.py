"""Comparing to Learn (C2L): Zhou, Yu, Bian, Hu, Ma, Zheng: "Comparing to Learn: Surpassing ImageNet pretraining on
radiographs by comparing image representations", MICCAI 2020, arXiv 2007.07423. The presets are the recipes c2l_*.

Momentum contrast in which a mixture of two scans should recognise the same mixture: of the other views' images, and of
their features. What is mixed with what belongs to the whole batch, not to one sample, and images and features share it;
so the mixing stands here and not among the ops of a view.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from scanlearn.errors import ScanlearnError, unknown
from scanlearn.networks.network import Network
from scanlearn.objectives.momentum_keys import MomentumKeys, contrast_logits, enqueue, first_is_right
from scanlearn.objectives.objective import OBJECTIVES, full_precision
from scanlearn.objectives.ranks import gather, own_part
from scanlearn.objectives.step import Step

TERMS = ("plain", "mixed_images", "mixed_features")
ENQUEUE = ("after", "authors")
CRITERIA = ("info_nce", "nce")
PARTNERS = 1  # the salt of the second permutation of a step; the first shuffles the keys


def mix(x: Tensor, partner: Tensor, share: float) -> Tensor:
    """``share * x + (1 - share) * partner``, of images (N, C, *spatial) or features (N, D)."""
    return share * x + (1.0 - share) * partner


def folded(uniform: float) -> float:
    """lambda in [0.5, 1] from a number of Beta(1, 1), so that the image itself outweighs its partner (spec_c2l §5)."""
    return max(uniform, 1.0 - uniform)


def nce(logits: Tensor, normaliser: Tensor, scans: int, eps: float = 1e-7) -> Tensor:
    """Noise-contrastive estimation of logits (N, 1 + K), the positive first; mean over the N queries (spec_c2l §6).

    With P = exp(logits) / Z, m = K and Pn = 1 / ``scans``, the mean of
    ``-log(P_0 / (P_0 + m Pn + eps)) - sum_j log(m Pn / (P_j + m Pn + eps))``. ``normaliser`` is Z.
    """
    noise = (logits.shape[1] - 1) / scans
    chance = logits.exp() / normaliser
    positive = torch.log1p((noise + eps) / chance[:, 0])
    # log1p: each of the K terms is near 0, and their sum would gather the rounding of 1 + x.
    return (positive + torch.log1p((chance[:, 1:] + eps) / noise).sum(dim=1)).mean()


@OBJECTIVES.register("mixed_contrast")
class MixedContrast(MomentumKeys):
    """The mean of up to three contrasts of a query with its key and a queue of earlier keys; settings beside those of
    ``MomentumKeys``:

    Args:
        terms: which contrasts: ``plain`` (image, image), ``mixed_images`` (mixed image, mixed image; the paper's
            homogeneous pair) and ``mixed_features`` (mixed image, mixed features of the keys; the heterogeneous pair).
        enqueue: ``after`` (all terms see one queue, then all keys enter) or ``authors`` (the keys of each term enter
            before the next term, so that a later term meets this batch's keys as negatives).
        criterion: ``info_nce`` or ``nce``, whose normaliser Z is measured on the first batch and then stays.
    """

    called = "mixed_contrast"
    normaliser: Tensor

    def __init__(
        self,
        network: Network,
        *,
        query: str = "query",
        key: str = "key",
        terms: Sequence[str] = TERMS,
        enqueue: str = "after",
        criterion: str = "info_nce",
        head: str = "linear",
        hidden: int | None = None,
        dim: int = 128,
        queue_size: int = 16384,
        momentum: float = 0.999,
        temperature: float = 0.07,
    ):
        super().__init__(
            network,
            query=query,
            key=key,
            head=head,
            hidden=hidden,
            dim=dim,
            queue_size=queue_size,
            momentum=momentum,
            temperature=temperature,
        )
        if isinstance(terms, str) or not terms or len(set(terms)) < len(terms):
            raise ScanlearnError(f"mixed_contrast needs a list of different terms out of {list(TERMS)}, not {terms!r}.")
        for kind, name, known in [
            *(("term of mixed_contrast", term, TERMS) for term in terms),
            ("enqueue of mixed_contrast", enqueue, ENQUEUE),
            ("criterion of mixed_contrast", criterion, CRITERIA),
        ]:
            if name not in known:
                raise unknown(kind, name, known)
        self.terms = [term for term in TERMS if term in terms]  # in the order of the published step
        self.enqueue, self.criterion = enqueue, criterion
        self.scans: int | None = None
        if criterion == "nce":
            self.register_buffer("normaliser", torch.full((1,), -1.0))  # negative: not measured yet

    def start(self, scans: int, batch_size: int) -> None:
        super().start(scans, batch_size)
        self.scans = scans

    def pairs(self, step: Step) -> dict[str, tuple[Tensor, Tensor]]:
        """{term: (queries of this rank (N, dim), keys of the global batch (B, dim))}, all of unit length."""
        queries, images = step.view(self.query), gather(step.view(self.key))
        shuffle = step.permutation(len(images))
        pairs, features = {}, None
        if {"plain", "mixed_features"} & set(self.terms):
            features = self.encode_keys(images[own_part(shuffle)], shuffle)
        if "plain" in self.terms:
            assert features is not None
            pairs["plain"] = self.project(step), F.normalize(features, dim=1)
        if self.terms == ["plain"]:
            return pairs
        share, partners = folded(step.uniform()), step.permutation(len(images), PARTNERS)
        mixed = mix(queries, gather(queries)[own_part(partners)], share)
        query = self.project_pooled(step.network.pooled(mixed))
        if "mixed_images" in self.terms:
            own = own_part(shuffle)
            keys = self.encode_keys(mix(images[own], images[partners[own]], share), shuffle)
            pairs["mixed_images"] = query, F.normalize(keys, dim=1)
        if "mixed_features" in self.terms:
            assert features is not None
            pairs["mixed_features"] = query, F.normalize(mix(features, features[partners], share), dim=1)
        return pairs

    def contrast(self, logits: Tensor) -> Tensor:
        """The criterion of logits (N, 1 + K)."""
        if self.criterion == "info_nce":
            return first_is_right(logits)
        if self.scans is None:
            raise ValueError("nce needs the number of training scans: call start() before the first step")
        measured = gather(logits.detach().exp().mean()[None]).mean() * self.scans
        normaliser = torch.where(self.normaliser < 0, measured, self.normaliser)
        if self.training:
            self.normaliser.copy_(normaliser)
        return nce(logits, normaliser, self.scans)

    def forward(self, step: Step) -> Tensor:
        pairs = self.pairs(step)
        queue, pointer = self.queue.clone(), self.pointer.clone()
        losses = []
        for term, (query, keys) in pairs.items():
            with full_precision(query):
                logits = contrast_logits(query, own_part(keys), queue, self.temperature)
                losses.append(self.contrast(logits))
                # One number for all methods that contrast, of the first term; the others under their own names.
                name = "contrast_accuracy" if len(losses) == 1 else f"{term}_accuracy"
                step.log(name, (logits.argmax(dim=1) == 0).float().mean())
            if self.enqueue == "authors":
                queue, pointer = queue.clone(), pointer.clone()  # the one before is needed for the gradient
                enqueue(queue, pointer, keys)
        if self.training:
            for _, keys in pairs.values():
                enqueue(self.queue, self.pointer, keys)
        return torch.stack(losses).mean()
