"""Named views of a batch: from a recipe's ``views`` section to what the objectives get to see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from scanlearn.errors import ScanlearnError, nearest
from scanlearn.randomness import Draws
from scanlearn.views.boxes import move_boxes
from scanlearn.views.op import Op, build_op, move_labels

LEAST_LEFT = 0.25  # a box of which less is left inside the image is no finding that can be told there


class ViewGraph:
    """The views of a recipe, each made from the loaded image or from another view by a list of ops.

    ::

        clean:     {source: image, ops: [flip: {p: 0.4, mode: genesis}]}
        distorted: {source: clean, ops: [local_shuffle: {p: 0.5}, intensity_curve: {p: 0.9}]}
        key:       {like: query}       # the same source and ops as `query`, with its own random numbers

    ``source: image`` is always the image as loaded (the default); any other source is a view. Every view draws from
    ``draws.child(name)`` and every op of it from the child named by its place in the list, so adding a view changes
    no other view.

    An op with a target, such as ``labelled_turns``, hands on what it did beside its view, not beside the views made
    from it: ``rotated: {ops: [labelled_turns]}`` gives ``rotated`` and ``rotated.quarter_turns``, int64 (N,).

    >>> ViewGraph({"clean": {"ops": [{"flip": {"p": 0.5}}]}, "soft": {"source": "clean", "ops": ["clamp"]}}).names
    ['clean', 'soft']
    """

    def __init__(self, settings: Mapping[str, Any]):
        if not settings:
            raise ScanlearnError("The recipe names no views; give at least one, for example `image: {source: image}`.")
        written = {name: self._read(name, view, settings) for name, view in settings.items()}
        self.sources = {name: source for name, (source, _) in written.items()}
        self._order = self._sorted()
        self.ops: dict[str, list[Op]] = {name: [build_op(op) for op in written[name][1]] for name in settings}
        for name, ops in self.ops.items():
            targets = [op.target for op in ops if op.target is not None]
            if len(set(targets)) < len(targets):
                raise ScanlearnError(
                    f"The view {name!r} has two ops with the target {max(targets, key=targets.count)!r}; keep one."
                )

    @property
    def names(self) -> list[str]:
        """The names of the views, in the order of the recipe."""
        return list(self.ops)

    def __call__(
        self, image: Tensor, draws: Draws, mask: Tensor | None = None, boxes: Tensor | None = None
    ) -> dict[str, Tensor]:
        """All views of a batch: float (N, C, *spatial) in [0, 1] -> {name: (N, C', *spatial')}.

        After them come the targets of their ops, {view.target: int64 (N,)}. ``mask``, integer (N, 1, *spatial), follows
        the image into every view; that of the recipe's first view is returned as ``mask``, others as ``VIEW.mask``.
        ``boxes``, float (N, M, 2 * dims) as ``move_boxes`` takes them, follow it into the first view; one of which less
        than ``LEAST_LEFT`` stays inside is lost.
        """
        if len(draws) != len(image):
            raise ValueError(f"{len(image)} images but random streams for {len(draws)}")
        if draws.device != image.device:
            draws = Draws(draws.keys, image.device)
        made: dict[str, Tensor] = {}
        masks: dict[str, Tensor] = {}
        moved: dict[str, Tensor] = {}
        targets: dict[str, Tensor] = {}
        for name in self._order:
            source = self.sources[name]
            x, own = image if source == "image" else made[source], draws.child(name)
            followed = None if mask is None else (mask if source == "image" else masks[source])
            around = None if boxes is None else (boxes if source == "image" else moved[source])
            for i, op in enumerate(self.ops[name]):
                params = op.sample(x.shape, own.child(str(i)))
                if around is not None:
                    around = move_boxes(around, op, params, x.shape, LEAST_LEFT)
                x = op.replay(x, params)
                if followed is not None and op.moves:
                    followed = move_labels(followed, op, params)
                if op.target is not None:
                    targets[f"{name}.{op.target}"] = op.target_of(params)
            made[name] = x
            if followed is not None:
                masks[name] = followed
            if around is not None:
                moved[name] = around
        views = {**{name: made[name] for name in self.ops}, **targets}
        views |= {f"{name}.mask": masks[name] for name in self.names[1:] if name in masks}
        for kind, of_views in (("mask", masks), ("boxes", moved)):
            if of_views:
                views[kind] = of_views[self.names[0]]
        return views

    @staticmethod
    def _read(name: str, view: Any, settings: Mapping[str, Any]) -> tuple[str, list[Any]]:
        """(source, ops) of a view as written, ``like`` resolved."""
        if "." in str(name):
            raise ScanlearnError(f"The view {name!r} has a dot in its name; dots belong to targets, view.target.")
        if not isinstance(view, Mapping):
            raise ScanlearnError(
                f"The view {name!r} is written `{{source: ..., ops: [...]}}` or `{{like: ...}}`, not {view!r}."
            )
        for key in view:
            if key not in ("source", "ops", "like"):
                raise ScanlearnError(
                    f"The view {name!r} has no setting {key!r}{nearest(key, ('source', 'ops', 'like'))}"
                )
        if "like" not in view:
            return view.get("source", "image"), list(view.get("ops") or [])
        if len(view) > 1:
            raise ScanlearnError(
                f"The view {name!r} is like {view['like']!r}; it cannot have a source or ops of its own."
            )
        other = view["like"]
        if other not in settings:
            raise ScanlearnError(
                f"The view {name!r} is like {other!r}, which is no view{nearest(str(other), settings)}"
            )
        if "like" in settings[other]:
            raise ScanlearnError(
                f"The view {name!r} is like {other!r}, which is itself like another; name the first one."
            )
        return ViewGraph._read(other, settings[other], settings)

    def _sorted(self) -> list[str]:
        """The views in an order in which every source comes before the views made from it."""
        order: list[str] = []
        waiting = list(self.sources)
        while waiting:
            ready = [name for name in waiting if self.sources[name] == "image" or self.sources[name] in order]
            for name in () if ready else waiting:
                source = self.sources[name]
                if source not in self.sources:
                    known = [*self.sources, "image"]
                    raise ScanlearnError(
                        f"The view {name!r} has the source {source!r}, which is no view{nearest(source, known)}"
                    )
            if not ready:
                raise ScanlearnError(f"The views {', '.join(waiting)} are made from each other in a circle.")
            order += ready
            waiting = [name for name in waiting if name not in ready]
        return order


def is_image(name: str) -> bool:
    """Whether an entry of what a graph gives is a view: mask, boxes and targets ("rotated.quarter_turns") are none."""
    return name not in ("mask", "boxes") and "." not in name
