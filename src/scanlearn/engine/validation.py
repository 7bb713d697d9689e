"""What a pre-training on words is judged by: its own objectives on the words of patients it does not train on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from scanlearn.engine.learner import Learner, weights_at
from scanlearn.engine.recipe import Recipe
from scanlearn.engine.stopping import Validate
from scanlearn.engine.train import Views
from scanlearn.errors import ScanlearnError
from scanlearn.objectives.ranks import world_size
from scanlearn.scans.loader import Loader
from scanlearn.scans.store import Store
from scanlearn.scans.words import Words


def words_figure(recipe: Recipe, store: Store, words: Words, seed: int) -> Validate:
    """The weighted sum of the recipe's objectives, with the weights of its last stage, over the validation words.

    The crops are distorted as in training (spec_genesis §1.2), but in the same way at every validation, so that two
    figures differ by the weights alone. Crops beyond the last whole batch are left out.

    Raises:
        ScanlearnError: a table without validation words; several ranks, as objectives may wait for each other there.
    """
    patches = words.patches("val")
    if len(patches) == 0:
        raise ScanlearnError("The table has no words of validation patients: discover them, or set --stopping.every 0.")
    if world_size() > 1:
        raise ScanlearnError("Pre-training is validated on one rank only: train on one, or set --stopping.every 0.")
    size = min(recipe.batch_size // recipe.accumulate, len(patches))
    shape = None if recipe.size is None else tuple(recipe.size)

    def figure(learner: Learner) -> float:
        device = next(learner.parameters()).device
        views = Views(recipe, store, seed, device, torch.contiguous_format)
        weights = weights_at(recipe, recipe.steps - 1)
        losses: list[Tensor] = []
        walk: dict[str, Any] = {"batch_size": size, "size": shape, "seed": seed, "stop": len(patches) // size}
        for batch in Loader(store, patches.rows, patches=patches, **walk):
            made = views(batch)
            losses.append(learner(made, batch, weights)[0])
        return float(torch.stack(losses).mean())

    return figure
