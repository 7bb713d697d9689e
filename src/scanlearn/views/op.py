"""What every view op has in common, the table of their names, and ``one_of``, which chooses among ops.

An op is split in two. ``draw`` holds all randomness: for a batch of shape (N, C, *spatial) it returns small tensors
whose first axis is N. ``apply`` is pure: the same image and the same parameters give the same result, on any device. So
a batch gives what its samples give alone, and parameters can be kept and replayed, for example on a mask.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from scanlearn.errors import ScanlearnError
from scanlearn.randomness import Draws
from scanlearn.registry import Registry

Params = dict[str, Tensor]

VIEWS = Registry(
    "view op",
    (
        "scanlearn.views.crop",
        "scanlearn.views.geometry",
        "scanlearn.views.scale",
        "scanlearn.views.intensity",
        "scanlearn.views.colour",
        "scanlearn.views.curve",
        "scanlearn.views.distort",
        "scanlearn.views.swap",
        "scanlearn.views.elastic",
        "scanlearn.views.paint",
        "scanlearn.views.cut_out",
    ),
)


class Op:
    """Base of all view ops on float images x (N, C, *spatial) with values in [0, 1]; x is never modified.

    ``p`` is the probability that a sample is changed; the others are passed through and cost nothing.
    """

    keeps_shape = True  # the result has the shape of the input
    keeps_unit_range = True  # values in [0, 1] stay there, to rounding
    moves = False  # anatomy changes its place, so a mask has to follow
    target: str | None = None  # which of the parameters, int64 (N,), is something to predict and goes to objectives

    def __init__(self, p: float = 1.0):
        if not 0.0 <= p <= 1.0:
            raise ScanlearnError(f"{type(self).__name__}: p is a probability, {p} is not in 0..1.")
        self.p = p

    def draw(self, shape: Sequence[int], draws: Draws) -> Params:
        """All the randomness for a batch of this shape: tensors with first axis N."""
        return {}

    def apply(self, x: Tensor, params: Params) -> Tensor:
        """The op itself on every sample, a pure function."""
        raise NotImplementedError

    def sample(self, shape: Sequence[int], draws: Draws) -> Params:
        """``draw`` and, for p < 1, which samples are chosen (``chosen``, bool (N,))."""
        if self.p == 1.0:
            return self.draw(shape, draws)
        chosen = draws.bernoulli(self.p)
        drawn = self.draw(shape, draws) if bool(chosen.any()) else {}
        return {"chosen": chosen, **drawn}

    def replay(self, x: Tensor, params: Params) -> Tensor:
        """``apply`` on the chosen samples only. Returns x itself where nothing was chosen."""
        if "chosen" not in params:
            return self.apply(x, params)
        return apply_to(x, [(params["chosen"], self, {k: v for k, v in params.items() if k != "chosen"})])

    def target_of(self, params: Params) -> Tensor:
        """What ``target`` names, int64 (N,), for each sample; 0 for those that were not chosen."""
        if self.target is None:
            raise ValueError(f"{type(self).__name__} has no target")
        chosen = params.get("chosen")
        if chosen is None:
            return params[self.target]
        drawn = params.get(self.target, torch.zeros((), dtype=torch.int64, device=chosen.device))
        return torch.where(chosen, drawn, 0)

    def __call__(self, x: Tensor, draws: Draws) -> Tensor:
        return self.replay(x, self.sample(x.shape, draws))

    def __repr__(self) -> str:
        settings = ", ".join(f"{k}={v!r}" for k, v in vars(self).items() if not k.startswith("_"))
        return f"{type(self).__name__}({settings})"


def apply_to(x: Tensor, choices: Sequence[tuple[Tensor, Op, Params]]) -> Tensor:
    """x with each op done to its rows, bool (N,), no row in two choices. Returns x itself if no row is chosen."""
    images: list[Tensor] | None = None
    for rows, op, params in choices:
        which = rows.nonzero()[:, 0]
        if len(which) == len(x):
            return op.apply(x, params)
        if len(which) > 0:
            part = {name: value.index_select(0, which) for name, value in params.items()}
            changed = op.apply(x.index_select(0, which), part)
            images = images or list(x.unbind())
            for row, image in zip(which.tolist(), changed.unbind(), strict=True):
                images[row] = image
    return x if images is None else torch.stack(images)  # one copy, where indexed assignment makes two slow ones


def move_labels(mask: Tensor, op: Op, params: Params) -> Tensor:
    """A label map, integer (N, 1, *spatial), moved as ``op`` with these parameters moves its image.

    Every class is moved as an image of 0 and 1, and each voxel takes the class with the largest share there; what comes
    from outside the image is background.
    """
    if isinstance(op, OneOf):
        raise ScanlearnError("A mask cannot follow one_of with ops that move the image; write those ops one by one.")
    shares = F.one_hot(mask[:, 0].long(), int(mask.max()) + 1).movedim(-1, 1).float()
    moved = op.replay(shares, params)
    moved[:, 0] += (1 - moved.sum(dim=1)).clamp(min=0)  # the share from outside
    return moved.argmax(dim=1, keepdim=True).to(mask.dtype)


def build_op(spec: str | Mapping[str, Any]) -> Op:
    """One op from its place in a recipe: ``name`` or ``{name: {setting: value}}``."""
    if isinstance(spec, str):
        return VIEWS.build(spec)
    if not isinstance(spec, Mapping) or len(spec) != 1:
        raise ScanlearnError(f"A view op is written as a name or as one `name: {{settings}}`, not as {spec!r}.")
    ((name, settings),) = spec.items()
    if settings is not None and not isinstance(settings, Mapping):
        raise ScanlearnError(
            f"The settings of the view op {name!r} are written `{{setting: value}}`, not {settings!r}."
        )
    return VIEWS.build(name, dict(settings or {}))


@VIEWS.register("one_of")
class OneOf(Op):
    """Each sample gets one of ``ops``, chosen with probabilities in proportion to ``weights`` (default: equal).

    The ops must keep the shape of their input.
    """

    def __init__(self, ops: Sequence[Any], weights: Sequence[float] | None = None, p: float = 1.0):
        super().__init__(p)
        self.ops = [build_op(spec) for spec in ops]
        self.weights = [1.0] * len(self.ops) if weights is None else [float(w) for w in weights]
        if not self.ops or len(self.weights) != len(self.ops) or min(self.weights) < 0 or sum(self.weights) <= 0:
            raise ScanlearnError(f"one_of needs one weight >= 0 for each op: {len(self.ops)} ops, weights {weights}.")
        if not all(op.keeps_shape for op in self.ops):
            raise ScanlearnError("one_of can only choose among ops that keep the shape of the image.")
        if named := [spec for spec, op in zip(ops, self.ops, strict=True) if op.target is not None]:
            raise ScanlearnError(f"one_of cannot hand on what {named[0]!r} did; write that op outside of it.")
        self.keeps_unit_range = all(op.keeps_unit_range for op in self.ops)
        self.moves = any(op.moves for op in self.ops)

    def draw(self, shape: Sequence[int], draws: Draws) -> Params:
        u = draws.uniform() * sum(self.weights)
        choice = torch.zeros(len(u), dtype=torch.int64, device=u.device)
        for edge in list(itertools.accumulate(self.weights))[:-1]:
            choice += u >= edge
        params = {"choice": choice}
        for i, op in enumerate(self.ops):
            if bool((choice == i).any()):
                drawn = op.sample(shape, draws.child(str(i)))
                params.update({f"{i}.{name}": value for name, value in drawn.items()})
        return params

    def apply(self, x: Tensor, params: Params) -> Tensor:
        choices = []
        for i, op in enumerate(self.ops):
            own = {k.removeprefix(f"{i}."): v for k, v in params.items() if k.startswith(f"{i}.")}
            rows = params["choice"] == i
            choices.append((rows & own.pop("chosen") if "chosen" in own else rows, op, own))
        return apply_to(x, choices)
