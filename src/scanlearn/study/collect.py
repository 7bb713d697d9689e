"""What the cells of a study found, gathered by method and label count for statistics and pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scanlearn.catalog.labels import Labels
from scanlearn.engine.run_folder import RunFolder
from scanlearn.errors import ScanlearnError
from scanlearn.files import read_json
from scanlearn.scans.store import Store
from scanlearn.study.detection import read_boxes
from scanlearn.study.grid import Cell, Grid, folder_of
from scanlearn.study.plan import StudyPlan
from scanlearn.study.statistics.runs import Runs, case_runs, score_runs
from scanlearn.study.work import result_of
from scanlearn.tasks.classify import truth_codes
from scanlearn.tasks.detect import labelled_test_rows, reference
from scanlearn.tasks.detection_metrics import detection_draws
from scanlearn.tasks.finetune import target_labels

Key = tuple[str, int | str]  # method, label count


@dataclass(frozen=True)
class Collected:
    """Every finished cell.

    Attributes:
        runs: the main figure of each (method, labels), its seeds in order; a key without a finished cell is absent.
        by_class: the same for each class (Dice of a structure, AUROC of a class against the rest).
        cells: one flat row for each cell: method, labels, seed, every macro figure with its interval.
        labelled: how many scans "all" and each other count meant.
    """

    runs: dict[Key, Runs]
    by_class: dict[str, dict[Key, Runs]]
    cells: list[dict[str, Any]]
    labelled: dict[int | str, int]
    test_scans: int
    test_patients: int


def collect(plan: StudyPlan, grid: Grid, store: Store, out: Path, *, bootstrap: int = 2000) -> Collected:
    """Read the finished cells. Raises ScanlearnError where cells were tested on different scans."""
    found = {cell: result for cell in grid.cells if (result := result_of(out, cell)) is not None}
    rows = [row_of(cell, result) for cell, result in found.items()]
    labelled = {cell.labels: result["labelled_scans"] for cell, result in found.items()}
    groups: dict[Key, list[Cell]] = {}
    for cell in found:
        groups.setdefault((cell.method, cell.labels), []).append(cell)
    if plan.task == "classify":
        over = next((result.get("mean_over") for result in found.values()), None)
        runs, by_class, tested = _classified(plan, groups, store, out, bootstrap, over)
    else:
        read = _segmented if plan.task == "segment" else _detected
        runs, by_class, tested = read(plan, groups, store, out, bootstrap)
    patients = store.catalog.take(tested).patients
    return Collected(runs, by_class, rows, labelled, len(tested), len(np.unique(patients)))


def row_of(cell: Cell, result: dict[str, Any]) -> dict[str, Any]:
    """One line of results.csv."""
    row: dict[str, Any] = {"method": cell.method, "labels": cell.labels, "seed": cell.seed}
    row |= {"labelled_scans": result["labelled_scans"], "steps": result["steps"]}
    for name, found in result["test"]["macro"].items():
        row |= {name: found["value"], f"{name}_low": found.get("low"), f"{name}_high": found.get("high")}
    return row


def _classified(
    plan: StudyPlan,
    groups: dict[Key, list[Cell]],
    store: Store,
    out: Path,
    bootstrap: int,
    mean_over: list[str] | None = None,
) -> tuple[dict[Key, Runs], dict[str, dict[Key, Runs]], np.ndarray]:
    column: Labels = target_labels(store, plan.task, plan.target, plan.classes)
    classes = mean_over or column.classes  # of several labels, those that the figure is the mean of
    runs: dict[Key, Runs] = {}
    by_class: dict[str, dict[Key, Runs]] = {}
    rows = np.zeros(0, np.int64)
    for key, cells in groups.items():
        tables = [_test_rows(folder_of(out, cell) / "predictions.parquet") for cell in cells]
        rows = _same(rows, [t["row"] for t in tables])
        scores = np.stack([np.stack([t[f"score_{name}"] for name in classes], axis=1) for t in tables])
        codes, patients = column.codes[rows], store.catalog.take(rows).patients
        if column.kind == "multilabel":  # as they were tested: by study, say, or without what is not mentioned
            counted = [column.classes.index(name) for name in classes]
            codes = truth_codes(tables[0]["truth"].tolist(), column.classes)[:, counted]
        seeds = [cell.seed for cell in cells]
        options = {"figure": plan.main_figure, "seeds": seeds, "bootstrap": bootstrap}
        runs[key] = score_runs(scores, codes, classes, patients, **options)  # type: ignore[arg-type]
        if len(column.classes) > 2 and codes.ndim == 1:
            for i, name in enumerate(column.classes):
                one = np.where(codes < 0, -1, codes == i)
                pair = np.stack([1 - scores[..., i], scores[..., i]], axis=-1)
                against = score_runs(pair, one, [f"not {name}", name], patients, **options)  # type: ignore[arg-type]
                by_class.setdefault(name, {})[key] = against
    return runs, by_class, rows


def _test_rows(path: Path) -> dict[str, np.ndarray]:
    table = pq.read_table(path)
    columns = {name: np.asarray(table[name]) for name in table.column_names if name != "part"}
    test = np.asarray(table["part"].to_pylist()) == "test"
    return {name: values[test] for name, values in columns.items()}


def _segmented(
    plan: StudyPlan, groups: dict[Key, list[Cell]], store: Store, out: Path, bootstrap: int
) -> tuple[dict[Key, Runs], dict[str, dict[Key, Runs]], np.ndarray]:
    classes: list[str] = []  # or regions, as the cells have them
    runs: dict[Key, Runs] = {}
    by_class: dict[str, dict[Key, Runs]] = {}
    rows = np.zeros(0, np.int64)
    for key, cells in groups.items():
        tables = [pq.read_table(folder_of(out, cell) / "cases.parquet") for cell in cells]
        rows = _same(rows, [np.asarray(t["row"]) for t in tables])
        figure = plan.main_figure
        classes = _same_classes(classes, [_figures_of(t, figure) for t in tables])
        values = np.stack([np.stack([np.asarray(t[f"{figure}_{name}"]) for name in classes]) for t in tables])
        patients, seeds = store.catalog.take(rows).patients, [cell.seed for cell in cells]
        runs[key] = case_runs(_mean_over_classes(values), patients, seeds=seeds, bootstrap=bootstrap)
        for i, name in enumerate(classes if len(classes) > 1 else ()):
            of_class = case_runs(values[:, i], patients, seeds=seeds, bootstrap=bootstrap)
            by_class.setdefault(name, {})[key] = of_class
    return runs, by_class, rows


def _detected(
    plan: StudyPlan, groups: dict[Key, list[Cell]], store: Store, out: Path, bootstrap: int
) -> tuple[dict[Key, Runs], dict[str, dict[Key, Runs]], np.ndarray]:
    rows = labelled_test_rows(store)
    truth, patients = reference(store, rows), store.catalog.take(rows).patients
    runs: dict[Key, Runs] = {}
    for key, cells in groups.items():
        draws = []
        for cell in cells:
            run = RunFolder(folder_of(out, cell))
            result = read_json(run.results, f"The results of {cell.name}")
            found = read_boxes(run, rows)
            options: dict[str, Any] = {"threshold": result["score_threshold"], "bootstrap": bootstrap}
            draws.append(detection_draws(found, truth, patients, **options)[plan.main_figure])
        seeds = tuple(cell.seed for cell in cells)
        runs[key] = Runs(np.stack(draws), len(np.unique(patients)), seeds, groups=np.asarray(patients))
    return runs, {}, rows


def _figures_of(table: pa.Table, figure: str) -> list[str]:
    """The structures that a table of cases has a figure of."""
    return [name.removeprefix(f"{figure}_") for name in table.column_names if name.startswith(f"{figure}_")]


def _same_classes(classes: list[str], found: list[list[str]]) -> list[str]:
    first = classes or found[0]
    if any(other != first for other in found):
        raise ScanlearnError(
            "Cells of this study segment different structures: give all methods the same objectives.segment.regions."
        )
    return first


def _mean_over_classes(values: np.ndarray) -> np.ndarray:
    """(S, N) from (S, K, N): the mean over the classes that a case has; NaN where it has none."""
    known = np.isfinite(values)
    count = known.sum(axis=1)
    total = np.where(known, values, 0).sum(axis=1)
    return np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)


def _same(rows: np.ndarray, found: list[np.ndarray]) -> np.ndarray:
    """The rows that were tested, if they are those of all others."""
    first = rows if len(rows) else found[0]
    if any(not np.array_equal(first, other) for other in found):
        raise ScanlearnError("Cells of this study were tested on different scans: begin it again in another folder.")
    return first
