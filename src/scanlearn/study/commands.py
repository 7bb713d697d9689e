"""The command that repeats a run, and those that come next. STORE stands for the data set: paths stay private."""

from __future__ import annotations

import shlex
from typing import Any

import yaml

from scanlearn.engine.recipe import load_recipe, recipe_names
from scanlearn.errors import ScanlearnError
from scanlearn.study.facts import Facts
from scanlearn.study.page import Command

LONGEST = 200  # characters of settings; beyond them the run's own recipe.yaml is the clearer way


def line(verb: str, *words: Any, **options: Any) -> str:
    """A shell line: options that are None are left out, everything is quoted where the shell needs it."""
    parts = ["scanlearn", verb, *map(str, words)]
    for name, value in options.items():
        if value is not None:
            parts += [f"--{name}", str(value)]
    return " ".join(shlex.quote(part) for part in parts)


def repeat(facts: Facts) -> Command:
    """The command that makes the same run again, under a new name."""
    return _repeat_finetune(facts) if facts.task else _repeat_pretrain(facts)


def _repeat_pretrain(facts: Facts) -> Command:
    settings = recipe_settings(facts.recipe)
    options = {
        "recipe": facts.recipe["name"] if settings is not None else f"{facts.name}/recipe.yaml",
        "out": f"{facts.name}-again",
        "seed": facts.environment.get("seed", 0),
        "part": "all" if facts.notes.get("part") == "all" else None,
        "init": None if facts.init == "none" else facts.init,
        "labels": facts.notes.get("masks"),
        "words": f"{facts.name}/words" if facts.recipe.get("patches") == "words" else None,
    }
    return Command(line("pretrain", "STORE", **options, **(settings or {})))


def _repeat_finetune(facts: Facts) -> Command:
    mode = facts.results.get("mode", "full")
    options = {**_task(facts), "mode": None if mode == "full" else mode, "init": facts.init}
    return Command(line("finetune", "STORE", **options, out=f"{facts.name}-again"))


def _task(facts: Facts) -> dict[str, Any]:
    """What makes two fine-tunings comparable: task, labels, seed, settings, size of the input."""
    results = facts.results
    size = results.get("input_size")
    return {
        "task": facts.task,
        "target": results.get("target") or ("COLUMN" if facts.task == "classify" else None),
        "classes": _chosen_classes(facts),
        "labels": results.get("labelled_scans") or facts.environment.get("scans") or "all",
        "seed": results.get("seed", facts.environment.get("seed", 0)),
        "recipe": f"{facts.name}/recipe.yaml",
        "size": _yaml(size) if size else None,
    }


def _chosen_classes(facts: Facts) -> str | None:
    """The classes, where they are not simply all those of the column."""
    target = facts.results.get("target")
    if facts.task != "classify" or facts.record is None or target is None:
        return None
    classes = facts.results["classes"]
    return None if facts.record.classes.get(target) == classes else _yaml(classes)


def recipe_settings(saved: dict[str, Any]) -> dict[str, str] | None:
    """The options that turn the packaged recipe of that name into the ``saved`` one.

    None where there is no such recipe, or where the options would be longer than they are useful.
    """
    if saved.get("name") not in recipe_names():
        return None
    known = load_recipe(saved["name"]).to_dict()
    changed = dict(_differences(known, saved, ""))
    text = {key: _yaml(value) for key, value in changed.items()}
    if sum(len(key) + len(value) for key, value in text.items()) > LONGEST:
        return None
    try:
        again = load_recipe(saved["name"], changed).to_dict()
    except ScanlearnError:
        return None
    return text if again == saved else None


def _differences(known: Any, saved: Any, where: str) -> list[tuple[str, Any]]:
    if not (isinstance(known, dict) and isinstance(saved, dict) and known.keys() == saved.keys()):
        return [] if known == saved else [(where, saved)]
    inside = ((known[key], saved[key], f"{where}.{key}" if where else str(key)) for key in known)
    return [difference for item in inside for difference in _differences(*item)]


def _yaml(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False)
    return text.removesuffix("...\n").strip()


def next_steps(facts: Facts, target: str | None, masks: bool) -> list[Command]:
    """What a person would do after this run.

    Args:
        target: a label column of the store that can be learnt, if one is known.
        masks: whether the store has masks.
    """
    if facts.task:
        return _after_finetune(facts) if facts.results else [_resume(facts)]
    if not facts.finished:
        return [_resume(facts)]
    return [*_against_collapse(facts), *_after_pretrain(facts, target, masks)]


def _resume(facts: Facts) -> Command:
    again = repeat(facts).text.replace(shlex.quote(f"{facts.name}-again"), shlex.quote(facts.name))
    return Command(f"{again} --resume", "Go on from the last checkpoint; settings must be those of the beginning.")


def _against_collapse(facts: Facts) -> list[Command]:
    if not facts.still_warned:
        return []
    options = {"recipe": f"{facts.name}/recipe.yaml", "out": f"{facts.name}-slower"}
    rate = {"optimizer.lr": f"{facts.recipe['optimizer']['lr'] / 4:g}"}
    why = "The features were flat at the last look. The first thing to try is a quarter of the learning rate."
    return [Command(line("pretrain", "STORE", **options, **rate), why)]


def _after_pretrain(facts: Facts, target: str | None, masks: bool) -> list[Command]:
    name = facts.name
    steps = [Command(line("probe", name, "STORE"), "Ask the frozen features what they know; no training.")]
    tasks: list[tuple[str, str, dict[str, Any]]] = []
    if masks:
        tasks.append(("segment", "20", {"task": "segment", "labels": 20}))
    if target or not masks:
        tasks.append(("classify", "100", {"task": "classify", "target": target or "COLUMN", "labels": 100}))
    for task, few, options in tasks:
        steps += [
            Command(
                line("finetune", "STORE", **options, init=name, out=f"{name}-{task}-{few}"),
                f"Fine-tune with {few} labelled scans and test on held-out patients.",
            ),
            Command(
                line("finetune", "STORE", **options, init="none", like=name, out=f"scratch-{task}-{few}"),
                "The same from scratch: what this run is worth is the difference.",
            ),
        ]
    return steps


def _after_finetune(facts: Facts) -> list[Command]:
    name, init = facts.name, facts.init
    few = _task(facts)
    steps = [
        Command(
            line("predict", name, "INPUT", out=f"{name}-predictions"),
            "Apply it to new scans: INPUT is a scan, a folder or a table.",
        )
    ]
    if init != "none":
        twin = line("finetune", "STORE", **few, init="none", like=init, out=f"{name}-scratch")
        steps.insert(0, Command(twin, "The from-scratch twin: same labels, same network, no pre-training."))
    else:
        pretrained = line("finetune", "STORE", **few, init="RUN", out=f"{name}-pretrained")
        steps.insert(0, Command(pretrained, "The same from pre-trained weights: RUN is a pre-training run."))
    more = {**few, "labels": "all"}
    options = {"init": init, "out": f"{name}-all"}
    return [*steps, Command(line("finetune", "STORE", **more, **options), "With every label there is.")]
