"""The RSNA pneumonia challenge from its files to a submission: prepared as its layout says, pre-trained, detected."""

import csv
import json

import numpy as np
import pytest
from runs import moco_recipe

from catalog.layouts.trees import rsna_pneumonia
from scanlearn.engine.pretrain import pretrain
from scanlearn.scans.prepare import prepare
from scanlearn.study.run import study
from scanlearn.tasks.finetune import finetune
from scanlearn.tasks.predict import predict
from scanlearn.weights.encoder import read_card

pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR AS")
FAST = {"steps": 2, "batch_size": 2, "precision": "32-true", "log_every": 1, "objectives.detect.extra": 0}
FAST |= {"objectives.detect.channels": 8, "objectives.detect.maps": 2, "objectives.detect.anchor": 2.0}


@pytest.fixture(scope="module")
def rsna(tmp_path_factory):
    """The challenge on a few images, its store, and a pre-training on the store's training part."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCANLEARN_PRIVATE", str(tmp_path_factory.mktemp("private")))
        folder = tmp_path_factory.mktemp("rsna")
        store = prepare(rsna_pneumonia.make(folder / "data"), folder / "store", size=32, workers=0, seed=3)
        pretrain(store, moco_recipe(batch_size=2, steps=1, monitor={"every": -1}), folder / "moco", part="train")
        yield folder


def submission(path):
    with path.open() as file:
        lines = list(csv.DictReader(file))
    boxes = [np.array(line["PredictionString"].split(), float).reshape(-1, 5) for line in lines]
    return [line["patientId"] for line in lines], np.concatenate(boxes)


def test_a_detector_from_pre_trained_weights_writes_a_submission_for_the_test_images(rsna):
    facts = finetune(rsna / "store", "detect", out=rsna / "tuned", init=rsna / "moco", settings=FAST)
    assert facts["init"] == "moco" and facts["input_size"] == [32, 32] and facts["test"]["cases"] >= 1
    predict(rsna / "tuned", rsna / "data" / "stage_2_test_images", rsna / "out", identifiers="kept")
    names, boxes = submission(rsna / "out" / "predictions.csv")
    assert names == [rsna_pneumonia.TEST]
    assert (boxes[:, 1:3] >= 0).all() and (boxes[:, 1:3] + boxes[:, 3:] <= rsna_pneumonia.SIZE + 0.1).all()


def test_the_twin_from_scratch_has_the_architecture_of_the_run_it_is_like_and_the_same_scans(rsna):
    finetune(rsna / "store", "detect", out=rsna / "twin", like=rsna / "moco", settings=FAST)
    told = [json.loads((rsna / name / "results.json").read_text()) for name in ("twin", "tuned")]
    assert told[0]["init"] == "none" and told[0]["input_size"] == told[1]["input_size"]
    assert told[0]["test"]["cases"] == told[1]["test"]["cases"] and told[0]["mean_boxes"] == told[1]["mean_boxes"]
    assert read_card(rsna / "twin")["network"] == read_card(rsna / "tuned")["network"]


def test_a_study_compares_detectors_by_the_challenge_score(rsna):
    methods = {"scratch": None, "moco": {"weights": str(rsna / "moco")}}
    words = {"store": str(rsna / "store"), "task": "detect", "figure": "challenge", "methods": methods, "seeds": 2}
    study({**words, "finetuning": FAST}, rsna / "study")
    facts = json.loads((rsna / "study" / "study.json").read_text())
    assert len(facts["cells"]) == 2 * 2 and not facts["missing"] and not facts["failed"]
