"""Detection from files to figures: it learns painted squares, and boxes are in pixels of the files throughout."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

from scanlearn.engine.recipe import load_recipe
from scanlearn.engine.run_folder import RunFolder
from scanlearn.errors import ScanlearnError
from scanlearn.scans.prepare import prepare
from scanlearn.scans.store import open_store
from scanlearn.study.detection import box_strips, read_boxes
from scanlearn.study.report import report
from scanlearn.tasks.detect import choose_threshold, detector_of, find_boxes, labelled_test_rows, reference
from scanlearn.tasks.detection_metrics import Boxes, detection_metrics
from scanlearn.tasks.finetune import finetune, input_size, set_size
from scanlearn.tasks.kinds import KINDS
from scanlearn.tasks.mean_boxes import mean_box, mean_boxes
from scanlearn.tasks.predict import predict
from scanlearn.tasks.submission import prediction_string, write_submission
from scanlearn.tasks.trained import load_trained

ENCODER = {"name": "unet", "width": 4}
FAST = {"steps": 120, "batch_size": 8, "precision": "32-true", "log_every": 40, "network.encoder": ENCODER}
FAST |= {
    "optimizer.lr": 0.01,
    "objectives.detect.channels": 8,
    "objectives.detect.maps": 2,
    "objectives.detect.extra": 0,
}
FAST |= {"objectives.detect.ratios": [1.0], "objectives.detect.anchor": 2.0, "schedule.warmup_steps": 0}


def write_images(folder, count=64, size=(48, 64), seed=0):
    """Bright squares of 16 pixels on noise, at any place; every eighth image has none."""
    generator = np.random.default_rng(seed)
    folder.mkdir()
    lines = ["patientId,x,y,width,height,Target"]
    for i in range(count):
        image = generator.integers(0, 60, size).astype(np.uint8)
        y, x = generator.integers(0, size[0] - 16), generator.integers(0, size[1] - 16)
        if i % 8:
            image[y : y + 16, x : x + 16] += 180
        Image.fromarray(image).save(folder / f"p{i:02}.png")
        lines.append(f"p{i:02},{x},{y},16,16,1" if i % 8 else f"p{i:02},,,,,0")
    table = folder.parent / f"{folder.name}.csv"
    table.write_text("\n".join(lines) + "\n")
    return table


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    """Images of 48 x 64 in a store of 32 x 32 with padding, and a detector that was trained on it."""
    folder = tmp_path_factory.mktemp("squares")
    table = write_images(folder / "images")
    prepare(folder / "images", folder / "store", boxes=table, size=(32, 32), workers=0)
    finetune(folder / "store", "detect", out=folder / "run", settings=FAST)
    return folder


def test_it_finds_the_squares_and_beats_the_guesses_by_far(squares):
    results = json.loads((squares / "run" / "results.json").read_text())
    test = results["test"]["macro"]
    assert test["ap50"]["value"] > 0.6 and results["mean_box"]["ap50"]["value"] < 0.3
    assert test["challenge"]["low"] <= test["challenge"]["value"] <= test["challenge"]["high"]
    assert results["mean_box"]["boxes"] == results["mean_boxes"]["boxes"] == results["test"]["cases"]
    assert results["labelled_scans"] == len(open_store(squares / "store").splits["train"])  # those without a box too
    assert results["input_size"] == [32, 32] and results["classes"] == ["box"]


def test_the_figures_are_those_of_the_written_boxes_in_pixels_of_the_files(squares):
    store, results = open_store(squares / "store"), json.loads((squares / "run" / "results.json").read_text())
    rows = labelled_test_rows(store)
    found, truth = read_boxes(RunFolder(squares / "run"), rows), reference(store, rows)
    again = detection_metrics(found, truth, store.catalog.patients[rows], threshold=results["score_threshold"])
    for name in ("ap50", "challenge", "ap"):
        assert again[name] == results["test"]["macro"][name]
    sides = truth.corners[:, 2:] - truth.corners[:, :2]
    assert (sides == 16).all() and found.corners.max() <= 64 and found.corners.min() >= 0


def test_the_submission_names_pseudonyms_and_holds_what_reaches_the_threshold(squares):
    store, results = open_store(squares / "store"), json.loads((squares / "run" / "results.json").read_text())
    with (squares / "run" / "predictions.csv").open() as file:
        lines = list(csv.DictReader(file))
    rows = labelled_test_rows(store)
    assert [line["patientId"] for line in lines] == store.catalog.array("scan_id", rows).to_pylist()
    boxes = [np.array(line["PredictionString"].split(), float).reshape(-1, 5) for line in lines]
    assert sum(map(len, boxes)) == results["test"]["handed_in"]
    assert all((of_image[:, 0] >= results["score_threshold"] - 1e-4).all() for of_image in boxes)
    assert not any(line["patientId"].startswith("p0") for line in lines)


def test_prediction_strings_are_confidence_left_top_width_height():
    corners, score = np.array([[10.0, 20, 40, 60], [0, 1, 2, 4.25]]), np.array([0.25, 0.5])
    assert prediction_string(corners, score) == "0.5000 1.0 0.0 3.2 2.0 0.2500 20.0 10.0 40.0 30.0"
    assert prediction_string(corners[:0], score[:0]) == ""


def test_a_submission_has_a_row_for_every_image(tmp_path):
    found = Boxes(np.array([1, 1]), np.array([[0.0, 0, 2, 2], [0, 0, 4, 4]]), np.array([0.1, 0.9]))
    write_submission(tmp_path / "x.csv", ["a", "b"], found, 0.5)
    assert (tmp_path / "x.csv").read_text().splitlines() == [
        '"patientId","PredictionString"',
        '"a",""',
        '"b","0.9000 0.0 0.0 4.0 4.0"',
    ]


@pytest.mark.parametrize("identifiers", ["kept", "hashed"])
def test_predict_finds_the_squares_of_new_files_of_another_size(squares, tmp_path, identifiers):
    table = write_images(tmp_path / "new", count=6, size=(72, 80), seed=5)
    predict(squares / "run", tmp_path / "new", tmp_path / "out", identifiers=identifiers)
    with (tmp_path / "out" / "predictions.csv").open() as file:
        found = {line["patientId"]: line["PredictionString"] for line in csv.DictReader(file)}
    assert len(found) == 6 and ("p01" in found) == (identifiers == "kept")
    if identifiers == "hashed":
        return
    with table.open() as file:
        truth = {line["patientId"]: [float(line[k]) for k in ("x", "y")] for line in csv.DictReader(file) if line["x"]}
    near = 0
    for name, place in truth.items():
        boxes = np.array(found[name].split(), float).reshape(-1, 5)
        near += bool(len(boxes)) and bool(np.abs(boxes[0, 1:3] - place).max() < 10)
    assert near >= 3  # of 5


def test_boxes_found_at_another_size_are_in_voxels_of_the_image_given(squares):
    trained = load_trained(squares / "run")
    image = torch.zeros(1, 1, 64, 64)
    image[..., 32:52, 4:24] = 1
    with torch.no_grad():
        corners, score = find_boxes(trained.network, detector_of(trained), image, [32, 32])[0]
    assert (np.diff(score) <= 0).all() and corners.min() >= 0 and corners.max() <= 64
    assert np.abs(corners[0] - [32, 4, 52, 24]).max() < 8


def test_a_head_that_does_not_fit_is_refused(squares):
    trained = load_trained(squares / "run")
    trained.facts["detector"] = {**trained.facts["detector"], "channels": 16}
    with pytest.raises(ScanlearnError, match="does not fit its network"):
        detector_of(trained)


def test_the_report_shows_worst_and_best_images_with_both_boxes(squares):
    store = open_store(squares / "store")
    page = report(squares / "run", squares / "store").read_text()
    assert "Detection, learned from" in page and "challenge score" in page and "Worst images" in page
    assert "Guessing the training part" in page
    strips = box_strips(RunFolder(squares / "run"), 0.5, store)
    assert [strip.title for strip in strips] == ["Worst images", "Best images"]
    assert all(picture.src.startswith("data:image/svg") for strip in strips for picture in strip.pictures)


@pytest.mark.parametrize("mode", ["linear", "frozen"])
def test_a_detector_trains_whole(squares, tmp_path, mode):
    with pytest.raises(ScanlearnError, match=f"detect trains the whole network: there is no mode {mode}"):
        finetune(squares / "store", "detect", out=tmp_path / "run", mode=mode)


def test_a_store_without_boxes_is_refused_with_the_option_to_add(squares, tmp_path):
    prepare(squares / "images", tmp_path / "store", workers=0)
    with pytest.raises(ScanlearnError, match="holds no boxes of 2D images: prepare it with --boxes"):
        finetune(tmp_path / "store", "detect", out=tmp_path / "run")


def test_the_threshold_is_the_best_of_the_validation_part_and_said():
    found = Boxes(np.array([0, 0]), np.array([[0.0, 0, 4, 4], [8, 8, 12, 12]]), np.array([0.03, 0.02]))
    truth = Boxes(np.array([0]), np.array([[0.0, 0, 4, 4]]))
    value, how = choose_threshold(found, truth, 1)
    assert value == 0.03 and "best challenge score on the validation part (1.000)" in how
    assert choose_threshold(found.rows(np.zeros(0, int)), truth.rows(np.zeros(0, int)), 0)[0] == 0.5


def test_the_guesses_are_means_in_shares_of_the_image(squares):
    store = open_store(squares / "store")
    train, rows = np.asarray(store.splits["train"]), labelled_test_rows(store)
    guess = mean_box(store, train, rows)
    of_training = reference(store, train).corners
    np.testing.assert_allclose(guess.corners, np.tile(of_training.mean(0), (len(rows), 1)))  # all of one size
    np.testing.assert_allclose(mean_boxes(store, train, rows).corners, guess.corners)  # each has one box
    assert len(mean_boxes(store, train[:0], rows)) == len(mean_box(store, train[:0], rows)) == 0


def test_validation_goes_by_the_loss_of_whole_scans(squares, tmp_path):
    settings = {**FAST, "steps": 4, "stopping.every": 2, "stopping.patience": 0}
    results = finetune(squares / "store", "detect", out=tmp_path / "run", settings=settings)
    assert results["stopping"]["best_step"] in (2, 4) and np.isfinite(results["stopping"]["best_figure"])


def test_views_without_a_crop_are_brought_to_the_size_that_is_asked_for():
    data = {"views": {"image": {"ops": ["clamp"]}}}
    set_size(data, [24, 32], 2, KINDS["detect"].whole)
    assert data["views"]["image"]["ops"] == [{"resize": {"size": [24, 32]}}, "clamp"] and "size" not in data
    set_size(data, [16, 16], 2, KINDS["detect"].whole)
    assert data["views"]["image"]["ops"][0] == {"resize": {"size": [16, 16]}}
    patches = {"views": {"image": {"ops": ["clamp"]}}}
    set_size(patches, [16, 16], 2, KINDS["segment"].whole)
    assert patches["size"] == [16, 16]


def test_the_input_size_is_that_of_the_op_that_sets_it():
    ops = ["clamp", {"flip": {}}, {"random_resized_crop": {"size": [8, 9]}}]
    plan = load_recipe("finetune_detect", {"views.image.ops": ops})
    assert input_size(plan) == [8, 9] and input_size(load_recipe("finetune_segment")) == [40, 56, 40]
