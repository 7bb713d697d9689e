"""Recipes as files: names of packaged ones, YAML of unknown origin read within bounds, and what ``base`` fills in."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from scanlearn.errors import ScanlearnError, unknown
from scanlearn.files import read_bounded

YAML_BYTES = 256 << 10  # the longest packaged recipe has 2 kB
DEPTH = 24
BASES = 8


class _Loader(yaml.SafeLoader):
    """Plain data only, no deeper than ``DEPTH``, and no aliases: a few lines of them stand for gigabytes."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not read, write the settings out")
        self.depth += 1
        if self.depth > DEPTH:
            raise yaml.YAMLError(f"it is nested deeper than {DEPTH} levels")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package."""
    folder = resources.files("scanlearn") / "recipes"
    return sorted(entry.name[: -len(".yaml")] for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """A mapping from YAML text; anything else is refused in one sentence that begins with ``where``."""
    try:
        data = yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError, LookupError, TypeError, AttributeError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ScanlearnError(f"{where} is not a readable YAML file: {why}") from error
    if not isinstance(data, dict):
        raise ScanlearnError(f"{where} must hold a mapping of settings, not a {type(data).__name__}.")
    return data


def read_yaml(path: Path, where: str) -> dict[str, Any]:
    """``parse_yaml`` of a file."""
    return parse_yaml(read_bounded(path, where, YAML_BYTES), where)


def recipe_dict(name_or_path: str | Path) -> dict[str, Any]:
    """The settings of a packaged recipe (by name) or of a YAML file (by path), with what its ``base`` says."""
    return _recipe_dict(str(name_or_path), None, ())


def with_base(data: dict[str, Any]) -> dict[str, Any]:
    """Fill in from the packaged recipe named under ``base``: mappings are merged, everything else is replaced.

    A part that is named anew (``name``) starts from its own defaults, not from the other part's settings, and so does a
    view that was ``like`` another one and now has ops of its own. ``null`` takes an objective or a view of the base away.
    """
    return _with_base(data, None, ())


def _recipe_dict(name: str, beside: Path | None, seen: tuple[str, ...]) -> dict[str, Any]:
    """``beside`` is the folder of the recipe whose base this is; ``seen`` are the recipes that led here."""
    if name.endswith((".yaml", ".yml")):
        path = Path(name) if beside is None else beside / name
        if not path.is_file():
            raise ScanlearnError(f"There is no recipe file {path}.")
        where, key = f"Recipe {path}", str(path.resolve())
        data, folder = read_yaml(path, where), path.parent
    elif name in recipe_names():
        path = Path(str(resources.files("scanlearn") / "recipes" / f"{name}.yaml"))
        key, data, folder = name, read_yaml(path, f"Recipe {name}"), path.parent
    else:
        raise unknown("recipe", name[:200], recipe_names())
    if key in seen or len(seen) >= BASES:
        raise ScanlearnError(f"Recipe {name} is its own base, by way of others: take one base out.")
    return _with_base(data, folder, (*seen, key))


def _with_base(data: dict[str, Any], beside: Path | None, seen: tuple[str, ...]) -> dict[str, Any]:
    if "base" not in data:
        return data
    base = data["base"]
    # A recipe from elsewhere must not make this machine open any file that it likes.
    if not isinstance(base, str) or Path(base).name != base:
        raise ScanlearnError(
            f"The base {str(base)[:200]!r} must be the name of a packaged recipe or of a YAML file in the same folder."
        )
    if beside is None and base.endswith((".yaml", ".yml")):
        raise ScanlearnError(f"The base {base!r} is a file, but the recipe is none: name a packaged recipe.")
    found = _recipe_dict(base, beside, seen)
    return {**found, **{k: _merge(found.get(k), v) for k, v in data.items() if k != "base"}}


def _merge(old: Any, new: Any) -> Any:
    if not isinstance(old, dict) or not isinstance(new, dict) or new.get("name", old.get("name")) != old.get("name"):
        return new
    if "like" in old and ("ops" in new or "source" in new):
        return new
    return {**old, **{key: _merge(old.get(key), value) for key, value in new.items()}}
