"""The first lines of a page: one sentence in plain words, and the figures that a reader looks for first."""

from __future__ import annotations

from typing import Any

from scanlearn.study.facts import Facts
from scanlearn.study.page import count, measured, number

MAIN = {"classify": ("auroc", "AUROC"), "segment": ("dice", "Dice"), "detect": ("ap50", "AP50")}
SHOWN = {"classify": ("auroc", "ap"), "segment": ("dice", "hd95"), "detect": ("ap50", "challenge")}
NAMES = {"auroc": "AUROC", "ap": "average precision", "dice": "Dice", "hd95": "HD95", "ap50": "AP50"}
NAMES |= {"challenge": "challenge score"}


def duration(minutes: float) -> str:
    """ "under a minute", "12 minutes", "3.5 hours", "2.1 days"."""
    if minutes < 1:
        return "under a minute"
    if minutes < 90:
        return count(round(minutes), "minute")
    return f"{minutes / 60:.1f} hours" if minutes < 2880 else f"{minutes / 1440:.1f} days"


def short_duration(minutes: float) -> str:
    """The same in few letters: "< 1 min", "12 min", "3.5 h", "2.1 d"."""
    number, _, unit = duration(minutes).partition(" ")
    units = {"minute": "min", "minutes": "min", "hours": "h", "days": "d"}
    return "< 1 min" if number == "under" else f"{number} {units[unit]}"


def sentence(facts: Facts) -> str:
    """What was learned from what."""
    if facts.task and facts.results:
        return _tested(facts)
    masks = facts.notes.get("masks")
    learnt_from = _scans(facts, "labelled " if facts.task else "" if masks else "unlabelled ")
    if masks:
        learnt_from += f" and the masks of {masks:,}"
    method = facts.recipe.get("title") or facts.recipe["name"]
    done_steps = f"{facts.steps:,}"
    if not facts.finished and not facts.recipe.get("epochs"):
        done_steps += f" of {facts.recipe['steps']:,}"
    batch = count(facts.recipe["batch_size"], "scan")
    done = f"{done_steps} steps of {batch}, {duration(facts.minutes)} of training"
    if facts.finished:
        return f"Learned from {learnt_from} by {method}: {done}."
    return f"Not finished: {done}, by {method}, on {learnt_from}."


def _scans(facts: Facts, kind: str) -> str:
    scans, patients = facts.environment.get("scans"), facts.environment.get("patients")
    if scans is None or patients is None:
        return "a number of scans that the run does not say"
    if not facts.patients_known:
        return f"{count(scans, f'{kind}scan')} (patients not known)"
    return f"{count(scans, f'{kind}scan')} of {count(patients, 'patient')}"


def _tested(facts: Facts) -> str:
    results, test = facts.results, facts.results["test"]
    key, name = MAIN[facts.task]
    figure = measured(test["macro"][key])
    task = {"segment": "Segmentation", "detect": "Detection"}.get(facts.task, f"Classification of {results['target']}")
    classes = [c for c in results["classes"] if facts.task == "classify" or c != "background"]
    into = f" ({', '.join(classes)})" if len(classes) <= 8 else f" ({len(classes)} classes)"
    if facts.task == "detect":
        into = ""
    if facts.task == "segment" and all(name.isdigit() for name in classes):  # masks name their classes by number only
        into = f" of {len(classes)} mask class" + "es" * (len(classes) > 1)
    begun = "from scratch" if facts.init == "none" else f"starting from the weights of {facts.init}"
    mean = "mean " if len(test["classes"]) > 1 else ""
    interval = f" (95\u00a0% interval {figure.interval})" if figure.interval else ""
    learnt = count(results["labelled_scans"], "labelled scan")
    mode = {"linear": ", encoder frozen", "frozen": ", logistic regression on frozen features"}.get(results["mode"], "")
    tested = count(test["cases"], "scan")
    whose = f" of {count(test['patients'], 'patient')} whom" if facts.patients_known else " (patients not known) that"
    return (
        f"{task}{into}, learned from {learnt}, {begun}{mode}: {mean}{name} {figure.value}{interval} "
        f"on {tested}{whose} fine-tuning never saw.{_against_guessing(facts, test)}"
    )


def _against_guessing(facts: Facts, test: dict[str, Any]) -> str:
    found = test["macro"]["auroc"] if facts.task == "classify" else {}
    low, high = found.get("low"), found.get("high")
    if low is None or high is None or low > 0.5:
        return ""
    if high < 0.5:
        return " The whole interval lies below 0.5: worse than guessing."
    return " The interval includes 0.5, so this cannot be told from guessing."


def key_figures(facts: Facts) -> list[tuple[str, str, str]]:
    """(name, figure, words under it), three or four."""
    return _tested_figures(facts) if facts.results else _trained_figures(facts)


def _tested_figures(facts: Facts) -> list[tuple[str, str, str]]:
    results, test = facts.results, facts.results["test"]
    mean = "mean " if len(test["classes"]) > 1 else ""
    figures = []
    for key in SHOWN[facts.task]:
        found = measured(test["macro"][key], 1 if key == "hd95" else 3)
        figures.append((mean + NAMES[key], found.value, found.interval and f"95\u00a0% interval {found.interval}"))
    patients = count(results["labelled_patients"], "patient") if facts.patients_known else "patients not known"
    tested = count(test["patients"], "patient") if facts.patients_known else "patients not known"
    return [
        *figures,
        ("labels used", f"{results['labelled_scans']:,}", patients),
        ("scans tested", f"{test['cases']:,}", tested),
    ]


def _trained_figures(facts: Facts) -> list[tuple[str, str, str]]:
    scans, patients = facts.environment.get("scans", 0), facts.environment.get("patients", 0)
    whose = count(patients, "patient") if facts.patients_known else "patients not known"
    figures = [
        ("scans", f"{scans:,}", whose),
        ("steps", f"{facts.steps:,}", f"of {count(facts.recipe['batch_size'], 'scan')}"),
        ("training time", short_duration(facts.minutes), _speed(facts)),
    ]
    if facts.train and len(facts.train) > 1:
        first, last = facts.train[0], facts.train[-1]
        figures.append(("loss", number(last.get("loss")), f"{number(first.get('loss'))} at step {first['step']:,}"))
    probes = [key for key in (facts.monitor[-1] if facts.monitor else {}) if key.startswith("knn_auroc_")]
    if probes:
        target = probes[0].removeprefix("knn_auroc_")
        before, after = facts.monitor[0].get(probes[0]), facts.monitor[-1].get(probes[0])
        begun = f"{number(before)} at step {facts.monitor[0]['step']:,}, from frozen features"
        figures.append((f"nearest-neighbour AUROC of {target}", number(after), begun))
    return figures


def _speed(facts: Facts) -> str:
    speeds = [line["images_per_second"] for line in facts.train if line.get("images_per_second")]
    return f"{sorted(speeds)[len(speeds) // 2]:,.0f} scans per second" if speeds else ""
