"""Figures and intervals that cannot be told: strict JSON on the disk, and words for people."""

import json

import numpy as np
import pytest
from runs import moco_recipe

from scanlearn.engine.pretrain import pretrain
from scanlearn.files import to_json
from scanlearn.networks.network import build_network
from scanlearn.scans.prepare import prepare
from scanlearn.tasks.fewshot.run import fewshot
from scanlearn.tasks.finetune import finetune
from scanlearn.weights.encoder import save_network

FEW = {"target": "label", "shots": [1], "queries": 4, "episodes": 3, "bootstrap": 20, "classifiers": ["prototypes"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Scans of two classes; the test part is of one patient, who has scans of both."""
    folder = tmp_path_factory.mktemp("one")
    rng = np.random.default_rng(0)
    label, patient = np.arange(40) % 2, np.arange(40) // 4
    image = rng.random((40, 24, 24)) * 120 + label[:, None, None] * 60
    split = np.array(["test"] * 4 + ["val"] * 4 + ["train"] * 32)
    np.savez(folder / "images.npz", image=image.astype(np.uint8), label=label, patient=patient, split=split)
    prepare(folder / "images.npz", folder / "store", target="label", workers=1)
    network = build_network({"encoder": {"name": "resnet18", "spatial_dims": 2, "width": 4}})
    save_network(network, folder / "run", input_size=[24, 24])
    return folder


def strict(text):
    """What a reader makes of JSON that knows nothing of Python's NaN and Infinity."""

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_what_cannot_be_told_is_null_in_json():
    told = {"low": float("nan"), "ends": (float("-inf"), np.float64("nan"), 0.5), "n": 3, "of": None}
    assert strict(to_json(told)) == {"low": None, "ends": [None, None, 0.5], "n": 3, "of": None}


def test_every_json_that_is_written_is_strict_where_figures_are_not_defined(folder, tmp_path):
    pretrain(folder / "store", moco_recipe(steps=2, monitor={"every": -1}), tmp_path / "moco")
    finetune(folder / "store", "classify", init=folder / "run", out=tmp_path / "tuned", target="label", mode="frozen")
    fewshot(folder / "run", folder / "store", out=tmp_path / "few", mode="official", **FEW)
    files = [*tmp_path.rglob("*.json"), *(folder / "store").rglob("*.json")]
    assert {"results.json", "episodes.json", "encoder.json", "store.json", "environment.json"} <= {f.name for f in files}
    for file in files:
        strict(file.read_text())
    for file in tmp_path.rglob("*.jsonl"):
        for line in file.read_text().splitlines():
            strict(line)
    auroc = strict((tmp_path / "tuned" / "results.json").read_text())["test"]["macro"]["auroc"]
    assert auroc["value"] > 0.5 and auroc["low"] is None
    few = strict((tmp_path / "few" / "results.json").read_text())["results"]["run"]["prototypes"]["1"]
    assert few["accuracy"]["mean"] > 0 and few["accuracy"]["patient_interval"]["low"] is None
