"""The page of a run: what was learned from what, how it went, what it is worth, how to repeat it; one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from scanlearn import __version__
from scanlearn.errors import ScanlearnError
from scanlearn.files import WriteError, write_atomic
from scanlearn.scans.store import Store, open_store
from scanlearn.scans.words import FACTS as WORDS
from scanlearn.study import cases, checks, commands, looks
from scanlearn.study.case_table import case_table
from scanlearn.study.curves import curve_panels
from scanlearn.study.detection import detected
from scanlearn.study.facts import Facts, read_facts
from scanlearn.study.fewshot_page import fewshot_page
from scanlearn.study.figures import dots_figure, interval_figure, map_figure, roc_figure
from scanlearn.study.head import MAIN, key_figures, sentence
from scanlearn.study.page import Panel, Strip, render, without_paths
from scanlearn.study.reuse import reuse_panel
from scanlearn.study.tables import environment_table, metric_table
from scanlearn.study.words_page import words_page
from scanlearn.tasks.fewshot.episodes import FILE as EPISODES

KINDS = {"": "pre-training", "classify": "classification", "segment": "segmentation", "detect": "detection"}


def report(run: str | Path, store: str | Path | None = None) -> Path:
    """Write RUN/report.html, one self-contained page, and return its path.

    Args:
        run: the folder of a pre-training or fine-tuned run, finished or not, of a table of words (``words_page``)
            or of few-shot episodes (``fewshot_page``).
        store: the store that it was made from, for the pictures of scans; without it the page says what is missing.

    The page names no patient, no file and no path. Raises ScanlearnError for a folder without a run and for a store
    that is not the run's own (by its content key).
    """
    if (Path(run) / WORDS).is_file():
        return words_page(run, store)
    if (Path(run) / EPISODES).is_file():
        return fewshot_page(run)
    facts = read_facts(run)
    opened = None if store is None else own_store(facts, store)
    target = facts.results.get("target") or (looks.label_column(opened) if opened is not None else None)
    head = {
        "title": facts.name,
        "method": facts.recipe.get("title") or facts.recipe["name"],
        "kind": KINDS[facts.task],
        "sentence": sentence(facts),
        "key_figures": key_figures(facts),
        "notices": checks.notices(facts),
        "version": __version__,
    }
    page = render(
        "report.html.jinja",
        **head,
        results=results_section(facts, opened),
        curves=curve_panels(facts),
        **store_sections(facts, opened, target),
        checks=checks.section(facts, opened),
        repeat=commands.repeat(facts),
        environment=environment_table(facts.environment, facts.parameters),
        recipe=without_paths(yaml.safe_dump(facts.recipe, sort_keys=False, width=88, allow_unicode=True)),
        paper=without_paths(str(facts.recipe.get("paper", ""))),
        expects=without_paths(str(facts.recipe.get("expects", ""))),
        next_steps=commands.next_steps(facts, target, opened is not None and opened.has_masks),
        missing=missing_pictures(facts, opened),
        store_key=str(facts.environment.get("store", ""))[:12],
    )
    try:
        write_atomic(facts.run.report, page)
    except WriteError as error:
        raise error.advising(f"the run is whole: make room and write its page with `scanlearn report {run}`") from error
    return facts.run.report


def own_store(facts: Facts, path: str | Path) -> Store:
    """The store at ``path``, if it is the one that the run was made from."""
    store, key = open_store(path), facts.environment.get("store")
    if key is not None and key != store.info["key"]:
        raise ScanlearnError(
            f"{store.path.name} is not the store that {facts.name} was made from (its content key is another): give "
            "that one, or leave --store out for a page without pictures of scans."
        )
    if key is None:
        raise ScanlearnError(
            f"{facts.name} does not say which store it was made from, so {store.path.name} cannot be trusted to be it: "
            "leave --store out for a page without pictures of scans."
        )
    return store


def missing_pictures(facts: Facts, store: Store | None) -> str:
    """One sentence on the pictures that are not there, and why; "" where nothing is missing."""
    pictures = {
        "": "the views, the restored scans, the nearest neighbours and the map of features",
        "classify": "the most wrong and most right scans, the nearest neighbours and the map of features",
        "segment": "the nearest neighbours and the map of features",
        "detect": "the worst and best images with their boxes, the nearest neighbours and the map of features",
    }[facts.task]
    if store is None:
        command = commands.line("report", facts.name, store="STORE")
        return f"The page was written without the store, so it lacks {pictures}; “{command}” adds them."
    if not facts.has_weights:
        return "The run has no trained weights yet, so what its network restores and finds alike is missing."
    return ""


def results_section(facts: Facts, store: Store | None) -> dict[str, Any]:
    """Tables, diagrams and cases of a fine-tuned run; empty for any other."""
    if not facts.results:
        return {}
    test = facts.results["test"]
    content = {"classify": classified, "segment": segmented, "detect": detected}[facts.task](facts, store)
    several = len(test["classes"]) > 1
    (figure, name), reference = MAIN[facts.task], 0.5 if facts.task == "classify" else None
    if several:
        rows = [(label, found[figure]) for label, found in test["classes"].items()]
        rows.append(("mean", test["macro"][figure]))
        picture = interval_figure(rows, name=name, reference=reference)
        content["panels"].insert(0, Panel(f"{name} of each class", picture, "Dots are figures, bars their intervals."))
    if facts.results.get("feature_reuse"):
        content["panels"].append(reuse_panel(facts.results["feature_reuse"], facts.init))
    return {"metrics": metric_table(test, patients_known=facts.patients_known), **content}


def classified(facts: Facts, store: Store | None) -> dict[str, Any]:
    """What is special about a classifier: threshold, ROC curves, confusions, most wrong and most right scans."""
    found = cases.read_predictions(facts.run, facts.results)
    curves, points = cases.roc_curves(found, facts.results)
    note = "One class against the rest, with its AUROC." if len(curves) > 1 else "The dashed line is guessing."
    if points:
        note += " The dot is the chosen working point." if len(points) == 1 else " Dots are the chosen working points."
    panels = [Panel("ROC curve" + "s" * (len(curves) > 1), roc_figure(curves, points), note)] if curves else []
    return {
        "threshold": threshold_words(facts.results),
        "panels": panels,
        "confusions": cases.confusions(found, facts.results),
        "cases": cases.extreme_strips(found, store) if store is not None else [],
        "legend": False,
    }


def threshold_words(results: dict[str, Any]) -> str:
    """How it was decided when a case counts as positive."""
    thresholds = results["test"].get("threshold")
    if not thresholds:
        return "A scan belongs to the class with the highest score, so there is no threshold to choose."
    values = ", ".join(f"{name} from {value:.3f}" for name, value in list(thresholds.items())[:12])
    return f"A scan counts as positive for {values}. How that was chosen: {results.get('threshold', 'not said')}."


def segmented(facts: Facts, store: Store | None) -> dict[str, Any]:
    """What is special about a segmenter: the Dice of each case, worst and best cases with outlines, all of them small."""
    groups = cases.dice_groups(facts.run, list(facts.results["test"]["classes"]))
    panel = Panel("Dice of each case", dots_figure(groups, name="Dice"), "Every dot is a scan of the test part.")
    strips = cases.example_strips(facts.run, facts.recipe["spatial_dims"])
    every = case_table(facts.run.path)
    return {"threshold": "", "panels": [panel], "confusions": None, "cases": strips, "legend": True, "every": every}


def store_sections(facts: Facts, store: Store | None, target: str | None) -> dict[str, Any]:
    """What can only be seen with the scans: views and restoration, neighbours, the map of features."""
    content: dict[str, Any] = {"views": [], "views_note": "", "neighbours": [], "neighbours_note": "", "map": None}
    if store is None:
        return content
    network = looks.trained_network(facts) if facts.has_weights else None
    if not facts.task and facts.trained:
        content["views"], content["views_note"] = looks.view_strips(facts, store, network)
    if network is None:
        return content
    sample = looks.embed_sample(facts, store, network, target)
    if sample is None:
        content["neighbours_note"] = (
            "Neighbours and map are left out: embedding a dozen of these scans would take longer than a page should."
        )
        return content
    strips: tuple[list[Strip], str] = looks.neighbour_strips(store, sample)
    content["neighbours"], content["neighbours_note"] = strips
    points, shares = looks.principal_map(sample.features)
    groups = [group or "no label" for group in sample.groups]
    picture = map_figure(points, groups, shares.tolist(), what=sample.what)
    note = f"{len(sample.rows)} scans drawn at random, by their pooled features (PCA), coloured by {sample.what}."
    content["map"] = Panel("Map of the features", picture, note)
    return content
