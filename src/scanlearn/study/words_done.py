"""How words were discovered, as a table, and the commands that repeat it and go on from it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from scanlearn.scans.words import Words
from scanlearn.study.commands import line
from scanlearn.study.page import Cell, Command, Table

NOT_TOLD = ("recurrence", "points", "checked")  # told elsewhere on the page
MOST_VALUES = 8  # of a list
# The settings that are options of the same name.
OPTIONS = (
    *("neighbours", "neighbours_val", "classes", "size", "extra_crops", "reference", "coordinate_space", "small"),
    *("margins", "apart", "tries", "per_patient", "seed"),
)


def settings_table(settings: Mapping[str, Any]) -> Table:
    """How the words were discovered; a path goes by its last part, as paths name people and places."""
    told = {key: value for key, value in settings.items() if key not in NOT_TOLD}
    rows: list[list[Cell]] = [[key.replace("_", " "), shown(value)] for key, value in flattened(told)]
    return Table("How the words were discovered", ["setting", "value"], rows, words=True)


def flattened(settings: Mapping[str, Any], above: str = "") -> list[tuple[str, Any]]:
    """Nested settings as (key.key, value)."""
    found: list[tuple[str, Any]] = []
    for key, value in settings.items():
        found += flattened(value, f"{above}{key}.") if isinstance(value, Mapping) else [(f"{above}{key}", value)]
    return found


def shown(value: Any) -> str:
    """A setting as a person reads it."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, list | tuple):
        text = ", ".join(map(shown, value[:MOST_VALUES]))
        return text if len(value) <= MOST_VALUES else f"{text}, … ({len(value):,} values)"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value):
        return f"{value[:12]}…"
    return re.split(r"[/\\]", value.rstrip("/\\"))[-1] if isinstance(value, str) else str(value)


def repeat(words: Words) -> Command:
    """The command that discovers the same words again; the descriptors come from what the words keep or name."""
    name, told = words.folder.resolve().name, words.settings
    options = {key.replace("_", "-"): _word(told[key]) for key in OPTIONS if key in told and _asked(key, told[key])}
    tissue, described = _mapping(told.get("tissue")), _mapping(told.get("descriptors"))
    source = described.get("from")
    if "name" in tissue:
        options["tissue"] = tissue["name"]
    if source == "autoencoder":
        options["autoencoder"] = f"{name}/autoencoder/recipe.yaml"
    elif source == "encoder":
        options["encoder"] = described["name"]
    why = "The descriptors were an array, which only Python can give: descriptors=ARRAY." if source == "array" else ""
    return Command(line("discover", "STORE", out=f"{name}-again", **options), why)


def _asked(key: str, value: Any) -> bool:
    return not (key == "neighbours_val" and value == 0)  # there was no validation part


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _word(value: Any) -> str:
    if value is None:  # per_patient: rows are units of their own
        return "0"
    return value if isinstance(value, str) else json.dumps(value)


def missing_command(words: Words) -> Command:
    """What a page without the store lacks, and what adds it."""
    text = line("report", words.folder.resolve().name, store="STORE")
    return Command(text, "The page was written without the store, so it lacks the crops; this adds them:")


def next_step(words: Words) -> Command:
    """What to do with the words."""
    name = words.folder.resolve().name
    recipe = f"semantic_genesis_{len(words.size)}d_small"
    text = line("pretrain", "STORE", recipe=recipe, words=name, out=f"runs/{recipe}")
    return Command(text, "Learn from these words and from restoring (Semantic Genesis, small):")
