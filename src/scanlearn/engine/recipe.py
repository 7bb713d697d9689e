"""Recipes: a method as data. A YAML file names views, network, objectives and schedule; no number lives in code.

Every field below is a key of the YAML, and ``--key.subkey value`` on the command line.
"""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from scanlearn.engine.episodes import EpisodeSettings, settle_episodes
from scanlearn.engine.recipe_file import recipe_dict as recipe_dict
from scanlearn.engine.recipe_file import recipe_names as recipe_names
from scanlearn.engine.recipe_file import with_base as with_base
from scanlearn.engine.stages import Stage as Stage
from scanlearn.engine.stages import check_stages, shares
from scanlearn.engine.stages import stretched as stretched
from scanlearn.errors import ScanlearnError, nearest, unknown
from scanlearn.files import too_deep, write_atomic


@dataclass
class NetworkSettings:
    """What is trained. ``encoder`` and ``decoder`` are a name, or a mapping with ``name`` and the part's settings."""

    encoder: dict[str, Any]
    decoder: dict[str, Any] | None = None
    # local: every device normalises its own samples. split: groups of the global batch, so that shuffled batch norm
    # also works on one device. sync: statistics over all devices (GPU only).
    batch_norm: str = "local"
    batch_norm_groups: int = 8  # of the global batch, for split
    # {mean: [...], std: [...]} per channel: the encoder sees (x - mean) / std, while views and targets stay in [0, 1].
    normalise: dict[str, list[float]] | None = None
    transfer: str = "whole"  # what --init gives: whole (encoder, and decoder where it fits) | encoder
    freeze_encoder: bool = False  # its parameters and its batch-norm statistics stay as they are


@dataclass
class OptimizerSettings:
    """How parameters move."""

    name: str = "adam"  # sgd | adam | adamw | lars
    lr: float = 1e-3  # at the recipe's batch size; not scaled behind your back
    momentum: float = 0.9  # sgd, lars
    trust: float = 1e-3  # lars: a weight tensor moves by this share of its norm, times lr
    betas: tuple[float, float] = (0.9, 0.999)  # adam, adamw
    weight_decay: float = 0.0
    decay_norm_and_bias: bool = True  # MoCo decays all parameters
    encoder_lr_scale: float = 1.0  # fine-tuning: the encoder's learning rate relative to the head's
    vector_lr_scale: float = 1.0  # that of biases and norms relative to that of weights (Barlow Twins: 0.024)


@dataclass
class ScheduleSettings:
    """How the learning rate moves, as a function of the step."""

    name: str = "constant"  # constant | cosine | step | poly | plateau (by the validations of ``stopping``)
    warmup_steps: int = 0  # linear from 0
    warmup_epochs: int = 0  # instead: passes over the training scans
    end: float = 0.0  # cosine: what it falls to, as a share of the rate
    milestones: list[float] = field(default_factory=list)  # step: fractions of the run, e.g. [0.6, 0.8]
    every: int = 0  # step: also after each so many steps, however long the run is; 0: at the milestones alone
    gamma: float = 0.1  # step: the factor at each milestone; plateau: the factor on each plateau
    power: float = 0.9  # poly (nnU-Net)
    per_epoch: bool = False  # move once per pass over the data, as the original MoCo does
    patience: int = 6  # plateau: so many validations without a better figure make one
    min_delta: float = 1e-4  # plateau: a better figure is lower by more than this
    floor: float = 1e-6  # plateau: the lowest learning rate


@dataclass
class StoppingSettings:
    """When training is validated, and when that ends it; ``steps`` stays the most it may take."""

    every: int = 0  # steps between validations; 0: none, and the weights of the last step are kept
    per_epoch: bool = False  # ``every`` counts passes over the training scans instead of steps
    patience: int = 0  # validations without a better figure that end the run; 0: it never ends early
    min_delta: float = 1e-4  # a better figure is lower by more than this
    restore_best: bool = True  # end with the weights of the lowest figure


@dataclass
class MonitorSettings:
    """What is watched while training."""

    every: int = 0  # steps; 0: ten times in the run; -1: never
    scans: int = 512  # how many training scans are embedded
    # Steps between measurements of each objective's gradient at the encoder, where there are several; one more backward
    # pass for each. 0: ten times in the run; -1: never.
    gradients: int = 0


@dataclass
class ClassificationSettings:
    """How ``finetune --task classify`` teaches and tests; nothing else reads it."""

    # Of several labels a scan, what to make of uncertain ones: ignore | zeros | ones | multiclass | self_trained |
    # lsr_ones | lsr_zeros | jfhealthcare, or {CLASS: policy, default: policy}.
    uncertain: Any = "ignore"
    unmentioned: str = "absent"  # of several labels, those that a scan's cell does not name: absent | unknown
    crops: int = 1  # of a 2D scan in the test: 1, the whole | 10, probabilities averaged
    per: str = "scan"  # what is tested: scan | study (of several labels, the highest probability of its scans)
    mean_over: list[str] | None = None  # the classes that the main figures are the mean of; null: all


@dataclass
class SegmentationSettings:
    """How ``finetune --task segment``, and ``pretrain`` with masks, teach and test; nothing else reads it."""

    # Training scans whose masks are not used: none | natural, mixed in as they come | a share of each batch, such as 0.5.
    # null: none in fine-tuning, natural in pre-training.
    unlabelled: Any = None
    empty: str = "left_out"  # what an empty mask counts in the test: left_out | brats
    # {class or region: voxels}: of a whole scan in the test and in predictions, fewer voxels than this are none.
    smallest: dict[str, int] = field(default_factory=dict)
    windows: str = "gaussian"  # how overlapping windows are averaged in the test and in predictions: gaussian | equal
    overlap: float = 0.5  # share of a window that neighbours have in common


@dataclass
class Recipe:
    """Everything that a run depends on, beside the data and the seed."""

    name: str
    network: NetworkSettings
    objectives: dict[str, dict[str, Any]]  # name -> its settings, and ``weight`` (1 unless said)
    views: dict[str, dict[str, Any]]  # name -> {source, ops} or {like}
    title: str = ""
    paper: str = ""
    command: str = ""
    cost: str = ""
    expects: str = ""
    licence_notice: str = ""
    spatial_dims: int = 2
    channels: int = 1  # of the network's input; a grey store feeds a network of three by repeating
    size: list[int] | None = None  # patch read from the store; null reads whole (2D) scans
    patches: str = "random"  # random places of the scans | words, the crops of a table that `scanlearn discover` made
    episodes: EpisodeSettings | None = None  # of labelled scans: what a batch is made of, for the objective prototypes
    steps: int = 1000
    epochs: int | None = None  # instead of steps: passes over the training scans
    batch_size: int = 64  # global, over all devices and accumulated parts
    accumulate: int = 1  # parts that a batch is cut into to save memory
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    stopping: StoppingSettings = field(default_factory=StoppingSettings)
    clip_norm: float | None = None  # of the gradient; opponents are not clipped
    # gradients: objectives are scaled so that their gradients at the encoder are as long as that of the first one that
    # is neither restore nor adversary (a mean over measurements); weights then say how strongly each pulls. none: losses
    # are summed as they are.
    loss_normaliser: str = "none"
    classification: ClassificationSettings = field(default_factory=ClassificationSettings)
    segmentation: SegmentationSettings = field(default_factory=SegmentationSettings)
    foreground: float = 0.0  # share of patches centred on a labelled voxel
    # {column: {word: weight}}, such as {dataset: {lidc: 1, deeplesion: 1}}: the part of all samples that scans with this
    # word get, however many they are; 0 leaves them out. null: every scan equally often.
    sampling: dict[str, dict[str, float]] | None = None
    stages: list[Stage] = field(default_factory=list)
    monitor: MonitorSettings = field(default_factory=MonitorSettings)
    precision: str = "auto"  # auto | 32-true | bf16-mixed | 16-mixed
    memory_format: str = "auto"  # auto | contiguous | channels_last
    log_every: int = 20  # steps
    checkpoint_every: int = 0  # steps; 0: ten times in the run

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as in the YAML."""
        return _plain(dataclasses.asdict(self))

    def stage_weights(self) -> list[dict[str, Any]]:
        """The weight of each objective in each stage; a recipe without stages is one stage."""
        weights = {name: settings.get("weight", 1.0) for name, settings in self.objectives.items()}
        return [{**weights, **stage.weights} for stage in self.stages] or [weights]

    def save(self, path: Path) -> None:
        """Write the YAML that gives this recipe back."""
        write_atomic(path, yaml.safe_dump(self.to_dict(), sort_keys=False, width=110))


# What numbers may be, ends included; nothing that is not finite is taken anywhere.
RANGES: dict[str, tuple[float, float]] = {
    "spatial_dims": (2, 3),
    "channels": (1, 4096),
    "size": (1, 1 << 16),
    "steps": (1, 1e12),
    "epochs": (1, 1e9),
    "batch_size": (1, 1e7),
    "accumulate": (1, 1e7),
    "episodes.ways": (2, 1e6),
    "episodes.shots": (1, 1e6),
    "episodes.queries": (1, 1e6),
    "episodes.per_step": (1, 1e6),
    "network.batch_norm_groups": (1, 1e6),
    "optimizer.lr": (0, math.inf),
    "optimizer.momentum": (0, 1),
    "optimizer.betas": (0, 1),
    "optimizer.weight_decay": (0, math.inf),
    "optimizer.trust": (0, math.inf),
    "optimizer.encoder_lr_scale": (0, math.inf),
    "optimizer.vector_lr_scale": (0, math.inf),
    "schedule.warmup_steps": (0, 1e12),
    "schedule.warmup_epochs": (0, 1e9),
    "schedule.end": (0, 1),
    "schedule.milestones": (0, 1),
    "schedule.every": (0, 1e12),
    "schedule.gamma": (0, math.inf),
    "schedule.power": (0, math.inf),
    "schedule.patience": (1, 1e9),
    "schedule.min_delta": (0, math.inf),
    "schedule.floor": (0, math.inf),
    "stopping.every": (0, 1e12),
    "stopping.patience": (0, 1e9),
    "stopping.min_delta": (0, math.inf),
    "clip_norm": (1e-12, math.inf),
    "foreground": (0, 1),
    "segmentation.overlap": (0, 0.95),
    "stages.steps": (1, 1e12),
    "stages.epochs": (1, 1e9),
    "stages.batch_size": (1, 1e7),
    "stages.lr": (0, math.inf),
    "monitor.every": (-1, 1e12),
    "monitor.scans": (1, 1e7),
    "monitor.gradients": (-1, 1e12),
    "log_every": (1, 1e12),
    "checkpoint_every": (0, 1e12),
}
PATCHES = ("random", "words")
NORMALISERS = ("none", "gradients")
LARGEST = 1e300  # of any other number
NESTED = 32


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def load_recipe(name_or_path: str | Path, overrides: dict[str, Any] | None = None) -> Recipe:
    """Read a recipe and apply ``{"optimizer.lr": 0.1}``; unknown keys are refused with the nearest known one."""
    data = recipe_dict(name_or_path)
    for key, value in (overrides or {}).items():
        override(data, key, value)
    given = overrides or {}
    if "steps" in given and "epochs" not in given:
        data["epochs"] = None  # who asks for steps means steps, also where the recipe counts passes over the data
    recipe = parse_recipe(data)
    if recipe.stages and "stages" not in given:
        _stretch(recipe, given)
    return recipe


def _stretch(recipe: Recipe, given: dict[str, Any]) -> None:
    """Stages of the length that was asked for, in their proportions."""
    if given.get("epochs") is not None and recipe.stages[0].epochs is not None:
        passes = [stage.epochs or 0 for stage in recipe.stages]
        for stage, count in zip(recipe.stages, shares(passes, int(given["epochs"])), strict=True):
            stage.epochs, stage.steps = count, None
        recipe.epochs = sum(stage.epochs or 0 for stage in recipe.stages)
    elif "steps" in given and given.get("epochs") is None:
        recipe.stages = stretched(recipe.stages, int(given["steps"]), recipe.batch_size)
        recipe.steps, recipe.epochs = sum(stage.steps or 0 for stage in recipe.stages), None


def parse_recipe(data: dict[str, Any]) -> Recipe:
    """Checked settings from plain data."""
    if too_deep(data, NESTED):
        raise ScanlearnError(f"The recipe is nested deeper than {NESTED} levels.")
    data = dict(data)
    for part in ("views", "objectives"):  # null takes one away that the base has
        if isinstance(data.get(part), dict):
            data[part] = {name: settings for name, settings in data[part].items() if settings is not None}
    network = data.get("network")
    if not isinstance(network, dict):
        raise ScanlearnError("The recipe's network must be a mapping with an encoder.")
    network = dict(network)
    for part in ("encoder", "decoder"):
        if isinstance(network.get(part), str):
            network[part] = {"name": network[part]}
    data["network"] = network
    recipe = _parse(Recipe, data, "")
    _check_numbers(recipe.to_dict(), "")
    if recipe.patches not in PATCHES:
        raise unknown("kind of patches", recipe.patches, PATCHES)
    settle_episodes(recipe)
    if recipe.loss_normaliser not in NORMALISERS:
        raise unknown("loss_normaliser", recipe.loss_normaliser, NORMALISERS)
    if not recipe.stopping.every and (recipe.stopping.patience or recipe.schedule.name == "plateau"):
        wants = "The schedule plateau" if recipe.schedule.name == "plateau" else "stopping.patience"
        raise ScanlearnError(f"{wants} goes by validations: set stopping.every to the steps between them.")
    if not recipe.objectives:
        raise ScanlearnError(f"Recipe {recipe.name!r} has no objectives, so there is nothing to learn.")
    if recipe.stages:
        check_stages(recipe)
    for i, weights in enumerate(recipe.stage_weights()):
        if not any(weights.values()):
            where = f"Stage {i + 1} of recipe {recipe.name!r}" if recipe.stages else f"Recipe {recipe.name!r}"
            advice = "change its weights, or leave the stages out with --stages '[]'" if recipe.stages else "give one"
            raise ScanlearnError(f"{where} has no objective with a weight, so there is nothing to learn: {advice}.")
    return recipe


def _check_numbers(value: Any, where: str) -> None:
    """Refuse a number beyond its range, or one that is not finite, wherever it stands."""
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_numbers(inner, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            _check_numbers(inner, f"{where}[{i}]")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        low, high = RANGES.get(re.sub(r"\[\d+\]", "", where), (-LARGEST, LARGEST))
        finite = isinstance(value, int) or math.isfinite(value)
        if not finite or not low <= value <= high:
            bounds = f"between {low:g} and {high:g}" if high < LARGEST else f"a number, {low:g} or more"
            raise ScanlearnError(f"Setting {where} must be {bounds}, not {str(value)[:40]}.")


def override(data: dict[str, Any], key: str, value: Any) -> None:
    """Set ``a.b.c`` in nested settings. Only the first word is checked here; the rest when the recipe is parsed."""
    words = key.split(".")
    known = [f.name for f in dataclasses.fields(Recipe)]
    if words[0] not in known:
        raise unknown("setting", key, known)
    named = words[0] in ("views", "objectives") and len(words) > 1
    if named and words[1] not in data.get(words[0], {}) and (words[0] == "views" or not _joins(words[1])):
        raise unknown(f"name in {words[0]}", words[1], data.get(words[0], {}))
    for depth, word in enumerate(words[:-1]):
        inner = data.get(word)
        if inner is None:
            inner = {}
        elif isinstance(inner, str) and words[depth:][0] in ("encoder", "decoder"):
            inner = {"name": inner}
        elif not isinstance(inner, dict):
            raise ScanlearnError(f"--{key}: {'.'.join(words[: depth + 1])} holds {inner!r} and has no parts.")
        data[word] = inner
        data = inner
    data[words[-1]] = value


def _joins(name: str) -> bool:
    """Whether there is such an objective, which a recipe that lacks it may be given."""
    from scanlearn.objectives.objective import OBJECTIVES  # torch, which few commands need

    return name in OBJECTIVES.names()


def _parse(kind: Any, value: Any, where: str) -> Any:
    """``value`` as the annotated type ``kind``: dataclasses by field, numbers and lists checked."""
    if dataclasses.is_dataclass(kind):
        return parse_settings(kind, value, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _parse(next(a for a in arguments if a is not type(None)), value, where)
    if origin in (list, tuple) and isinstance(value, list | tuple):
        return origin(_parse(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {k: _parse(arguments[1], v, f"{where}.{k}") for k, v in value.items()}
    if kind is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:  # YAML reads 1e-3 as a string
            return float(value)
        except ValueError:
            pass
    if kind is typing.Any or (
        isinstance(kind, type) and isinstance(value, kind) and (kind is bool) == (type(value) is bool)
    ):
        return value
    wanted = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a word"}
    name = getattr(origin or kind, "__name__", str(kind))
    raise ScanlearnError(f"Setting {where} must be {wanted.get(name, 'a ' + name)}, not {value!r}.")


def parse_settings(kind: Any, value: Any, where: str) -> Any:
    """The dataclass ``kind`` from a mapping; unknown keys, missing ones and wrong types are refused in one sentence."""
    if not isinstance(value, dict):
        raise ScanlearnError(f"Setting {where} must be a mapping, not {value!r}.")
    hints, prefix = typing.get_type_hints(kind), f"{where}." if where else ""
    fields = {f.name: f for f in dataclasses.fields(kind)}
    for key in value:
        if key not in fields:
            raise ScanlearnError(f"There is no setting {prefix}{key}{nearest(str(key), fields)}")
    for name, f in fields.items():
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and name not in value:
            raise ScanlearnError(f"The setting {prefix}{name} is missing from the recipe.")
    return kind(**{k: _parse(hints[k], v, prefix + k) for k, v in value.items()})
