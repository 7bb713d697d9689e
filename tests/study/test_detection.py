"""Studies and pages of detectors, from boxes that are known."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from scanlearn.engine.run_folder import RunFolder
from scanlearn.scans.prepare import prepare
from scanlearn.study.collect import collect
from scanlearn.study.detection import box_strips, threshold_words
from scanlearn.study.grid import Cell, folder_of
from scanlearn.study.pictures import box_tile
from scanlearn.tasks.detect import labelled_test_rows, reference, write_found
from scanlearn.tasks.detection_metrics import Boxes, detection_metrics


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Forty images of 40 x 60 with one or two boxes, every fourth with none, on a grid of 32 x 32."""
    folder = tmp_path_factory.mktemp("detection")
    (folder / "images").mkdir()
    generator = np.random.default_rng(0)
    lines = ["patientId,x,y,width,height"]
    for i in range(40):
        Image.fromarray(generator.integers(0, 255, (40, 60)).astype(np.uint8)).save(folder / "images" / f"p{i:02}.png")
        for k in range(i % 4 % 3):
            lines.append(f"p{i:02},{3 + 25 * k},{5 + i % 9},{15 + k},{20 - k}")
        if i % 4 % 3 == 0:
            lines.append(f"p{i:02},,,,")
    (folder / "boxes.csv").write_text("\n".join(lines) + "\n")
    return prepare(folder / "images", folder / "store", boxes=folder / "boxes.csv", size=(32, 32), workers=0)


def found_in(store, shift, seed):
    """The reference moved by some pixels, with a confidence each, and a wrong box on every image."""
    truth, rows = reference(store, labelled_test_rows(store)), labelled_test_rows(store)
    generator = np.random.default_rng(seed)
    moved = np.clip(truth.corners + shift, 0, [40, 60, 40, 60])
    wrong = np.tile([30.0, 0, 39, 9], (len(rows), 1))
    image = np.concatenate([truth.image, np.arange(len(rows))])
    score = np.concatenate([generator.uniform(0.5, 1, len(moved)), generator.uniform(0, 0.3, len(rows))])
    return Boxes(image, np.concatenate([moved, wrong]), score)


@pytest.fixture
def cells(store, tmp_path):
    rows, made = labelled_test_rows(store), {}
    for method, shift in (("scratch", 7.0), ("moco", 1.0)):
        for seed in (0, 1):
            cell = Cell(method, "all", seed, "x", method == "scratch")
            folder = folder_of(tmp_path, cell)
            folder.mkdir(parents=True)
            found = found_in(store, shift, seed)
            write_found(RunFolder(folder), {"test": rows, "val": rows}, {"test": found, "val": found})
            metrics = detection_metrics(found, reference(store, rows), store.catalog.patients[rows], threshold=0.4)
            macro = {name: metrics[name] for name in ("ap50", "challenge", "ap")}
            result = {
                "task": "detect",
                "labelled_scans": 9,
                "steps": 3,
                "score_threshold": 0.4,
                "test": {"macro": macro},
            }
            (folder / "results.json").write_text(json.dumps(result))
            made[cell] = macro
    return made


@pytest.mark.parametrize("figure", ["ap50", "challenge", "ap"])
def test_a_study_compares_the_figures_of_each_run_on_the_same_resamples(store, cells, tmp_path, figure):
    plan = SimpleNamespace(task="detect", main_figure=figure)
    found = collect(plan, SimpleNamespace(cells=list(cells)), store, tmp_path, bootstrap=2000)
    assert set(found.runs) == {("scratch", "all"), ("moco", "all")} and found.by_class == {}
    for (method, _), runs in found.runs.items():
        expected = [macro[figure] for cell, macro in cells.items() if cell.method == method]
        np.testing.assert_allclose(runs.draws[:, 0], [e["value"] for e in expected])
        low = np.nanquantile(runs.draws[:, 1:], 0.025, axis=1)
        np.testing.assert_allclose(low, [e["low"] for e in expected])
    assert found.test_scans == len(labelled_test_rows(store)) == found.test_patients
    assert (found.runs["moco", "all"].draws[:, 0] > found.runs["scratch", "all"].draws[:, 0]).all()


def test_pictures_are_sorted_by_the_challenge_score_and_boxes_lie_in_pixels_of_the_store(store, cells, tmp_path):
    run = RunFolder(folder_of(tmp_path, next(iter(cells))))
    worst, best = box_strips(run, 0.4, store)
    scores = [[float(picture.caption.split()[-1]) for picture in strip.pictures] for strip in (worst, best)]
    assert scores[0] == sorted(scores[0]) and scores[1] == sorted(scores[1], reverse=True)
    assert scores[0][-1] <= scores[1][-1]
    assert all("of the reference and" in picture.alt for picture in worst.pictures)


def test_a_box_is_drawn_as_a_rectangle_at_its_edges():
    import base64

    picture = box_tile(np.zeros((20, 30)), np.array([[2.0, 4, 10, 16]]), np.zeros((0, 4)), "alt")
    svg = base64.b64decode(picture.src.partition("base64,")[2]).decode()
    assert svg.count('d="M4.00 2.00H16.00V10.00H4.00Z"') == 2  # its dark edge and itself
    assert svg.count('d=""') == 2


def test_the_page_says_what_guesses_would_score():
    guess = {"ap50": {"value": 0.1}, "challenge": {"value": 0.2}}
    results = {"score_threshold": 0.25, "threshold": "best on validation", "test": {"cases": 5}}
    said = threshold_words({**results, "mean_box": {"boxes": 5, **guess}, "mean_boxes": {"boxes": 10, **guess}})
    assert "from a confidence of 0.25: best on validation" in said
    assert "with 1 box an AP50 of 0.100 and a challenge score of 0.200; with 2 boxes an AP50" in said
