"""The page of ``explain``: figures against boxes, and heat maps over the scans, the best and the worst."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from scanlearn import __version__
from scanlearn.engine.device import default_device
from scanlearn.errors import ScanlearnError
from scanlearn.files import read_json, write_atomic
from scanlearn.scans.store import Store, open_store
from scanlearn.study.page import Cell, Picture, Strip, Table, count, measured, number, percent, render
from scanlearn.study.pictures import box_tile, pixel_ratio, ratio_of, scan_slices, tile, upright
from scanlearn.tasks.bootstrap import ONE_PATIENT
from scanlearn.tasks.explain import heat
from scanlearn.tasks.explain_boxes import OVERLAPS, box_cases, hot_box
from scanlearn.tasks.trained import Trained, load_trained

SHOWN = 4  # best and worst cases of each class
COVER = 0.6  # of a pixel by the hottest colour
COLOURS = "inferno"


def explain_page(folder: str | Path, run: str | Path, store: str | Path | Store) -> Path:
    """Write ``folder``/report.html from the results.json that ``explain`` wrote there, and return its path.

    The heat maps of the shown scans are computed again. No patient, file or path is named.
    """
    folder = Path(folder)
    results = read_json(folder / "results.json", f"{folder / 'results.json'}")
    opened = store if isinstance(store, Store) else open_store(store)
    if opened.info["key"] != results["store"]:
        raise ScanlearnError(f"{opened.path.name} is not the store that was explained in {folder.name}: give that one.")
    trained, judged = load_trained(run, default_device()), results["localisation"]
    page = render(
        "explain.html.jinja",
        title=f"Where {results['run']} looks",
        version=__version__,
        sentence=sentence(results),
        key_figures=key_figures(results),
        table=None if judged is None else table(judged, results["threshold"]),
        boxed=judged is not None,
        stage="the last stage" if results["stage"] == -1 else f"stage {results['stage']}",
        strips=[
            strip
            for name in results["classes"]
            for strip in strips(
                name, [case for case in results["cases"] if case["class"] == name], results, trained, opened
            )
        ],
    )
    write_atomic(folder / "report.html", page)
    return folder / "report.html"


def sentence(results: Mapping[str, Any]) -> str:
    """What the maps are worth, against a finger that points blindly."""
    judged = results["localisation"]
    if judged is None:
        return "The store has no boxes to judge the heat maps by: these are the scans that the classifier is surest of."
    macro = judged["macro"]
    return (
        f"The hottest point of the map lies in a box that people drew in {percent(macro['pointing']['value'])} of cases, "
        f"the mean of the classes ({len(judged['classes'])}); a blind finger would hit in {percent(macro['share'])}."
    )


def key_figures(results: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The figures at the head of the page."""
    cases, judged = results["cases"], results["localisation"]
    if judged is None:
        return [("scans", f"{len(cases)}", f"of the part {results['part']}")]
    return [
        ("cases", f"{len(cases):,}", f"a class with boxes on a scan, part {results['part']}"),
        ("patients", f"{judged['patients']:,}", "resampled for the intervals"),
        ("mean IoU", number(judged["macro"]["iou"]["value"]), "of the hot spot's box"),
        ("pointing", number(judged["macro"]["pointing"]["value"]), "hottest point in a box"),
    ]


def table(judged: Mapping[str, Any], threshold: float) -> Table:
    """A row for each class and their mean."""
    above = [f"above_{least:g}" for least in OVERLAPS]
    rows: list[list[Cell]] = [
        [
            name,
            f"{of['cases']:,}" if "cases" in of else "",
            measured(of["pointing"]),
            measured(of["iou"]),
            *(number(of[figure]["value"], 2) for figure in above),
            number(of["share"]),
        ]
        for name, of in [*judged["classes"].items(), ("mean of classes", judged["macro"])]
    ]
    head = ["", "cases", "pointing", "IoU", *(f"IoU > {least:g}" for least in OVERLAPS), "blind finger"]
    note = (
        f"The hot spot is the largest connected part of a map from {percent(threshold)} of its maximum on; IoU is that of "
        "its box with the box that it fits best. "
    )
    note += "95 % intervals from resampled patients." if judged["patients"] > 1 else f"No intervals: {ONE_PATIENT}."
    return Table("Heat maps against boxes", head, rows, total=len(rows) > 2, note=note)


def strips(
    name: str, cases: Sequence[Mapping[str, Any]], results: Mapping[str, Any], trained: Trained, store: Store
) -> list[Strip]:
    """Heat maps of one class over its scans: the best and the worst by IoU, or as they are listed without boxes."""
    place = trained.facts["classes"].index(name)
    if results["localisation"] is None:
        return [Strip(name, [picture(case, place, results, trained, store) for case in cases], columns=SHOWN)]
    order = sorted(cases, key=lambda case: -case["iou"])
    half = min(SHOWN, -(-len(order) // 2))
    chosen = (("best", order[:half]), ("worst", order[half:][-half:][::-1]))
    return [
        Strip(f"{name}, {which}", [picture(case, place, results, trained, store) for case in part], columns=SHOWN)
        for which, part in chosen
        if part
    ]


def picture(case: Mapping[str, Any], place: int, results: Mapping[str, Any], trained: Trained, store: Store) -> Picture:
    """One scan under its heat map; of a volume the slice with the hottest voxel."""
    row, name = case["row"], case["class"]
    (hot,), _ = heat(trained, store, row, [place], results["stage"])
    said = f"{name} {percent(case['probability'])}"
    if store.spatial_dims == 3:
        k = int(np.unravel_index(int(hot.argmax()), hot.shape)[2])
        image, affine = _slice(store, row, k), store.affine(row)
        shown = over(upright(image, affine), upright(hot[..., k], affine))
        return tile(shown, f"Heat map of {said} over a slice of a scan", caption=said, ratio=pixel_ratio(affine))
    shown = over(scan_slices(store, [row])[0], hot)
    if results["localisation"] is None:
        return tile(shown, f"Heat map of {said} over a scan", caption=said, ratio=ratio_of(store, row))
    boxes = box_cases(store, np.array([row]), [name])[0].boxes
    spot = hot_box(hot, results["threshold"])
    words = f"{said}, IoU {case['iou']:.2f}"
    found = np.zeros((0, 4)) if spot is None else spot[None]
    return box_tile(
        shown, boxes, found, f"Heat map over a scan with {count(len(boxes), 'box')}: {words}", caption=words
    )


def _slice(store: Store, row: int, k: int) -> np.ndarray:
    """Slice ``k`` (I, J) of the last axis of a volume, in [0, 1]."""
    i, j, _ = store.shape(row)
    low, high = store.window(np.array([row]))
    raw = store.read([row], [((0, 0, k), (i, j, k + 1))])[0][0, ..., 0].astype(np.float32)
    return np.clip((raw - low[0]) / max(float(high[0] - low[0]), 1e-12), 0, 1)


def over(image: np.ndarray, hot: np.ndarray) -> np.ndarray:
    """(H, W, 3) in [0, 1]: a grey image (H, W), or one in colour, under a heat map (H, W) in [0, 1]."""
    grey = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
    cover = COVER * hot[..., None]
    return grey * (1 - cover) + matplotlib.colormaps[COLOURS](hot)[..., :3] * cover
