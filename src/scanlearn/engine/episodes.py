"""Episodic training: a recipe's episodes, the base classes that they are drawn from, and what follows for its batches.

Source: Snell, Swersky, Zemel, "Prototypical networks for few-shot learning", NIPS 2017 (spec_fewshot §3).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from scanlearn.console import say
from scanlearn.errors import ScanlearnError
from scanlearn.scans.episodes import EpisodeWalk, groups_of
from scanlearn.scans.store import Store

if TYPE_CHECKING:
    from scanlearn.engine.recipe import Recipe

OBJECTIVE = "prototypes"
FEWEST = 3  # base classes


@dataclass
class EpisodeSettings:
    """What a batch is made of, instead of single scans. It fixes the recipe's batch_size."""

    ways: int  # classes of an episode
    shots: int  # labelled scans of each class, each of another patient
    queries: int  # scans of each class that are asked about, of none of these patients
    per_step: int = 1  # episodes of a step; ranks share them, each whole, with a batch norm of its own
    target: str | None = None  # label column, --target
    classes: list[str] | None = None  # the base classes, --classes; null: all


def settle_episodes(recipe: Recipe) -> None:
    """Set batch size, batch norm and objective of a recipe by its episodes; refuse what does not go with them."""
    episodes = recipe.episodes
    if episodes is None:
        return
    if OBJECTIVE not in recipe.objectives:
        raise ScanlearnError(
            f"Recipe {recipe.name!r} has episodes, but no objective {OBJECTIVE!r} that learns from them."
        )
    for name, used in {
        "patches: words": recipe.patches == "words",
        "sampling": recipe.sampling is not None,
        "stopping.every": recipe.stopping.every > 0,
        "stages": bool(recipe.stages),
        "network.batch_norm: sync": recipe.network.batch_norm == "sync",
    }.items():
        if used:
            raise ScanlearnError(
                f"Recipe {recipe.name!r} learns from episodes, which {name} does not go with: leave it out."
            )
    if episodes.per_step % recipe.accumulate:
        raise ScanlearnError(
            f"A step of {episodes.per_step} episodes cannot be cut into {recipe.accumulate} parts: set episodes.per_step "
            "to a multiple of accumulate."
        )
    recipe.objectives[OBJECTIVE] |= {name: getattr(episodes, name) for name in ("ways", "shots", "queries")}
    recipe.batch_size = episodes.per_step * episodes.ways * (episodes.shots + episodes.queries)
    recipe.network.batch_norm, recipe.network.batch_norm_groups = "split", episodes.per_step // recipe.accumulate


def name_classes(recipe: Recipe, target: str | None, classes: list[str] | None) -> None:
    """Put what ``--target`` and ``--classes`` say into the recipe; refuse them, or the objective, without episodes."""
    if recipe.episodes is None and OBJECTIVE in recipe.objectives:
        raise ScanlearnError(
            f"The objective {OBJECTIVE!r} learns from episodes: give recipe {recipe.name!r} `episodes`, such as "
            "{ways: 5, shots: 5, queries: 15}."
        )
    if target is None and classes is None:
        return
    if recipe.episodes is None:
        raise ScanlearnError(f"Recipe {recipe.name!r} learns without labels: leave --target and --classes out.")
    recipe.episodes = replace(
        recipe.episodes, target=target or recipe.episodes.target, classes=classes or recipe.episodes.classes
    )


def episodes_of(recipe: Recipe, store: Store, rows: np.ndarray, seed: int) -> tuple[np.ndarray, EpisodeWalk]:
    """(those of ``rows`` that are of a base class, the walk over them in episodes).

    Raises:
        ScanlearnError: no label column, one that holds no classes, fewer than three base classes, or too few scans.
    """
    settings = recipe.episodes
    assert settings is not None
    if settings.target is None:
        columns = ", ".join(store.catalog.label_columns) or "none"
        raise ScanlearnError(
            f"Recipe {recipe.name!r} learns to tell classes apart: say which label column with --target; the store has: "
            f"{columns}."
        )
    labels = store.catalog.labels(settings.target)
    if labels.kind != "class":
        raise ScanlearnError(f"The column {settings.target!r} holds a {labels.kind}; episodes need one class a scan.")
    names = list(dict.fromkeys(settings.classes or labels.classes))
    codes = labels.only(names).codes[rows]
    if len(names) < FEWEST:
        raise ScanlearnError(
            f"Episodes of {len(names)} base classes ({', '.join(names)}) are always the same task, which `finetune` learns: "
            f"episodic training wants {FEWEST} or more, and others to diagnose later; pre-train without labels instead."
        )
    rows, codes = rows[codes >= 0], codes[codes >= 0]
    others = [name for name in labels.classes if name not in names]
    say(f"base classes: {', '.join(names)}; not seen: {', '.join(others) or 'none, so that none will be new'}.")
    sizes = {name: getattr(settings, name) for name in ("ways", "shots", "queries")}
    return rows, EpisodeWalk(codes, groups_of(store)[rows], names, seed=seed, **sizes)
