"""Pre-training: a recipe, a store, and the parts of it that no test will ever see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from scanlearn.console import say, warn
from scanlearn.engine.batches import TIMEOUT
from scanlearn.engine.device import first_launched
from scanlearn.engine.episodes import episodes_of, name_classes
from scanlearn.engine.exclusion import shared_rows
from scanlearn.engine.masks import joined, learns_from_masks, taught_by_masks
from scanlearn.engine.recipe import Recipe, load_recipe
from scanlearn.engine.run_folder import RunFolder
from scanlearn.engine.train import Result, Training, total_steps, train
from scanlearn.engine.validation import held_out_figure
from scanlearn.errors import ScanlearnError
from scanlearn.scans.sampling import shares_of
from scanlearn.scans.store import Store, open_store
from scanlearn.scans.words import Words, open_words


def pretrain(
    store: str | Path | Store,
    recipe: str | Path | Recipe,
    out: str | Path,
    *,
    init: str | Path | None = None,
    resume: bool = False,
    seed: int = 0,
    part: str = "train",
    workers: int = 0,
    strategy: str = "auto",
    timeout: float = TIMEOUT,
    words: str | Path | None = None,
    target: str | None = None,
    classes: list[str] | None = None,
    labels: int | str | None = None,
    exclude: Sequence[str | Path] = (),
    settings: dict[str, Any] | None = None,
) -> Result:
    """Train a network on the unlabelled scans of a prepared store, or on some labelled ones beside them.

    Args:
        store: folder that ``prepare`` wrote.
        recipe: name of a packaged recipe, a YAML file, or a ``Recipe``.
        out: the new run folder.
        init: weights to start from: a run, its ``encoder`` folder or a .safetensors file.
        resume: go on with the run in ``out``, bit for bit.
        seed: of weights and of everything that is drawn.
        part: ``train`` keeps the patients of validation and test out (the default); ``all`` uses every scan.
        workers: reading processes; 0 reads in a thread.
        strategy: auto | ddp | fsdp; several ranks come from torchrun or SLURM.
        timeout: seconds without a batch after which reading counts as hung.
        words: the table that ``discover`` wrote, for recipes with ``patches: words``; the run keeps a copy.
        target: the label column, for recipes that learn from episodes.
        classes: the base classes of these; None takes all of the column.
        labels: of a recipe that learns from masks too, how many scans' masks it may see: a number, a share such as "1%",
            or "all" (None); the same scans as in a fine-tuning with so many labels and this seed.
        exclude: stores or files of splits whose test and validation scans, and runs whose training scans, are left out,
            see ``shared_rows``; a resumed run is given the same.
        settings: recipe settings to change, ``{"optimizer.lr": 0.01}``.
    """
    store = store if isinstance(store, Store) else open_store(store)
    if resume and init is not None:
        raise ScanlearnError("--resume goes on from the run's own checkpoint, so it takes no --init: leave one out.")
    if not isinstance(recipe, Recipe):
        recipe = resumed_recipe(Path(out), recipe, settings) if resume else load_recipe(recipe, settings)
    name_classes(recipe, target, classes)
    fit_to_store(recipe, store)
    recipe = with_masks(recipe, store, part, labels)
    table = words_of(recipe, store, RunFolder(out), words, part, resume)
    without, left_out = shared_rows(store, exclude) if exclude else (None, [])
    if without is not None and (table is not None or learns_from_masks(recipe)):
        what = "crops of words" if table is not None else "masks"
        raise ScanlearnError(f"{recipe.name} learns from {what} of the whole training part: leave --exclude out.")
    training = training_of(recipe, store, table, part, labels, seed, without)
    training.checked.done += left_out
    steps = total_steps(recipe, len(training.rows))
    if first_launched():
        announce(recipe, store, training, steps)
    return train(
        recipe,
        store,
        training,
        Path(out),
        seed=seed,
        init=init,
        resume=resume,
        workers=workers,
        strategy=strategy,
        timeout=timeout,
        validate=held_out_figure(recipe, store, table, seed) if recipe.stopping.every else None,
    )


def training_of(
    recipe: Recipe,
    store: Store,
    table: Words | None,
    part: str,
    labels: int | str | None,
    seed: int,
    without: np.ndarray | None = None,
) -> Training:
    """What is walked over, and the masks that may be seen of it; the notes of the run tell how many of each."""
    rows = rows_of(store, part, recipe) if table is None else table.patches().rows
    parts, walk = parts_in_play(store, part), None
    if without is not None:  # bool (N,): scans that somebody else has
        rows = rows[~without[rows]]
        parts["pre-training"] = rows
    if recipe.sampling is not None:
        rows, _ = shares_of(store.catalog, rows, recipe.sampling)
        parts["pre-training"] = rows  # a data set of weight 0 is not seen
    if recipe.episodes is not None:
        rows, walk = episodes_of(recipe, store, rows, seed)
        parts["pre-training"] = rows  # scans of other classes are not seen
    training = Training(rows=rows, parts=parts, words=table, episodes=walk, notes={"method": recipe.name, "part": part})
    if learns_from_masks(recipe):
        settled = {"words": table, "episodes": walk, "sampling": recipe.sampling}
        by = next((name for name, given in settled.items() if given is not None), None)
        fields, picked = taught_by_masks(store, recipe, labels or "all", seed, rows, by)
        training = replace(training, **fields)
        training.notes["masks"] = len(picked)
        if by is None:
            parts["pre-training"] = training.rows
    if table is not None:
        training.notes |= {"words": table.count, "crops": len(rows)}
    patients = store.catalog.count_patients(training.rows)
    training.notes |= {"scans": len(np.unique(training.rows)), "patients": patients}
    return training


def announce(recipe: Recipe, store: Store, training: Training, steps: int) -> None:
    """What is about to be learned from what."""
    what = "scans" if training.words is None else f"crops of {training.words.count} words"
    seen = f", with the masks of {training.notes['masks']:,} scans" if "masks" in training.notes else ""
    who = f"{len(training.rows):,} {what} of {training.notes['patients']:,} patients{seen}"
    say(f"{recipe.name}: {who}, {steps:,} steps of {recipe.batch_size}.")
    if not store.catalog.patients_known:
        warn("the store has no patient column: every scan counts as a patient of its own, so leaks cannot be seen.")
    if recipe.licence_notice:
        say(f"note: {recipe.licence_notice}")


def with_masks(recipe: Recipe, store: Store, part: str, labels: int | str | None) -> Recipe:
    """The recipe, filled in by the masks of the store where it learns from them; refuses labels that it has no use for."""
    if not learns_from_masks(recipe):
        if labels is not None:
            raise ScanlearnError(
                f"Recipe {recipe.name!r} learns without masks: leave --labels out, or join --objectives.segment.weight 1."
            )
        return recipe
    if part != "train":
        raise ScanlearnError("Masks are those of the training part, as all others are for tests: leave --part out.")
    return joined(recipe, store)


def resumed_recipe(out: Path, name: str | Path, settings: dict[str, Any] | None) -> Recipe:
    """The recipe that a run was begun with, from its own folder; settings given again must agree with it."""
    saved = RunFolder(out).recipe
    if not saved.is_file():
        raise ScanlearnError(f"{out} holds no run to resume: leave --resume out to start one.")
    recipe = load_recipe(saved, settings)
    if load_recipe(name).name != recipe.name:
        raise ScanlearnError(f"{out} was begun with the recipe {recipe.name!r}, not {name!r}: name that one to go on.")
    return recipe


def words_of(
    recipe: Recipe, store: Store, run: RunFolder, words: str | Path | None, part: str, resume: bool
) -> Words | None:
    """The table of words of a run that learns from one; tells the objective ``words`` how many there are.

    A run that is resumed has its own copy; one that is given again must be the same.
    """
    if recipe.patches == "words" and recipe.sampling is not None:
        raise ScanlearnError("Crops of words are drawn equally often: leave sampling out.")
    if recipe.patches != "words":
        if words is not None:
            raise ScanlearnError(f"Recipe {recipe.name!r} reads random patches and takes no words: leave --words out.")
        if "words" in recipe.objectives:
            raise ScanlearnError(
                "The objective 'words' needs labelled crops: set patches: words and give --words WORDS."
            )
        return None
    if part != "train":
        raise ScanlearnError("Words are discovered among the training patients: leave --part out.")
    kept = open_words(run.words, store) if resume and run.words.is_dir() else None
    if words is None and kept is None:
        raise ScanlearnError(
            f"Recipe {recipe.name!r} learns from a table of words: make one with `scanlearn discover {store.path} --out "
            "WORDS` and give it with --words WORDS."
        )
    table = kept or open_words(words, store)  # type: ignore[arg-type]
    if kept is not None and words is not None and not kept.same_as(open_words(words, store)):
        raise ScanlearnError(f"{run.path} was begun with another table of words than {words}: leave --words out.")
    if "words" in recipe.objectives:
        recipe.objectives["words"]["classes"] = table.count
    return table


def rows_of(store: Store, part: str, recipe: Recipe) -> np.ndarray:
    """Rows of the store that pre-training may use."""
    if part == "all" and recipe.stopping.every:
        raise ScanlearnError("Validations need scans that are not trained on: leave --part out, or --stopping.every 0.")
    if part == "all":
        return np.arange(len(store))
    if part != "train":
        raise ScanlearnError(f"part must be 'train' or 'all', not {part!r}.")
    return np.asarray(store.splits["train"])


def parts_in_play(store: Store, part: str) -> dict[str, np.ndarray]:
    """The parts that must share no patient with each other."""
    if part == "all":
        return {"pre-training": np.arange(len(store))}
    return {"pre-training" if name == "train" else name: np.asarray(rows) for name, rows in store.splits.items()}


def fit_to_store(recipe: Recipe, store: Store) -> None:
    """Refuse a 2D recipe on volumes (and the reverse) before anything is built."""
    if recipe.spatial_dims != store.spatial_dims:
        raise ScanlearnError(
            f"Recipe {recipe.name!r} is for {recipe.spatial_dims}D scans, the store holds {store.spatial_dims}D ones: "
            "`scanlearn recipes` lists the others."
        )
    if recipe.spatial_dims == 3 and recipe.size is None:
        raise ScanlearnError(
            f"Recipe {recipe.name!r} reads patches of volumes and needs their size: add --size '[64, 64, 32]'."
        )
    if store.channels not in (1, recipe.channels):
        raise ScanlearnError(
            f"Recipe {recipe.name!r} expects {recipe.channels} channel(s), the store has {store.channels}: "
            f"add --channels {store.channels}."
        )
