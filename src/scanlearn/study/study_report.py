"""The page of a study: the answer in a sentence, tables, curves, cases, what was checked, how to repeat it; one file."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml

from scanlearn import __version__
from scanlearn.console import say
from scanlearn.engine.recipe_file import read_yaml
from scanlearn.engine.record import read_record
from scanlearn.engine.run_folder import RunFolder
from scanlearn.errors import ScanlearnError
from scanlearn.files import write_atomic, write_json
from scanlearn.networks.network import Network
from scanlearn.scans.store import Store
from scanlearn.study import cases, looks
from scanlearn.study.analysis import NAMES, analyse
from scanlearn.study.checks import masks_seen
from scanlearn.study.collect import collect
from scanlearn.study.detection import box_strips
from scanlearn.study.export import latex_table, results_csv
from scanlearn.study.facts import Facts, read_facts
from scanlearn.study.figures import dots_figure, map_figure
from scanlearn.study.grid import Cell, Grid, folder_of
from scanlearn.study.page import Cell as TableCell
from scanlearn.study.page import Command, Panel, Strip, Table, count, measured, number, render
from scanlearn.study.pairs import comparison_tables, to_twins
from scanlearn.study.plan import StudyPlan
from scanlearn.study.statistics.sentences import p_text
from scanlearn.study.study_figures import difference_figure, label_figure, ranks_figure
from scanlearn.study.tables import environment_table
from scanlearn.study.viewer import Viewer, viewer_of
from scanlearn.study.work import PLAN, result_of
from scanlearn.tasks.bootstrap import ONE_PATIENT


def write_study(plan: StudyPlan, grid: Grid, store: Store, out: Path) -> Path:
    """Write study.json, results.csv, tables.tex and report.html from what the cells found; returns the page."""
    found = collect(plan, grid, store, out)
    facts = analyse(plan, grid, store, out, found)
    write_json(out / "study.json", facts)
    write_atomic(out / "results.csv", results_csv(facts))
    write_atomic(out / "tables.tex", latex_table(facts))
    write_atomic(out / "report.html", page(plan, grid, store, out, facts))
    for sentence in facts["answer"]:
        say(sentence)
    return out / "report.html"


def page(plan: StudyPlan, grid: Grid, store: Store, out: Path, facts: dict[str, Any]) -> str:
    """The page as text."""
    name = NAMES.get(facts["figure"], facts["figure"])
    last = [
        cell for cell in grid.cells if result_of(out, cell) is not None and cell.labels == facts["labels"][-1]["asked"]
    ]
    best = facts["verdicts"].get(str(facts["labels"][-1]["asked"]), {}).get("best")
    pretrained = finished_pretrainings(grid, out)
    return render(
        "study.html.jinja",
        title=f"{question(plan)} · {store.path.name}",
        version=__version__,
        answers=[v["sentence"] for v in facts["verdicts"].values()],
        key_figures=key_figures(facts, name),
        notices=[*notices(facts, store), *masks_seen(plan, grid)],
        means=means_table(facts, facts["means"], f"Mean {name} of {count(plan.seeds, 'seed')}"),
        panels=panels(facts, name),
        worth=[w["sentence"] for w in facts["worth"]],
        comparisons=comparison_tables(facts, name),
        classes=[means_table(facts, means, f"{name} of class {c}") for c, means in facts["by_class"].items()],
        case_panels=case_panels(plan, out, last),
        cases=case_strips(plan, store, out, last, best),
        legend=plan.task in ("segment", "detect"),
        viewer=volume_viewer(plan, store, out, last, best),
        features=feature_panels(plan, pretrained, store),
        restored=restored_strips(pretrained, store),
        checks=check_sentences(grid, store, out),
        parts_table=split_table(store),
        failed=facts["failed"],
        missing=facts["missing"],
        repeat=Command(
            f"scanlearn study {PLAN} --out {shlex.quote(out.name)}-again", "study.yaml lies beside this page."
        ),
        environment=environment_table(facts["machine"], 0),
        plan=plan_words(out),
        store_key=facts["question"]["store_key"],
        date=facts["date"],
    )


def plan_words(out: Path) -> str:
    """The plan as YAML in which whatever is a path goes by its last part: paths name people and places."""

    def named(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: named(inner) for key, inner in value.items()}
        return Path(value).name if isinstance(value, str) and "/" in value else value

    plan = read_yaml(out / PLAN, f"The {PLAN} of the study")
    return yaml.safe_dump(named(plan), sort_keys=False, width=88, allow_unicode=True)


def key_figures(facts: dict[str, Any], name: str) -> list[tuple[str, str, str]]:
    """The best mean at the smallest and the largest label count, and the size of the study."""
    found = []
    for entry in dict.fromkeys((facts["labels"][0]["scans"], facts["labels"][-1]["scans"])):
        asked = next(e["asked"] for e in facts["labels"] if e["scans"] == entry)
        means = facts["means"][str(asked)]
        best = (max if facts["higher_is_better"] else min)(means, key=lambda m: means[m]["value"])
        found.append((f"{entry:,} labels", number(means[best]["value"]), f"{name}, {best}"))
    cells = len(facts["cells"])
    found.append(("fine-tunings", f"{cells:,}", f"{len(facts['methods'])} methods, {facts['question']['seeds']} seeds"))
    found.append(("test scans", f"{facts['test']['scans']:,}", f"of {count(facts['test']['patients'], 'patient')}"))
    return found


def notices(facts: dict[str, Any], store: Store) -> list[str]:
    """What a reader must not miss."""
    found = []
    if facts["missing"]:
        found.append(f"{len(facts['missing'])} cells of the study have no result yet or failed; they are listed below.")
    if facts["test"]["patients"] < 2:
        seeds = "there are no intervals" if facts["question"]["seeds"] < 2 else "the intervals speak of seeds alone"
        found.append(f"The test part is of one patient, so {seeds}: {ONE_PATIENT}.")
    if not store.catalog.patients_known:
        found.append("The scans came without patients, so each counts as its own patient and leaks cannot be seen.")
    if facts["question"]["pretraining_seeds"] == 1 and facts["twins"]:
        found.append(
            "Each method was pre-trained once: the intervals speak of new labels, fine-tunings and patients, not of a new "
            "pre-training."
        )
    return found


def means_table(facts: dict[str, Any], means: dict[str, Any], caption: str) -> Table:
    """Methods by label counts, each mean with its interval over seeds and patients."""
    head = [
        "method",
        *(f"all {e['scans']:,} labels" if e["asked"] == "all" else f"{e['scans']:,} labels" for e in facts["labels"]),
    ]
    rows: list[list[TableCell]] = []
    for method in facts["methods"]:
        line: list[TableCell] = [method]
        for entry in facts["labels"]:
            found = means.get(str(entry["asked"]), {}).get(method)
            line.append(measured(found) if found else "–")
        rows.append(line)
    return Table(caption, head, rows, note="Intervals: 95 %, over seeds and patients together.")


def question(plan: StudyPlan) -> str:
    """What is learned, in a few words: the classes where they were chosen, else the column."""
    if plan.task in ("segment", "detect"):
        return {"segment": "Segmentation", "detect": "Detection"}[plan.task]
    return " or ".join(plan.classes) if plan.classes and len(plan.classes) <= 3 else str(plan.target)


def panels(facts: dict[str, Any], name: str) -> list[Panel]:
    """Curves over label counts, differences to the twin, mean ranks."""
    title = f"{name} over labels"
    found = [
        Panel(
            title, label_figure(facts, facts["means"], name=name), "Marks are means, bars 95 % intervals, dashes seeds."
        )
    ]
    rows = [(f"{c['method']}, {c['labels']:,}", c["difference"]) for c in to_twins(facts)]
    if rows:
        note = "Against the twin from scratch. Filled: the interval leaves no difference out (before correction)."
        found.append(Panel("Gain by pre-training", difference_figure(rows, name=name), note))
    if facts["ranks"]:
        ranks = facts["ranks"]
        note = (
            f"Over {ranks['blocks']} pairs of label count and seed; methods under one bar do not differ (Nemenyi, critical "
            f"difference {ranks['critical_difference']:.2f}; Friedman {p_text(ranks['p_friedman'])})."
        )
        found.append(Panel("Mean ranks", ranks_figure(ranks), note))
    return found


def case_panels(plan: StudyPlan, out: Path, cells: list[Cell]) -> list[Panel]:
    """For segmentation the Dice of each case of each method, averaged over its seeds, at the largest label count."""
    if plan.task != "segment":
        return []
    groups: dict[str, list[np.ndarray]] = {}
    for cell in cells:
        table = pq.read_table(folder_of(out, cell) / "cases.parquet")
        columns = [np.array(table[c].to_pylist(), np.float64) for c in table.column_names if c.startswith("dice_")]
        groups.setdefault(cell.method, []).append(np.nanmean(columns, axis=0))
    means = {method: np.nanmean(values, axis=0) for method, values in groups.items()}
    return (
        [Panel("Dice of each case", dots_figure(means, name="Dice"), "Mean over classes and seeds, most labels.")]
        if means
        else []
    )


def case_strips(plan: StudyPlan, store: Store, out: Path, cells: list[Cell], best: str | None) -> list[Strip]:
    """Worst and best test scans of the method with the best mean and of a network from scratch, first seed each."""
    strips = []
    scratch = next((c.method for c in cells if c.from_scratch), None)
    for method in dict.fromkeys(m for m in (best, scratch) if m):
        cell = next((c for c in cells if c.method == method), None)
        if cell is None:
            continue
        facts = read_facts(folder_of(out, cell))
        if plan.task == "segment":
            found = cases.example_strips(facts.run, store.spatial_dims)
        elif plan.task == "detect":
            found = box_strips(facts.run, facts.results["score_threshold"], store)
        else:
            found = cases.extreme_strips(cases.read_predictions(facts.run, facts.results), store)
        strips += [Strip(f"{method}: {strip.title.lower()}", strip.pictures, strip.columns) for strip in found]
    return strips


def volume_viewer(plan: StudyPlan, store: Store, out: Path, cells: list[Cell], best: str | None) -> Viewer | None:
    """The worst and best volume of the case strips, for the viewer; None where there is nothing to turn."""
    cell = next((c for c in cells if c.method == best), None)
    if plan.task != "segment" or cell is None:
        return None
    return viewer_of(store, folder_of(out, cell))


def finished_pretrainings(grid: Grid, out: Path) -> list[tuple[str, Facts, Network]]:
    """The first pre-training of each method: its title, its facts, its network."""
    first = [p for p in grid.pretrainings if p.seed == 0 and result_of(out, p) is not None]
    found = [(p.name.rpartition("-seed")[0], read_facts(folder_of(out, p))) for p in first]
    return [(title, facts, looks.trained_network(facts)) for title, facts in found]


def feature_panels(plan: StudyPlan, pretrained: list[tuple[str, Facts, Network]], store: Store) -> list[Panel]:
    """Maps of each pre-trained network's features, coloured by label, by source and by patient where these say something."""
    found = []
    for title, facts, network in pretrained:
        sample = looks.embed_sample(facts, store, network, plan.target)
        if sample is None or not np.isfinite(sample.features).all():
            continue
        points, shares = looks.principal_map(sample.features)
        for what, groups in colourings(store, sample):
            picture = map_figure(points, groups, shares.tolist(), what=what)
            found.append(Panel(f"{title}, by {what}", picture, f"{len(sample.rows)} scans, pooled features (PCA)."))
    return found


def colourings(store: Store, sample: Any) -> list[tuple[str, list[str]]]:
    """(what, group of each scan): the label or part; the source where there are several; the patients with most scans."""
    found = [(sample.what, [group or "no label" for group in sample.groups])]
    sources = store.catalog.take(sample.rows).column("dataset")
    if len(set(sources)) > 1:
        found.append(("source", sources))
    names, counts = np.unique(np.asarray(sample.patients, dtype=str), return_counts=True)
    many = [name for name, n in sorted(zip(names, counts, strict=True), key=lambda pair: -pair[1]) if n >= 3][:7]
    if len(many) > 1:
        number_of = {name: f"patient {i + 1}" for i, name in enumerate(many)}  # the page names nobody
        found.append(("patient", [number_of.get(str(p), "other") for p in sample.patients]))
    return found


def restored_strips(pretrained: list[tuple[str, Facts, Network]], store: Store) -> list[Strip]:
    """What each pre-training was shown and, where it restores, what it makes of it."""
    strips = []
    for title, facts, network in pretrained:
        found, _ = looks.view_strips(facts, store, network)
        strips += [Strip(f"{title}: {strip.title.lower()}", strip.pictures, strip.columns) for strip in found[:2]]
    return strips


def check_sentences(grid: Grid, store: Store, out: Path) -> list[str]:
    """How many patients and files of the test part any training saw, counted anew from every run's own record."""
    words = []
    test = np.asarray(store.splits["test"])
    tested = store.catalog.take(test)
    patients, files = set(map(str, tested.patients)), {f for f in tested.column("sha256") if f}
    for kind, tasks, part in (
        ("pre-training", grid.pretrainings, "pre-training"),
        ("fine-tuning", grid.cells, "fine-tuning"),
    ):
        runs = shared = copies = 0
        for task in tasks:
            if result_of(out, task) is None:
                continue
            record = read_record(RunFolder(folder_of(out, task)))
            if record is None or part not in record.parts:
                raise ScanlearnError(f"{task.name} does not list its scans: delete its folder and run the study again.")
            runs += 1
            shared += len(patients & set(record.patients(part).to_pylist()))
            copies += len(files & {digest.hex() for digest in record.files(part).to_pylist()})
        words.append(
            f"{count(runs, f'{kind} run')}: {shared or 'none'} of the {count(len(patients), 'test patient')} and "
            f"{copies or 'none'} of their files {'was' if shared + copies == 1 else 'were'} trained on."
        )
    if not store.catalog.patients_known:
        words.append("Patients are not known, so nobody can say whether one of them is in two parts.")
    words.append("Not checked: whether other data sets, from which given weights came, hold the same patients.")
    return words


def split_table(store: Store) -> Table:
    """Scans and patients of each part of the store."""
    rows: list[list[TableCell]] = [
        [part, f"{len(rows):,}", f"{store.catalog.count_patients(np.asarray(rows)):,}"]
        for part, rows in store.splits.items()
    ]
    return Table("Parts of the store, by patient", ["part", "scans", "patients"], rows)
