"""What an objective sees of one training step: named views and, computed once and remembered, what the network
makes of them. Several objectives that look at one view share one forward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from scanlearn.errors import ScanlearnError, unknown
from scanlearn.networks.network import Network
from scanlearn.randomness import Draws, permutation
from scanlearn.views.op import VIEWS


class Step:
    """One step: ``views`` name -> (N, C, *spatial) in [0, 1], and what their ops hand on, name.target -> int64 (N,);
    ``batch`` holds ``label``, ``mask``, ``row``, ``step``."""

    def __init__(self, network: Network, views: dict[str, Tensor], batch: dict[str, Any], seed: int = 0):
        self.network = network
        self.batch = batch
        self.logs: dict[str, Tensor] = {}
        self.opposed: list[Tensor] = []
        self._views = views
        self._seed = seed
        self._features: dict[str, list[Tensor]] = {}
        self._pooled: dict[str, Tensor] = {}
        self._restored: dict[str, Tensor] = {}
        self._aside: dict[str, dict[str, Tensor]] = {}

    def view(self, name: str) -> Tensor:
        """The view (N, C, *spatial); an unknown name is refused with the nearest known one."""
        if name not in self._views:
            raise unknown("view", name, self._views)
        return self._views[name]

    def target(self, view: str, name: str) -> Tensor:
        """What an op of the view did to each sample, int64 (N,), for example ``quarter_turns``.

        Refused, with the op to add, where no op of the view hands it on; views made from another do not inherit it.
        """
        key = f"{view}.{name}"
        if key in self._views:
            return self._views[key]
        self.view(view)
        makers = {op: target for op in VIEWS.names() if (target := getattr(VIEWS.get(op), "target", None)) is not None}
        ops = " or ".join(op for op, target in makers.items() if target == name)
        if not ops:
            raise unknown("target", name, makers.values())
        raise ScanlearnError(f"The view {view!r} has no target {name!r}: add the op {ops} to its ops in the recipe.")

    def features(self, view: str) -> list[Tensor]:
        """Feature maps of the view, fine to coarse."""
        if view not in self._features:
            self._features[view] = self.network.features(self.view(view))
        return self._features[view]

    def pooled(self, view: str) -> Tensor:
        """Global average of the coarsest map, (N, num_features)."""
        if view not in self._pooled:
            self._pooled[view] = self.features(view)[-1].flatten(2).mean(2)
        return self._pooled[view]

    def restored(self, view: str) -> Tensor:
        """The image that the decoder makes of the view, (N, channels, *spatial), before any activation."""
        return self.network.image_of(self.drawn(view))

    def segmented(self, view: str) -> Tensor:
        """The classes that the decoder draws of the view, (N, channels, *spatial), before any activation."""
        return self.network.classes_of(self.drawn(view))

    def drawn(self, view: str) -> Tensor:
        """All that the decoder draws of the view, (N, out_channels, *spatial)."""
        if view not in self._restored:
            if self.network.decoder is None:
                raise unknown("decoder", "none", ["unet", "unet_blocks"])
            decoder, size = self.network.decoder, self.view(view).shape[2:]
            more = (self._aside.setdefault(view, {}),) if decoder.aside else ()
            self._restored[view] = decoder(self.features(view), size, *more)
        return self._restored[view]

    def aside(self, view: str, name: str) -> Tensor:
        """What the decoder makes of the view beside its output, (N, channels, *spatial)."""
        self.drawn(view)
        if name not in self._aside.get(view, {}):
            raise unknown("output of the decoder", name, self._aside.get(view, {}))
        return self._aside[view][name]

    def log(self, name: str, value: Tensor) -> None:
        """Remember a number for the log; kept on the device, so it costs no synchronisation."""
        self.logs[name] = value.detach()

    def oppose(self, loss: Tensor) -> None:
        """Hand over the loss of an opponent, a scalar. It is taken as it is: no weight of the recipe stands before it."""
        self.opposed.append(loss)

    def permutation(self, count: int, salt: int = 0) -> Tensor:
        """The order in which this step shuffles the global batch: the same on every rank, new at every step."""
        order = permutation(self._seed + salt, int(self.batch["step"]), count)
        return torch.from_numpy(order).to(next(iter(self._views.values())).device)

    def draws(self, name: str) -> Draws:
        """Random streams of this rank's samples for one objective: independent of the views and of other names."""
        device = next(iter(self._views.values())).device
        return Draws.for_step(self._seed, int(self.batch["step"]), self.batch["position"], device).child(name)

    def uniform(self) -> float:
        """A number in [0, 1) that holds for the whole global batch: the same on every rank, new at every step."""
        return float(Draws.for_step(self._seed, int(self.batch["step"]), [-1]).uniform()[0])  # no sample is number -1
