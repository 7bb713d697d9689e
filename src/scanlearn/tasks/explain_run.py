"""``explain``: heat maps of a fine-tuned classifier on a part of a store, judged by boxes where there are any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from scanlearn.catalog.boxes import BOX_FINDINGS, COLUMN
from scanlearn.console import say, track
from scanlearn.discovery.recurrence import evenly
from scanlearn.engine.device import default_device
from scanlearn.engine.leaks import not_seen
from scanlearn.errors import ScanlearnError, unknown
from scanlearn.files import make_folder, write_json
from scanlearn.scans.store import Store, open_store
from scanlearn.tasks.bootstrap import ONE_PATIENT, in_words
from scanlearn.tasks.classify import scan_scores
from scanlearn.tasks.explain import heat
from scanlearn.tasks.explain_boxes import box_cases, case_figures, localisation
from scanlearn.tasks.trained import Trained, load_trained

PARTS = ("train", "val", "test", "all")
MOST = 400  # scans that are scored, evenly from the part, where no box says which to look at
SHOWN = 4  # scans of each class without boxes


def explain(
    run: str | Path,
    store: str | Path | Store,
    *,
    out: str | Path,
    classes: Sequence[str] | None = None,
    part: str = "test",
    stage: int = -1,
    threshold: float = 0.5,
) -> dict[str, Any]:
    """Say where the classifier of a run looks, and write it to ``out``/results.json.

    With boxes in a 2D store every class on every scan that has boxes of it is judged (``localisation``); without, the
    scans of each class that the classifier is surest of are listed, of different patients, for the pictures.

    Args:
        run: a fine-tuned classifier.
        store: prepared as the one that it was trained on.
        out: a folder.
        classes: by default those that the boxes are of; without boxes the last one.
        part: train | val | test | all.
        stage: of the encoder's maps, fine to coarse from 0; -1 is the last.
        threshold: from which share of a map's maximum a pixel belongs to the hot spot.

    Raises:
        ScanlearnError: no classifier; another number of dimensions; an unknown class, part or stage; no box of a class; a
            val or test part of which the run, or one before it, was trained on patients or files.
    """
    trained = load_trained(run, default_device())
    store = store if isinstance(store, Store) else open_store(store)
    if part not in PARTS:
        raise unknown("part", part, PARTS)
    if not 0 < threshold < 1:
        raise ScanlearnError(f"The threshold is a share of the map's maximum, between 0 and 1, not {threshold}.")
    _check(trained, store, run)
    rows = np.arange(len(store)) if part == "all" else np.asarray(store.splits[part])
    boxed = store.spatial_dims == 2 and COLUMN in store.catalog.extra_columns
    names = chosen_classes(trained.facts["classes"], classes, store if boxed else None)
    facts = {"run": Path(run).resolve().name, "store": store.info["key"], "part": part, "classes": names}
    facts |= {"stage": stage, "threshold": threshold, "checked": asdict(not_seen(run, store, part))}
    found = (_judged if boxed else _surest)(trained, store, rows, names, stage, threshold)
    results = {**facts, **found}
    make_folder(Path(out))
    write_json(Path(out) / "results.json", results)
    return results


def chosen_classes(known: Sequence[str], asked: Sequence[str] | None, boxed: Store | None) -> list[str]:
    """The classes to explain: those asked for, or those that a store's boxes are of, or the last."""
    for name in asked or ():
        if name not in known:
            raise unknown("class", name, known)
    if asked:
        return list(asked)
    if boxed is not None and BOX_FINDINGS in boxed.catalog.extra_columns:
        shown = {name for cell in boxed.catalog.column(BOX_FINDINGS) for name in cell.split(";")}
        return [name for name in known if name in shown] or [known[-1]]
    return [known[-1]]


def _check(trained: Trained, store: Store, run: str | Path) -> None:
    if trained.facts["task"] != "classify":
        raise ScanlearnError(
            f"{run} is no classifier (its task is {trained.facts['task']}): only classes are explained."
        )
    dims = trained.network.encoder.spatial_dims
    if dims != store.spatial_dims:
        raise ScanlearnError(f"The classifier takes {dims}D scans, {store.path.name} holds {store.spatial_dims}D ones.")


def _judged(
    trained: Trained, store: Store, rows: np.ndarray, names: list[str], stage: int, threshold: float
) -> dict[str, Any]:
    cases = box_cases(store, rows, names)
    absent = [name for name in names if name not in {case.name for case in cases}]
    if absent:
        say(f"  not judged, as no box of them was drawn on these scans: {', '.join(absent)}")
    places = [trained.facts["classes"].index(case.name) for case in cases]
    figures, listed = [], []
    for case, place in track(zip(cases, places, strict=True), len(cases), "explaining"):
        maps, score = heat(trained, store, case.row, [place], stage)
        figures.append(case_figures(maps[0], case.boxes, threshold))
        listed.append({"row": case.row, "class": case.name, "probability": float(score[place]), **figures[-1]})
    patients = store.catalog.patients[np.array([case.row for case in cases])]
    judged = localisation(cases, figures, patients)
    for name in ("iou", "pointing"):
        say(f"  {name:10} {in_words(judged['macro'][name])}")
    whose = f"{judged['patients']} patients" if judged["patients"] > 1 else ONE_PATIENT
    say(f"  a blind finger would hit {judged['macro']['share']:.3f}; {len(cases)} cases, {whose}")
    return {"localisation": judged, "cases": listed}


def _surest(
    trained: Trained, store: Store, rows: np.ndarray, names: list[str], stage: int, threshold: float
) -> dict[str, Any]:
    if not len(rows):
        raise ScanlearnError(f"{store.path.name} has no scan in that part: choose another --part.")
    some = rows[evenly(len(rows), MOST)]
    device = next(trained.network.parameters()).device
    facts = {**trained.facts, "crops": 1}
    scores = scan_scores(trained.network, trained.class_logits, store, some, facts, device)
    patients, listed = store.catalog.patients[some], []
    for name in names:
        place, seen = trained.facts["classes"].index(name), set[str]()
        for i in np.argsort(-scores[:, place], kind="stable"):
            if patients[i] not in seen and len(seen) < SHOWN:
                seen.add(patients[i])
                listed.append({"row": int(some[i]), "class": name, "probability": float(scores[i, place])})
    say(f"  {store.path.name} has no boxes to judge by; {len(listed)} scans are shown.")
    return {"localisation": None, "cases": listed}
