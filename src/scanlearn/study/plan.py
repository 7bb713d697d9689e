"""What a study asks: methods x label counts x seeds on one store, as data. The words are those of the command line.

store: stores/chest
task: classify
target: label
methods:
  scratch:
  moco_v2_small:                                  # a recipe by its name
  moco_frozen: {recipe: moco_v2_small, mode: frozen}
  genesis: {recipe: models_genesis_2d_small, pretraining: {optimizer.lr: 0.0003}}
labels: [50, 100, all]
seeds: 5
"""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from scanlearn.catalog.labelled import share_of
from scanlearn.engine.recipe import parse_settings
from scanlearn.engine.recipe_file import read_yaml, recipe_names
from scanlearn.errors import ScanlearnError, unknown
from scanlearn.files import write_atomic
from scanlearn.tasks.kinds import KINDS, MODES, TASKS
from scanlearn.weights.encoder import TRANSFERS

SCRATCH = "scratch"
BASELINES = {"moco": "moco_v2", "c2l": "c2l_resnet18"}  # names of methods that stand for a recipe
IMAGENET = "imagenet"  # the name of a method whose value is a file of ImageNet weights, as torchvision publishes them
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}")


@dataclass
class Method:
    """One way to come by a network. Without ``recipe`` and ``weights`` it is trained from scratch: in the architecture of
    the pre-trained methods, or in that of its own ``finetuning_recipe``.

    Methods with the same recipe and the same ``pretraining`` settings share one pre-training.
    """

    recipe: str | None = None  # pre-trained with this recipe (a name or a YAML file)
    like: str | None = None  # or pre-trained as this other method of the study is
    weights: str | None = None  # or started from weights that exist: a run, or a file that others published
    layout: str | None = None  # whose file it is (``import-weights``): it is imported into the study's folder
    pretraining: dict[str, Any] = field(default_factory=dict)  # settings of the recipe to change
    finetuning: dict[str, Any] = field(default_factory=dict)  # settings of the fine-tuning to change, for this method
    finetuning_recipe: str | None = None  # what it is fine-tuned with; default: the study's
    words: str | None = None  # the table of words it learns from; default: the study's
    mode: str = "full"  # full | linear | frozen
    transfer: str = "whole"  # whole | encoder

    @property
    def from_scratch(self) -> bool:
        """Whether nothing is learned before the labels."""
        return self.recipe is None and self.weights is None


@dataclass
class StudyPlan:
    """A study. Every field is a key of its YAML file and an option of ``scanlearn study``."""

    store: str
    task: str  # classify | segment | detect
    methods: dict[str, Any]  # name -> Method, or None: scratch, or the recipe of that name
    labels: list[Any] = field(default_factory=lambda: ["all"])  # numbers of labelled scans, shares (1%), or all
    target: str | None = None  # classify: the label column
    classes: list[str] | None = None  # classify: only these classes, the last one is positive
    seeds: int = 5  # fine-tunings of each method and label count: choice of labels, new weights, order
    pretraining_seeds: int = 1  # pre-trainings of each method; fine-tuning seed s starts from number s % this
    pretraining_steps: int | None = None  # the same for every method; default: each recipe's own
    pretraining_minutes: float | None = None  # or the same time for every method, measured on this machine
    encoder: dict[str, Any] | None = None  # one encoder for all methods; default: each recipe's own
    finetuning: dict[str, Any] = field(default_factory=dict)  # settings of every fine-tuning
    words: str | None = None  # the table of words (`scanlearn discover`) of all methods that learn from one
    recipe: str | None = None  # of the fine-tuning; default: finetune_ and the task
    budget: str | None = None  # "90m", "12h", "2d": shortens pre-training to fit, or says that it cannot
    figure: str | None = None  # what is compared; default: auroc, dice or ap50

    @property
    def main_figure(self) -> str:
        """The figure that methods are compared by."""
        return self.figure or KINDS[self.task].figures[0]

    def save(self, path: Path) -> None:
        """Write the plan as the YAML file it can be read from."""
        data = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        data["methods"] = {name: _changed(method) for name, method in self.methods.items()}
        said = {k: v for k, v in data.items() if v not in (None, {})}
        # Through JSON: what two methods share is written twice, not as an alias, which our reader refuses.
        write_atomic(path, yaml.safe_dump(json.loads(json.dumps(said)), sort_keys=False))


def load_plan(source: str | Path | dict[str, Any]) -> StudyPlan:
    """A checked plan from a YAML file or from its keys; raises ScanlearnError with the nearest known name."""
    data = dict(source) if isinstance(source, dict) else read_yaml(Path(source), f"The study {source}")
    methods = data.get("methods")
    if isinstance(methods, list):
        data["methods"] = dict.fromkeys(map(str, methods))
    if isinstance(data.get("encoder"), str):
        data["encoder"] = {"name": data["encoder"]}
    plan = parse_settings(StudyPlan, data, "the study")
    plan.methods = {name: _method(name, value) for name, value in plan.methods.items()}
    for name, method in plan.methods.items():
        _take_after(name, method, plan.methods)
    _check(plan)
    return plan


def _method(name: str, value: Any) -> Method:
    if not _NAME.fullmatch(name):
        raise ScanlearnError(f"The method {name!r} cannot be a folder's name: use letters, digits and _ . + -.")
    if isinstance(value, Method):
        return value
    if name == IMAGENET and isinstance(value, str):
        value = {"weights": value, "layout": "torchvision"}
    value = dict(value) if isinstance(value, dict) else value
    said = {"recipe", "weights", "like", "finetuning_recipe"}
    if value is None or (isinstance(value, dict) and not said & set(value)):
        value = value or {}
        if not name.startswith(SCRATCH):
            recipe = BASELINES.get(name, name)
            if recipe not in recipe_names():
                raise unknown("recipe", name, [SCRATCH, *BASELINES, *recipe_names()])
            value["recipe"] = recipe
    return parse_settings(Method, value, f"methods.{name}")


def _take_after(name: str, method: Method, methods: dict[str, Method]) -> None:
    """Fill in recipe, settings and weights of the method that this one is ``like``."""
    if method.like is None:
        return
    other = methods.get(method.like)
    if other is None:
        raise unknown("method", method.like, [n for n in methods if n != name])
    if other.like is not None or other.from_scratch or method.recipe or method.weights or method.pretraining:
        raise ScanlearnError(
            f"The method {name} can only be like one that has a recipe or weights of its own, and has neither itself."
        )
    method.recipe, method.weights, method.pretraining = other.recipe, other.weights, dict(other.pretraining)
    method.words, method.layout = other.words, other.layout


def _check(plan: StudyPlan) -> None:
    if plan.task not in TASKS:
        raise unknown("task", plan.task, TASKS)
    if plan.task == "classify" and not plan.target:
        raise ScanlearnError("A study of classification needs the label column: --target COLUMN.")
    if len(plan.methods) < 2:
        raise ScanlearnError("A study compares at least two methods, for instance scratch and moco_v2_small.")
    if plan.seeds < 1 or plan.pretraining_seeds < 1:
        raise ScanlearnError("seeds and pretraining_seeds must be 1 or more.")
    if plan.pretraining_steps and plan.pretraining_minutes:
        raise ScanlearnError("Give pretraining_steps (equal steps) or pretraining_minutes (equal time), not both.")
    if not plan.labels:
        raise ScanlearnError("labels is empty: say how many labelled scans may be used, e.g. 50 100 all.")
    plan.labels = [_labels(value) for value in plan.labels]
    if plan.budget is not None:
        minutes(plan.budget)
    for name, method in plan.methods.items():
        if method.mode not in MODES:
            raise unknown("mode", method.mode, MODES)
        if method.mode not in KINDS[plan.task].modes:
            raise ScanlearnError(
                f"The method {name} asks for mode {method.mode}: the task {plan.task} trains the whole network, so leave the "
                "mode out."
            )
        if method.transfer not in TRANSFERS:
            raise unknown("transfer", method.transfer, TRANSFERS)
        if method.layout and not method.weights:
            raise ScanlearnError(f"The method {name} has a layout and no file: give it with weights.")
        if method.recipe and method.weights:
            raise ScanlearnError(f"The method {name} has a recipe and weights: leave one of them out.")
        if method.from_scratch and (method.pretraining or method.mode != "full"):
            raise ScanlearnError(
                f"The method {name} starts from scratch, so it takes no pre-training settings or mode."
            )


def _labels(value: Any) -> int | str:
    if value == "all":
        return "all"
    if isinstance(value, str) and value.endswith("%"):
        return f"{100 * share_of(value):g}%"
    try:
        count = int(value)
    except (TypeError, ValueError):
        count = 0
    if count < 1:
        raise ScanlearnError(f"labels takes whole numbers above 0, shares such as 1%, and 'all', not {value!r}.")
    return count


def minutes(text: str) -> float:
    """ "90m", "1.5h", "2d" or a number of minutes."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([mhd]?)\s*", str(text))
    if found is None or float(found[1]) == 0:
        raise ScanlearnError(f"A budget is a time such as 90m, 12h or 2d, not {text!r}.")
    return float(found[1]) * {"": 1, "m": 1, "h": 60, "d": 1440}[found[2]]


def _changed(method: Method) -> dict[str, Any] | None:
    """What differs from the defaults, which is what a person would have written."""
    fresh = Method()
    data = {f.name: getattr(method, f.name) for f in dataclasses.fields(method)}
    if method.like is not None:
        data |= {
            "recipe": None,
            "weights": None,
            "layout": None,
            "pretraining": {},
            "words": None,
        }  # they are the other method's
    return {name: value for name, value in data.items() if value != getattr(fresh, name)} or None
