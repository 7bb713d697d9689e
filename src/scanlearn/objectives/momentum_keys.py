"""What the objectives that contrast with a queue have in common: a second network that makes keys, follows the first by
moving average, and sees its batch in shuffled order, and the queue of the keys it made.

Source: He et al., "Momentum contrast", CVPR 2020, arXiv 1911.05722.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scanlearn.console import warn
from scanlearn.errors import ScanlearnError
from scanlearn.networks.network import Network
from scanlearn.objectives.objective import Objective
from scanlearn.objectives.ranks import gather
from scanlearn.objectives.step import Step


def contrast_logits(query: Tensor, key: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """``[q·k, q·queue] / T``: (N, 1 + K), the positive first. query, key (N, D) and queue (D, K) have unit length."""
    positive = (query * key).sum(dim=1, keepdim=True)
    return torch.cat([positive, query @ queue], dim=1) / temperature


def first_is_right(logits: Tensor) -> Tensor:
    """Cross-entropy of logits (N, 1 + K) whose first column is the positive, mean over the N queries."""
    return F.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.long))


@torch.no_grad()
def enqueue(queue: Tensor, pointer: Tensor, keys: Tensor) -> None:
    """Write ``keys`` (B, D) over the oldest columns of ``queue`` (D, K), wrapping round; moves ``pointer`` (1,)."""
    size = queue.shape[1]
    keys = keys[-size:]
    columns = (pointer + torch.arange(len(keys), device=queue.device)) % size
    queue[:, columns] = keys.T.to(queue.dtype)
    pointer.copy_((pointer + len(keys)) % size)


def projection_head(kind: str, features: int, hidden: int | None, dim: int) -> nn.Module:
    """``linear``: features -> dim (v1, C2L). ``mlp``: features -> hidden -> ReLU -> dim (v2), hidden = features if None."""
    if kind == "linear":
        return nn.Linear(features, dim)
    if kind != "mlp":
        raise ScanlearnError(f"There is no head {kind!r} that makes keys; use 'linear' (MoCo v1, C2L) or 'mlp' (v2).")
    hidden = hidden or features
    return nn.Sequential(nn.Linear(features, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, dim))


class MomentumKeys(Objective):
    """Base of the objectives with a key network and a queue; subclasses give ``forward``. The defaults are MoCo v2's.

    The key network is a moving average of the query's *parameters*; its batch-norm buffers follow from its own
    batches, and it always normalises by batch statistics (spec_fewshot §2.1, details 1 and 4). The keys' batch is
    shuffled over all ranks before it is normalised, so that query and key never share batch statistics; on one device
    use split batch norm (``network.batch_norm``), without which shuffling changes nothing.

    Args:
        network: its encoder makes the queries.
        query, key: names of the two views.
        head: ``mlp`` or ``linear``.
        hidden: width of the hidden layer; None takes the encoder's number of features.
        dim: length of query and key.
        queue_size: number of earlier keys, K.
        momentum: of the moving average, m in ``key = m * key + (1 - m) * query``.
        temperature: T.
    """

    called = ""  # the objective's name in a recipe

    queue: Tensor
    pointer: Tensor

    def __init__(
        self,
        network: Network,
        *,
        query: str = "query",
        key: str = "key",
        head: str = "mlp",
        hidden: int | None = None,
        dim: int = 128,
        queue_size: int = 65536,
        momentum: float = 0.999,
        temperature: float = 0.2,
    ):
        super().__init__()
        self.query, self.key = query, key
        if temperature <= 0 or not 0 <= momentum <= 1 or queue_size < 1 or dim < 1:
            raise ScanlearnError(
                f"{self.called} needs a temperature above 0, a momentum from 0 to 1, and a queue_size and dim of 1 or "
                f"more; it was given {temperature}, {momentum}, {queue_size} and {dim}."
            )
        self.momentum, self.temperature = momentum, temperature
        self.projector = projection_head(head, network.encoder.num_features, hidden, dim)
        self.key_encoder = copy.deepcopy(network.encoder).requires_grad_(False)
        self.key_projector = copy.deepcopy(self.projector).requires_grad_(False)
        self.register_buffer("queue", F.normalize(torch.randn(dim, queue_size), dim=0))
        self.register_buffer("pointer", torch.zeros(1, dtype=torch.long))
        self._query_modules = (network.encoder, self.projector)  # a tuple: not registered a second time

    def start(self, scans: int, batch_size: int) -> None:
        size = self.queue.shape[1]
        if size > scans:
            warn(
                f"the queue of {size:,} keys is longer than the {scans:,} training scans, so it holds several keys of each "
                f"scan as negatives; a quarter of the data, --objectives.{self.called}.queue_size {max(scans // 4, 1)}, "
                "is a good start."
            )

    def start_from(self, network: Network) -> None:
        self.key_encoder.load_state_dict(network.encoder.state_dict())

    def project(self, step: Step) -> Tensor:
        """Queries (N, dim) of unit length, float32, of the query's view."""
        return self.project_pooled(step.pooled(self.query))

    def project_pooled(self, pooled: Tensor) -> Tensor:
        """Queries (N, dim) of unit length, float32, of pooled features (N, num_features)."""
        return F.normalize(self.projector(pooled).float(), dim=1)

    @torch.no_grad()
    def encode_keys(self, shuffled: Tensor, order: Tensor) -> Tensor:
        """The key network's outputs (B, dim), float32 and not yet of unit length, for the global batch in its own order.

        ``shuffled`` are this rank's images of the global batch as put in ``order``, int64 (B,).
        """
        pooled = self.key_encoder(shuffled)[-1].flatten(2).mean(2)
        keys = gather(self.key_projector(pooled).float())
        return torch.empty_like(keys).index_copy_(0, order, keys)

    @torch.no_grad()
    def after_update(self) -> None:
        """One fused operation over all parameters. After the update here = before the key forward of the next step."""
        for query, key in zip(self._query_modules, (self.key_encoder, self.key_projector), strict=True):
            torch._foreach_lerp_(list(key.parameters()), list(query.parameters()), 1.0 - self.momentum)
