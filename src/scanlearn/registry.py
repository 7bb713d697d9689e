"""Tables of named parts (views, encoders, decoders, objectives): the names that recipes use."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from scanlearn.errors import ScanlearnError, nearest, unknown


class Registry:
    """Named constructors of one kind. The settings a part takes are its constructor's parameters, nothing else.

    ``modules`` are imported on first use, so that naming a part costs nothing until one is built.

    >>> shapes = Registry("shape")
    >>> @shapes.register("square")
    ... class Square:
    ...     def __init__(self, side: float = 1.0): self.side = side
    >>> shapes.build("square", {"side": 2.0}).side
    2.0
    """

    def __init__(self, kind: str, modules: tuple[str, ...] = ()):
        self.kind = kind
        self._modules = modules
        self._parts: dict[str, Callable[..., Any]] = {}

    def register(self, name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Decorator: make a class or function buildable under ``name``."""

        def add(part: Callable[..., Any]) -> Callable[..., Any]:
            if self._parts.get(name, part) is not part:
                raise ValueError(f"two parts of kind {self.kind} are called {name!r}")
            self._parts[name] = part
            return part

        return add

    def names(self) -> list[str]:
        """All registered names, sorted."""
        self._load()
        return sorted(self._parts)

    def get(self, name: str) -> Callable[..., Any]:
        """The constructor called ``name``; an unknown name is refused with the nearest known one."""
        self._load()
        if name not in self._parts:
            raise unknown(self.kind, name, self._parts)
        return self._parts[name]

    def settings(self, name: str) -> dict[str, inspect.Parameter]:
        """The settings that the part takes, as the keyword parameters of its constructor."""
        parameters = inspect.signature(self.get(name)).parameters.values()
        return {p.name: p for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}

    def build(self, name: str, settings: dict[str, Any] | None = None, *args: Any) -> Any:
        """Construct the part; a setting it does not have is refused with the nearest one that it has."""
        part, settings = self.get(name), settings or {}
        known = self.settings(name)
        for key in settings:
            if key not in known:
                raise ScanlearnError(f"The {self.kind} {name!r} has no setting {key!r}{nearest(key, known)}")
        return part(*args, **settings)

    def _load(self) -> None:
        for module in self._modules:
            importlib.import_module(module)
