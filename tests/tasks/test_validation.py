"""Fine-tuning by validations: the figure, whole runs, and what results.json says of them."""

import json
import math

import numpy as np
import pytest
import torch
from runs import image_store, volume_store

from scanlearn.catalog.labels import Labels
from scanlearn.engine.learner import build_learner
from scanlearn.engine.recipe import parse_recipe
from scanlearn.engine.run_folder import RunFolder
from scanlearn.errors import ScanlearnError
from scanlearn.objectives.classify import masked_bce
from scanlearn.scans.store import open_store
from scanlearn.tasks.finetune import finetune, target_labels
from scanlearn.tasks.segment import read_unit
from scanlearn.tasks.validation import validation_figure

ENCODER = {"name": "unet", "width": 2}
STOPPING = {"stopping.every": 3, "stopping.patience": 2, "stopping.min_delta": 10.0}  # ends at the third validation
FAST = {"steps": 60, "batch_size": 4, "precision": "32-true", "log_every": 3, "network.encoder": ENCODER}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    image_store(folder, count=60)
    return open_store(folder / "store")


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("volumes")
    volume_store(folder, count=20, size=16)
    return open_store(folder / "store")


def learner_of(task, dims, **objective):
    decoder = {"name": "unet", "out_channels": 2} if task == "segment" else None
    views = {"image": {"ops": []}}
    network = {"encoder": ENCODER, "decoder": decoder}
    objectives = {task: {"classes": 2, **objective}}
    data = {"name": "x", "spatial_dims": dims, "views": views, "network": network, "objectives": objectives}
    return build_learner(parse_recipe(data), 0, 1).eval()


def figure_of(task, store, column, learner, size):
    with torch.no_grad():
        return validation_figure(task, store, column, size)(learner)


@pytest.mark.parametrize("hidden", [None, 5])
def test_classification_is_validated_by_the_loss_of_whole_scans(images, hidden):
    learner, column = learner_of("classify", 2, hidden=hidden), target_labels(images, "classify", "label")
    rows = np.asarray(images.splits["val"])
    with torch.no_grad():
        whole = torch.stack([read_unit(images, int(row), torch.device("cpu")) for row in rows])
        logits = learner.objectives["classify"].head(learner.network.pooled(whole))
    expected = -torch.log_softmax(logits.double(), 1)[torch.arange(len(rows)), torch.from_numpy(column.codes[rows])]
    assert figure_of("classify", images, column, learner, [24, 24]) == pytest.approx(float(expected.mean()), abs=1e-5)


def test_labels_that_are_missing_do_not_count_and_several_labels_are_validated_each(images):
    learner = learner_of("classify", 2, multilabel=True)
    rows = np.asarray(images.splits["val"])
    codes = np.random.default_rng(0).integers(0, 2, (len(images), 2)).astype(np.float64)
    codes[rows[0]] = math.nan
    figure = figure_of("classify", images, Labels("multilabel", ["a", "b"], codes), learner, [24, 24])
    with torch.no_grad():
        whole = torch.stack([read_unit(images, int(row), torch.device("cpu")) for row in rows[1:]])
        logits = learner.objectives["classify"].head(learner.network.pooled(whole))
    assert figure == pytest.approx(float(masked_bce(logits, torch.from_numpy(codes[rows[1:]]))), abs=1e-5)


@pytest.mark.parametrize(
    "settings",
    [{}, {"smooth": 1.0, "cross_entropy": 0.0}, {"smooth": 1.0, "batch_dice": False, "dice": 2.0}],
)
def test_segmentation_is_validated_by_the_loss_of_all_scans_as_one_batch(volumes, settings):
    learner, column = learner_of("segment", 3, **settings), target_labels(volumes, "segment", None)
    rows = np.asarray(volumes.splits["val"])
    assert len(rows) > 1
    images = torch.stack([read_unit(volumes, int(row), torch.device("cpu")) for row in rows])
    mask = torch.from_numpy(np.stack(volumes.read_masks(rows)))[:, None].long()
    with torch.no_grad():
        loss, _ = learner({"image": images, "mask": mask}, {"step": 0}, {"segment": 1.0})
    assert figure_of("segment", volumes, column, learner, [16, 16, 16]) == pytest.approx(float(loss), abs=1e-4)


@pytest.mark.parametrize("task", ["classify", "segment"])
def test_a_fine_tuning_ends_early_and_says_where_and_why(images, volumes, tmp_path, task):
    store, size = (images, [16, 16]) if task == "classify" else (volumes, [16, 16, 16])
    target = "label" if task == "classify" else None
    settings = {**FAST, **STOPPING, "size": size}
    results = finetune(store, task, out=tmp_path / "run", target=target, settings=settings)
    told = json.loads((tmp_path / "run" / "results.json").read_text())["stopping"]
    assert told["stopped_at"] == results["steps"] == 9 and told["why"] == "2 validations without a better figure"
    lines = RunFolder(tmp_path / "run").read_metrics("validation")
    assert [line["step"] for line in lines] == [3, 6, 9]
    best = min(lines, key=lambda line: line["figure"])
    assert told["best_step"] == told["weights_of_step"] == best["step"]
    assert told["best_figure"] == pytest.approx(best["figure"], rel=1e-5)
    # What is tested are the best weights: a fine-tuning of so many steps (all of them warm-up) gives the same figures.
    again = {**settings, "steps": best["step"]}
    short = finetune(store, task, out=tmp_path / "short", target=target, settings=again)
    assert json.dumps(short["test"]) == json.dumps(results["test"])


def test_a_plateau_halves_the_rate_of_a_fine_tuning(images, tmp_path):
    plateau = {"name": "plateau", "gamma": 0.5, "patience": 1, "min_delta": 10.0}
    settings = {**FAST, "steps": 12, "stopping.every": 3, "schedule": plateau, "optimizer.lr": 0.01, "size": [16, 16]}
    results = finetune(images, "classify", out=tmp_path / "run", target="label", settings=settings)
    rates = [line["learning_rate"] for line in RunFolder(tmp_path / "run").read_metrics("train")]
    assert rates == pytest.approx([0.01, 0.01, 0.005, 0.0025]) and results["stopping"]["rate_factor"] == 0.125
    assert results["stopping"]["why"] == "the last step was reached"


def test_without_validations_nothing_is_said_of_them(images, tmp_path):
    results = finetune(images, "classify", out=tmp_path / "run", target="label", settings={**FAST, "steps": 2})
    assert "stopping" not in results


def test_a_validation_part_without_labels_is_refused(images):
    column = target_labels(images, "classify", "label")
    codes = column.codes.copy()
    codes[np.asarray(images.splits["val"])] = -1
    with pytest.raises(ScanlearnError, match="No scan of the validation part of store has a label to validate by"):
        validation_figure("classify", images, Labels("class", column.classes, codes), [16, 16])
