"""What a pre-training is judged by: its own objectives on the scans, or words, of patients it does not train on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from scanlearn.engine.learner import Learner
from scanlearn.engine.masks import learns_from_masks
from scanlearn.engine.recipe import Recipe
from scanlearn.engine.stopping import Validate
from scanlearn.engine.train import Views
from scanlearn.errors import ScanlearnError
from scanlearn.objectives.ranks import world_size
from scanlearn.scans.loader import Loader
from scanlearn.scans.store import Store
from scanlearn.scans.words import Words


def held_out_figure(recipe: Recipe, store: Store, words: Words | None, seed: int) -> Validate:
    """The weighted sum of the recipe's objectives over the validation scans, or over the validation words of a table.

    The weights are those of the last stage before the next one that begins anew. Scans and crops are distorted as in
    training (spec_genesis §1.2, spec_dira §1.7), but in the same way at every validation, so that two figures differ by
    the weights alone. Those beyond the last whole batch are left out. Where the recipe learns from masks, those of the
    validation scans are seen, as in fine-tuning.

    Raises:
        ScanlearnError: no validation scans or words; several ranks, as objectives may wait for each other there.
    """
    patches = None if words is None else words.patches("val")
    rows = np.asarray(store.splits["val"]) if patches is None else patches.rows
    if len(rows) == 0:
        what = "The store has no validation scans: prepare it with some"
        if words is not None:
            what = "The table has no words of validation patients: discover them"
        raise ScanlearnError(f"{what}, or set --stopping.every 0.")
    if world_size() > 1:
        raise ScanlearnError("Pre-training is validated on one rank only: train on one, or set --stopping.every 0.")
    size = min(recipe.batch_size // recipe.accumulate, len(rows))
    shape = None if recipe.size is None else tuple(recipe.size)

    def figure(learner: Learner) -> float:
        device = next(learner.parameters()).device
        views = Views(recipe, store, seed, device, torch.contiguous_format)
        losses: list[Tensor] = []
        walk: dict[str, Any] = {"batch_size": size, "size": shape, "seed": seed, "stop": len(rows) // size}
        if learns_from_masks(recipe):
            walk |= {"masks": True, "labelled": np.asarray(store.masked)}
        for batch in Loader(store, rows, patches=patches, **walk):
            made = views(batch)
            losses.append(learner(made, batch, learner.judged_by)[0])
        return float(torch.stack(losses).mean())

    return figure
