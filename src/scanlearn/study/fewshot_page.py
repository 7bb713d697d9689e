"""The page of a few-shot diagnosis: curves over shots for each source, and every classifier in tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scanlearn import __version__
from scanlearn.files import read_json, write_atomic
from scanlearn.study.page import Panel, Table, count, measured, number, render
from scanlearn.study.study_figures import label_figure
from scanlearn.tasks.bootstrap import ONE_PATIENT

NAMES = {
    "accuracy": "accuracy",
    "auc": "AUC",
    "precision": "precision",
    "recall": "recall",
    "specificity": "specificity",
    "f1": "F1",
}


def fewshot_page(folder: str | Path) -> Path:
    """Write ``folder``/report.html from the results.json that ``fewshot`` wrote there, and return its path.

    Sources are called by the names of their folders: the page names no patient and no path.
    """
    folder = Path(folder)
    results = read_json(folder / "results.json", f"{folder / 'results.json'}")
    sources = results["sources"]
    classifiers = list(results["results"][sources[0]])
    page = render(
        "fewshot.html.jinja",
        title=f"Few-shot diagnosis: {results['target']}",
        version=__version__,
        sentence=sentence(results, classifiers[0]),
        key_figures=[
            ("episodes", f"{results['episodes']:,}", f"of {results['ways']} ways"),
            ("patients", f"{results['patients']:,}", "support and query never share one"),
            ("scans", f"{results['scans']:,}", "features computed once for each source"),
            ("short episodes", f"{results['episodes_short_of_queries']:,}", "with fewer queries than asked"),
        ],
        panels=[
            Panel(f"{NAMES[figure]}, {name}", curve(results, sources, name, figure), note_of(results, name))
            for name in classifiers
            for figure in ("accuracy", "auc")
        ],
        tables=[*(table(results, sources, figure) for figure in NAMES), pooled_table(results, sources)],
    )
    write_atomic(folder / "report.html", page)
    return folder / "report.html"


def sentence(results: Mapping[str, Any], classifier: str) -> str:
    """What the first run reaches with the most shots, and what that is against the others."""
    run, *others = results["sources"]
    shots = str(max(results["shots"]))
    found = figure_of(results["results"][run][classifier][shots], "accuracy")
    against = [
        f"{told(results['differences'][other][classifier][shots]['accuracy'], '+.3f')} to {other}"
        for other in others
        if classifier in results["differences"][other]
    ]
    versus = f" Differences: {', '.join(against)}." if against else ""
    labelled = count(int(shots), "labelled scan")
    whose = "" if found["low"] is None else ", with its 95 % interval over patients"
    return (
        f"With {labelled} of each class, the accuracy of {classifier} on {run} is {told(found, '.3f')}{whose}; "
        f"guessing reaches {1 / results['ways']:.3f}.{versus}"
    )


def told(found: Mapping[str, Any], form: str) -> str:
    """A figure with its interval in a sentence; only what can be told."""
    value, low, high = (found[name] for name in ("value", "low", "high"))
    if value is None:
        return "not known"
    return f"{value:{form}}" + ("" if low is None or high is None else f" ({low:{form}} to {high:{form}})")


def figure_of(by_figure: Mapping[str, Any], figure: str) -> dict[str, Any]:
    """``{"value", "low", "high"}`` with the interval over patients."""
    found = by_figure[figure]
    return {"value": found["mean"], **{end: found["patient_interval"][end] for end in ("low", "high")}}


def note_of(results: Mapping[str, Any], classifier: str) -> str:
    """What a diagram says where its classifier was not asked in all episodes, as fine-tuning is."""
    episodes = results["results"][results["sources"][0]][classifier][str(results["shots"][0])]["accuracy"]["episodes"]
    return "" if episodes == results["episodes"] else f"Only in the first {count(episodes, 'episode')}."


def curve(results: Mapping[str, Any], sources: Sequence[str], classifier: str, figure: str) -> Any:
    """One line for each source over the number of labelled scans, which is shots times ways."""
    sources = [source for source in sources if classifier in results["results"][source]]
    shots = [str(k) for k in results["shots"]]
    facts = {
        "labels": [{"asked": k, "scans": int(k) * results["ways"]} for k in shots],
        "methods": list(sources),
    }
    means = {
        k: {
            source: figure_of(results["results"][source][classifier][k], figure) | {"by_seed": {}} for source in sources
        }
        for k in shots
    }
    return label_figure(facts, means, name=NAMES[figure])


def table(results: Mapping[str, Any], sources: Sequence[str], figure: str) -> Table:
    """The figure of every source and classifier at each number of shots."""
    shots = [str(k) for k in results["shots"]]
    rows: list[list[Any]] = [
        [f"{source}, {classifier}", *(measured(figure_of(by_shots[k], figure)) for k in shots)]
        for source in sources
        for classifier, by_shots in results["results"][source].items()
    ]
    note = "Mean over episodes; intervals over the patients who were asked about."
    if results["bootstrap"].get("patients", 2) < 2:
        note = f"Mean over episodes. All queries are of one patient, and {ONE_PATIENT}."
    if "finetuning" in results:
        tuned = results["finetuning"]
        told = f"{count(tuned['episodes'], 'episode')}, {count(tuned['steps'], 'step')} each"
        note += f" Fine-tuning: the first {told}."
    return Table(NAMES[figure], ["", *(count(int(k), "shot") for k in shots)], rows, note=note)


def pooled_table(results: Mapping[str, Any], sources: Sequence[str]) -> Table:
    """The AUC of the queries of all episodes in one ranking."""
    shots = [str(k) for k in results["shots"]]
    rows: list[list[Any]] = [
        [f"{source}, {classifier}", *(number(by_shots[k].get("pooled_auc")) for k in shots)]
        for source in sources
        for classifier, by_shots in results["results"][source].items()
    ]
    note = (
        "The queries of all episodes in one ranking, as some papers report it. Scores of two episodes need not have one "
        "scale, so it is mostly below the mean of the episodes; it has no interval."
    )
    return Table("AUC, pooled", ["", *(count(int(k), "shot") for k in shots)], rows, note=note)
