"""The grid of a study: which pre-trainings and which fine-tunings it takes, and where each of them lies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from scanlearn.engine.masks import default_decoder, learns_from_masks
from scanlearn.engine.recipe import load_recipe
from scanlearn.engine.train import Views
from scanlearn.errors import ScanlearnError
from scanlearn.scans.store import Store
from scanlearn.study.plan import Method, StudyPlan
from scanlearn.weights.encoder import read_card


@dataclass(frozen=True)
class Pretraining:
    """One pre-training; ``name`` is its folder under ``pretrained``."""

    name: str
    recipe: str
    settings: tuple[tuple[str, str], ...]  # (key, JSON), so that it can be hashed
    seed: int
    words: str | None = None  # the table of words that it learns from
    labels: int | str | None = None  # scans whose masks it sees, where it learns from masks too

    @property
    def method(self) -> str:
        """The method that it was first named for."""
        return self.name.rpartition("-seed")[0].removesuffix("" if self.labels is None else f"-{_word(self.labels)}")

    @property
    def overrides(self) -> dict[str, Any]:
        """The recipe settings to change."""
        return {key: json.loads(value) for key, value in self.settings}


@dataclass(frozen=True)
class Cell:
    """One fine-tuning, tested once; ``name`` is its folder under ``cells``."""

    method: str
    labels: int | str
    seed: int
    # What it starts from (a pre-training, or weights), or from scratch: what it looks like, "" for its own recipe.
    start: Pretraining | str
    from_scratch: bool

    @property
    def name(self) -> str:
        """Unique in the study."""
        return f"{self.method}-{_word(self.labels)}-seed{self.seed}"


def _word(labels: int | str) -> str:
    return str(labels).replace("%", "percent")


@dataclass(frozen=True)
class Grid:
    """Everything that is to be computed, in the order in which it is."""

    pretrainings: list[Pretraining]
    cells: list[Cell]
    methods: list[str]
    twins: dict[str, str]  # pre-trained method -> the method from scratch with its architecture, or its fine-tuning


def build_grid(plan: StudyPlan, store: Store) -> Grid:
    """The grid of a plan. Where methods differ in architecture, ``scratch`` becomes one twin for each of them.

    Cells come label count by label count and seed by seed, all methods together, so that an early stop leaves pairs.
    """
    pre = {name: pretrainings(name, method, plan) for name, method in plan.methods.items() if method.recipe}
    first: dict[Any, list[Pretraining]] = {}
    for name, found in pre.items():
        pre[name] = first.setdefault(tuple((p.recipe, p.settings, p.seed, p.words, p.labels) for p in found), found)
    architectures = {name: _architecture(m, pre.get(name), plan, store) for name, m in plan.methods.items()}
    begun = [name for name, method in plan.methods.items() if method.from_scratch]
    alone = {name for name in begun if plan.methods[name].finetuning_recipe}
    twins, names, like = _twins(plan, architectures, [name for name in begun if name not in alone])
    by_recipe = {plan.methods[name].finetuning_recipe: name for name in alone}
    twins |= {
        n: by_recipe[m.finetuning_recipe]
        for n, m in plan.methods.items()
        if n not in begun and m.finetuning_recipe in by_recipe
    }
    cells = []
    for count in plan.labels:
        for seed in range(plan.seeds):
            for name in names:
                source = like.get(name, name)
                given: Sequence[Pretraining | str] = [p for p in pre.get(source, ()) if p.labels in (None, count)]
                given = given or [plan.methods[source].weights or ""]
                cells.append(Cell(name, count, seed, given[seed % len(given)], name in like or name in alone))
    return Grid(list(dict.fromkeys(p for found in first.values() for p in found)), cells, names, twins)


def pretrainings(name: str, method: Method, plan: StudyPlan) -> list[Pretraining]:
    """Those of one method, one for each pre-training seed, with the study's own encoder and steps.

    One that learns from masks too sees those of the fine-tuning after it and no other, so there is one for each label
    count and seed of the fine-tunings.
    """
    settings = dict(method.pretraining)
    if plan.encoder is not None:
        settings.setdefault("network.encoder", plan.encoder)
        assert method.recipe is not None
        decoder = load_recipe(method.recipe).network.decoder
        if decoder is not None and decoder["name"] == "unet" and plan.encoder["name"] != "unet":
            settings.setdefault("network.decoder", {**decoder, "name": default_decoder(plan.encoder["name"])})
    if plan.pretraining_steps is not None:
        settings.setdefault("steps", plan.pretraining_steps)
    frozen = tuple(sorted((key, json.dumps(value, sort_keys=True)) for key, value in settings.items()))
    words = None
    recipe = load_recipe(str(method.recipe), settings)
    if recipe.patches == "words":
        words = method.words or plan.words
        if words is None:
            raise ScanlearnError(
                f"The method {name} learns from a table of words: make one with `scanlearn discover {plan.store} --out "
                "WORDS` and add words: WORDS to the study."
            )
    how = (str(method.recipe), frozen)
    if learns_from_masks(recipe):
        pairs = [(labels, seed) for labels in plan.labels for seed in range(plan.seeds)]
        return [Pretraining(f"{name}-{_word(n)}-seed{s}", *how, s, words, n) for n, s in pairs]
    return [Pretraining(f"{name}-seed{s}", *how, s, words) for s in range(plan.pretraining_seeds)]


def _architecture(method: Method, pre: list[Pretraining] | None, plan: StudyPlan, store: Store) -> str | None:
    """What of a method its twin must share: encoder, for segmentation the decoder, and the input size."""
    if method.weights is not None:
        card = read_card(method.weights)
        network, size = card["network"], card["notes"].get("input_size")
    elif pre:
        recipe = load_recipe(pre[0].recipe, pre[0].overrides)
        network = {"encoder": recipe.network.encoder, "decoder": recipe.network.decoder}
        size = list(Views(recipe, store, 0, torch.device("cpu"), torch.contiguous_format).input_size)
    else:
        return None
    parts: dict[str, Any] = {"encoder": network["encoder"], "size": size}
    if plan.task == "segment":
        decoder = network.get("decoder") or {"name": default_decoder(network["encoder"]["name"])}  # that it will get
        parts["decoder"] = {k: v for k, v in decoder.items() if k not in ("out_channels", "image_channels")}
    return json.dumps(parts, sort_keys=True)


def _twins(
    plan: StudyPlan, architectures: dict[str, str | None], scratches: list[str]
) -> tuple[dict[str, str], list[str], dict[str, str]]:
    """(pre-trained method -> its twin, all methods with twins in place, twin -> method whose architecture it has)."""
    if len(scratches) > 1:
        raise ScanlearnError(f"The study has several methods from scratch ({', '.join(scratches)}): keep one.")
    distinct = list(dict.fromkeys(a for a in architectures.values() if a is not None))
    names: list[str] = []
    twins: dict[str, str] = {}
    like: dict[str, str] = {}
    for name in plan.methods:
        if name not in scratches:
            names.append(name)
            continue
        for architecture in distinct:
            owner = next(n for n, a in architectures.items() if a == architecture)
            twin = name if len(distinct) == 1 else f"{name}_like_{owner}"
            names.append(twin)
            like[twin] = owner
            twins |= {n: twin for n, a in architectures.items() if a == architecture}
    return twins, names, like


def folder_of(out: Path, task: Pretraining | Cell) -> Path:
    """Where a pre-training or a cell lies in the study's folder."""
    return out / ("pretrained" if isinstance(task, Pretraining) else "cells") / task.name
