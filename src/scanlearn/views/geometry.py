"""Ops that turn or mirror the image."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from scanlearn.errors import ScanlearnError
from scanlearn.randomness import Draws
from scanlearn.views.op import VIEWS, Op, Params


def mirror(x: Tensor, mirrored: Tensor) -> Tensor:
    """x (N, C, *spatial) with the axes marked in ``mirrored``, bool (N, dims), reversed sample by sample."""
    axes = [tuple(axis + 1 for axis, yes in enumerate(row) if yes) for row in mirrored.tolist()]
    if not any(axes):
        return x
    return torch.stack([image.flip(a) if a else image for image, a in zip(x, axes, strict=True)])


@VIEWS.register("flip")
class Flip(Op):
    """Mirror the image.

    ``mode: axes`` mirrors each of ``axes`` (default: all spatial axes; -1 is the last one, left-right in a picture)
    with probability ``p``. ``mode: genesis`` does up to three rounds, each following the one before with probability
    ``p``, that mirror one of ``axes``; ``legacy_axes`` counts the axes as the published code does, from the channel
    axis, so that a third of the rounds do nothing and the third spatial axis is never mirrored.
    """

    moves = True

    def __init__(
        self, p: float = 0.5, axes: Sequence[int] | None = None, mode: str = "axes", legacy_axes: bool = False
    ):
        super().__init__()
        if mode not in ("axes", "genesis") or not 0.0 <= p <= 1.0:
            raise ScanlearnError(f"flip: mode is axes or genesis (not {mode!r}) and p a probability (not {p}).")
        if legacy_axes and (mode != "genesis" or axes is not None):
            raise ScanlearnError("flip: legacy_axes belongs to `mode: genesis` and takes no axes.")
        self.probability, self.axes, self.mode, self.legacy_axes = p, axes, mode, legacy_axes

    def _choices(self, dims: int) -> list[int]:
        if self.legacy_axes:
            return [-1, 0, 1]  # array axes 0, 1, 2; the first is the channel
        axes = range(dims) if self.axes is None else self.axes
        if not all(-dims <= axis < dims for axis in axes):
            raise ScanlearnError(
                f"flip: axes {list(axes)} do not fit an image with {dims} spatial axes, counted from 0."
            )
        return sorted({axis % dims for axis in axes})

    def draw(self, shape: Sequence[int], draws: Draws) -> Params:
        dims = len(shape) - 2
        choices = self._choices(dims)
        axes = torch.arange(dims, device=draws.device)
        if self.mode == "axes":
            hit = draws.bernoulli(self.probability, dims)
            return {"mirrored": hit & torch.isin(axes, torch.tensor(choices, device=draws.device))}
        u = draws.uniform(2, 3)
        rounds = (u[:, 0] < self.probability).int().cumprod(1)  # a round happens only if all before it did
        picked = torch.tensor(choices, device=draws.device)[(u[:, 1] * len(choices)).long()]
        hits = ((picked[..., None] == axes) * rounds[..., None]).sum(1)
        return {"mirrored": hits % 2 == 1}

    def apply(self, x: Tensor, params: Params) -> Tensor:
        return mirror(x, params["mirrored"])


@VIEWS.register("rotate")
class Rotate(Op):
    """Turn the image about its centre by an angle uniform in +-``degrees``, in the plane of the first two spatial axes.

    ``interpolation`` is linear or nearest; what comes from outside the image is ``fill``. In 3D every slice along the
    last axis is turned by the same angle. Voxels are taken as square in that plane.
    """

    moves = True

    def __init__(self, degrees: float = 10.0, interpolation: str = "linear", fill: float = 0.0, p: float = 1.0):
        super().__init__(p)
        if interpolation not in ("linear", "nearest"):
            raise ScanlearnError(f"rotate: interpolation is linear or nearest, not {interpolation!r}.")
        self.degrees, self.interpolation, self.fill = degrees, interpolation, fill
        self.keeps_unit_range = 0.0 <= fill <= 1.0

    def draw(self, shape: Sequence[int], draws: Draws) -> Params:
        limit = math.radians(self.degrees)
        return {"angle": draws.uniform(low=-limit, high=limit)}

    def apply(self, x: Tensor, params: Params) -> Tensor:
        shape, dtype = x.shape, x.dtype
        if x.dim() == 5:
            x = x.movedim(-1, 2).flatten(1, 2)  # (N, C * Z, X, Y)
        height, width = x.shape[2:]
        angle = params["angle"].to(dtype)
        cos, sin = torch.cos(angle)[:, None, None], torch.sin(angle)[:, None, None]
        # Pixel centres relative to the image's centre, turned, then in grid_sample's units.
        row = (torch.arange(height, device=x.device, dtype=dtype) - (height - 1) / 2)[None, :, None]
        column = (torch.arange(width, device=x.device, dtype=dtype) - (width - 1) / 2)[None, None, :]
        grid = torch.stack(
            [(cos * column - sin * row) * (2 / width), (sin * column + cos * row) * (2 / height)], dim=-1
        )
        mode = "bilinear" if self.interpolation == "linear" else "nearest"
        turned = F.grid_sample(x - self.fill, grid, mode=mode, padding_mode="zeros", align_corners=False) + self.fill
        if len(shape) == 5:
            turned = turned.unflatten(1, (shape[1], shape[4])).movedim(2, -1).contiguous()
        return turned


@VIEWS.register("quarter_turns")
class QuarterTurns(Op):
    """A random symmetry of the square or cube: quarter turns and, with ``mirror``, flips; all equally probable.

    Only ``axes`` (default: all spatial axes) take part, and only axes of equal length change places, so a 64x64x32 cube
    keeps its shape. A 64x64 image has 8 (4 without ``mirror``), a 64x64x32 cube 16 (8), a 64x64x64 cube 48 (24).
    """

    moves = True

    def __init__(self, axes: Sequence[int] | None = None, mirror: bool = True, p: float = 1.0):
        super().__init__(p)
        self.axes, self.mirror = axes, mirror

    def _symmetries(self, spatial: Sequence[int]) -> list[tuple[tuple[int, ...], tuple[bool, ...]]]:
        """All (axis order, mirrored axes) that keep the shape."""
        dims = len(spatial)
        axes = range(dims) if self.axes is None else [a % dims for a in self.axes if -dims <= a < dims]
        if self.axes is not None and len(set(axes)) != len(self.axes):
            raise ScanlearnError(f"quarter_turns: axes {list(self.axes)} do not fit an image with {dims} spatial axes.")
        orders = [
            order
            for order in itertools.permutations(range(dims))
            if all(spatial[a] == spatial[b] and (a == b or (a in axes and b in axes)) for a, b in enumerate(order))
        ]
        flips = list(itertools.product(*((False, True) if a in axes else (False,) for a in range(dims))))
        return [(order, flip) for order in orders for flip in flips if self.mirror or _is_rotation(order, flip)]

    def draw(self, shape: Sequence[int], draws: Draws) -> Params:
        return {"symmetry": draws.integers(0, len(self._symmetries(shape[2:])) - 1)}

    def apply(self, x: Tensor, params: Params) -> Tensor:
        symmetries = self._symmetries(x.shape[2:])
        images = []
        for image, which in zip(x, params["symmetry"].tolist(), strict=True):
            order, flip = symmetries[which]
            turned = image.permute(0, *(a + 1 for a in order))
            images.append(turned.flip([a + 1 for a, yes in enumerate(flip) if yes]))
        return torch.stack(images)


def _is_rotation(order: Sequence[int], flip: Sequence[bool]) -> bool:
    """Whether axis order and flips together keep the handedness (determinant +1)."""
    swaps = sum(a > b for a, b in itertools.combinations(order, 2))
    return (swaps + sum(flip)) % 2 == 0


@VIEWS.register("labelled_turns")
class LabelledTurns(Op):
    """Turn the image by quarter turns about one axis and hand on which turn it was, as the target ``quarter_turns``.

    2D has four classes: 0, 1, 2 and 3 quarter turns, the first axis towards the second. 3D has ten: 0 is the image
    itself and 1 + 3a + (t - 1) are t = 1, 2, 3 turns about axis a, which take axis a + 1 towards a + 2 (cyclically).
    A class has the same number whatever the shape, and all classes that keep the shape are equally probable: six in a
    64x64x32 cube, ten in a 64x64x64 one.

    Source: Gidaris et al., "Unsupervised Representation Learning by Predicting Image Rotations", ICLR 2018; in 3D the
    ten of Taleb et al., "3D Self-Supervised Methods for Medical Imaging", NeurIPS 2020.
    """

    moves = True
    target = "quarter_turns"

    @staticmethod
    def plane(turn: int, dims: int) -> tuple[int, tuple[int, int]]:
        """The number of quarter turns of class ``turn`` and the axes they turn, first towards second."""
        if dims == 2 or turn == 0:
            return turn, (0, 1)
        axis, turns = divmod(turn - 1, 3)
        return turns + 1, ((axis + 1) % 3, (axis + 2) % 3)

    def classes(self, spatial: Sequence[int]) -> list[int]:
        """The classes that keep this shape."""
        dims = len(spatial)
        planes = {turn: self.plane(turn, dims) for turn in range(4 if dims == 2 else 10)}
        return [turn for turn, (turns, (a, b)) in planes.items() if turns % 2 == 0 or spatial[a] == spatial[b]]

    def draw(self, shape: Sequence[int], draws: Draws) -> Params:
        classes = torch.tensor(self.classes(shape[2:]), device=draws.device)
        return {"quarter_turns": classes[draws.integers(0, len(classes) - 1)]}

    def apply(self, x: Tensor, params: Params) -> Tensor:
        images = []
        for image, turn in zip(x, params["quarter_turns"].tolist(), strict=True):
            turns, (a, b) = self.plane(turn, x.dim() - 2)
            images.append(torch.rot90(image, turns, (a + 1, b + 1)) if turns else image)
        return torch.stack(images)
