"""From the collected cells to what can be said: means, comparisons, verdicts, labels saved. Plain data for study.json."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scanlearn import __version__
from scanlearn.engine.device import environment, start_fabric
from scanlearn.errors import ScanlearnError
from scanlearn.scans.store import Store
from scanlearn.study.collect import Collected
from scanlearn.study.grid import Grid
from scanlearn.study.plan import StudyPlan
from scanlearn.study.statistics.compare import compare_all, correct, mean_over_seeds
from scanlearn.study.statistics.ranks import mean_ranks
from scanlearn.study.statistics.runs import Runs
from scanlearn.study.statistics.sentences import verdict_sentence, worth_sentence
from scanlearn.study.statistics.verdict import verdict
from scanlearn.study.statistics.worth import worth_labels
from scanlearn.study.work import failure_of, result_of, tasks_of

NAMES = {"auroc": "AUROC", "ap": "AP", "dice": "Dice", "iou": "IoU", "hd95": "HD95 (mm)"}
# What is better when it is smaller.
DISTANCES = ("hd95",)


def analyse(plan: StudyPlan, grid: Grid, store: Store, out: Path, found: Collected) -> dict[str, Any]:
    """Everything the report, study.json and the tables say.

    Returns:
        ``question`` (the plan's words, free of paths), ``methods``, ``twins``, ``figure``, ``higher_is_better``;
        ``labels``: [{asked, scans}]; for each asked label count ``means`` {method: ``mean_over_seeds``},
        ``comparisons`` (all pairs, Holm over those of one label count) and ``verdicts`` (with ``sentence``);
        ``by_class`` {class: {labels: {method: mean}}}; ``worth`` [{method, labels, sentence, ...}]; ``ranks``;
        ``answer``: the sentences that a reader needs first; ``failed``, ``missing``; ``cells``; ``machine``.
    """
    higher = plan.main_figure not in DISTANCES
    name = NAMES.get(plan.main_figure, plan.main_figure)
    asked = [count for count in plan.labels if any(key[1] == count for key in found.runs)]
    at = {count: {m: found.runs[m, count] for m in grid.methods if (m, count) in found.runs} for count in asked}
    comparisons = {count: correct(compare_all(runs)) for count, runs in at.items() if len(runs) > 1}
    verdicts = {count: verdict(c, count, name, higher_is_better=higher) for count, c in comparisons.items()}
    said = {count: verdict_sentence(v) for count, v in verdicts.items()}
    facts: dict[str, Any] = {
        "version": __version__,
        "date": time.strftime("%Y-%m-%d"),
        "machine": environment(start_fabric()),
        "question": question(plan, store),
        "methods": grid.methods,
        "twins": grid.twins,
        "figure": plan.main_figure,
        "higher_is_better": higher,
        "labels": [{"asked": count, "scans": found.labelled[count]} for count in asked],
        "test": {"scans": found.test_scans, "patients": found.test_patients},
        "means": {str(count): _means(runs, higher) for count, runs in at.items()},
        "by_class": _by_class(found, asked, higher),
        "comparisons": {str(count): c for count, c in comparisons.items()},
        "verdicts": {str(count): {**asdict(v), "sentence": said[count]} for count, v in verdicts.items()},
        "worth": _worth(grid, found, asked, higher),
        "ranks": _ranks(grid, at, higher),
        "failed": [{"task": t.name, "error": e} for t in tasks_of(grid) if (e := failure_of(out, t)) is not None],
        "missing": [cell.name for cell in grid.cells if result_of(out, cell) is None],
        "cells": found.cells,
    }
    facts["answer"] = [*said.values(), *(w["sentence"] for w in facts["worth"])]
    return facts


def question(plan: StudyPlan, store: Store) -> dict[str, Any]:
    """The plan in words that may travel: no path, the store by its name and content key."""
    words = {
        name: getattr(plan, name)
        for name in ("task", "target", "classes", "labels", "seeds", "pretraining_seeds", "finetuning", "encoder")
    }
    words["methods"] = {name: asdict(method) for name, method in plan.methods.items()}
    for method in words["methods"].values():
        method["weights"] = Path(method["weights"]).name if method["weights"] else None
        method["recipe"] = Path(method["recipe"]).name if method["recipe"] else None
    parts = {part: len(rows) for part, rows in store.splits.items()}
    return {**words, "store": store.path.name, "store_key": str(store.info["key"])[:12], "scans": parts}


def _means(runs: dict[str, Runs], higher: bool) -> dict[str, Any]:
    within = (0.0, 1.0) if higher else None
    return {method: mean_over_seeds(r, within=within) for method, r in runs.items()}


def _by_class(found: Collected, asked: list[int | str], higher: bool) -> dict[str, Any]:
    tables: dict[str, Any] = {}
    for name, runs in found.by_class.items():
        tables[name] = {
            str(count): _means({m: r for (m, c), r in runs.items() if c == count}, higher) for count in asked
        }
    return tables


def _worth(grid: Grid, found: Collected, asked: list[int | str], higher: bool) -> list[dict[str, Any]]:
    """For each pre-trained method and label count: how many labels its twin from scratch needs for the same score."""
    answers = []
    for method, twin in grid.twins.items():
        curve = {found.labelled[count]: found.runs[twin, count] for count in asked if (twin, count) in found.runs}
        if len(curve) < 2:
            continue
        for count in asked:
            if (method, count) not in found.runs:
                continue
            try:
                worth = worth_labels(curve, found.runs[method, count], higher_is_better=higher)
            except ScanlearnError:
                continue  # no seed that all have: the cells are not there yet
            sentence = worth_sentence(method, found.labelled[count], worth)
            answers.append({"method": method, "twin": twin, "labels": count, **worth, "sentence": sentence})
    return answers


def _ranks(grid: Grid, at: dict[int | str, dict[str, Runs]], higher: bool) -> dict[str, Any] | None:
    """Mean ranks over label counts and seeds, for three methods or more; None where there are too few."""
    names = [m for m in grid.methods if all(m in runs for runs in at.values())]
    if len(names) < 3:
        return None
    blocks = []
    for runs in at.values():
        common = set.intersection(*(set(runs[m].seeds) for m in names))
        blocks += [[runs[m].of_seeds([s]).draws[0, 0] for m in names] for s in sorted(common)]
    return mean_ranks(blocks, names, higher_is_better=higher) if len(blocks) > 1 else None
