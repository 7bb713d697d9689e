"""Figures and intervals that cannot be told: strict JSON on the disk, and words for people."""

import json
import re
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from types import SimpleNamespace

import numpy as np
import pytest
from runs import moco_recipe

from scanlearn.engine.pretrain import pretrain
from scanlearn.files import to_json
from scanlearn.networks.network import build_network
from scanlearn.scans.prepare import prepare
from scanlearn.study.report import report
from scanlearn.tasks.bootstrap import ONE_PATIENT, in_words
from scanlearn.tasks.fewshot.run import fewshot, fewshot_table
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


@pytest.fixture(scope="module")
def done(folder):
    """A pre-training, a frozen fine-tuning and a few-shot diagnosis, and what the last two said."""
    pretrain(folder / "store", moco_recipe(steps=2, monitor={"every": -1}), folder / "runs" / "moco")
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        options = {"init": folder / "run", "target": "label", "mode": "frozen"}
        finetune(folder / "store", "classify", out=folder / "runs" / "tuned", **options)
        few = fewshot(folder / "run", folder / "store", out=folder / "runs" / "few", mode="official", **FEW)
        print(fewshot_table(few))
    return SimpleNamespace(runs=folder / "runs", store=folder / "store", said=out.getvalue() + err.getvalue())


def strict(text):
    """What a reader makes of JSON that knows nothing of Python's NaN and Infinity."""

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_what_cannot_be_told_is_null_in_json():
    told = {"low": float("nan"), "ends": (float("-inf"), np.float64("nan"), 0.5), "n": 3, "of": None}
    assert strict(to_json(told)) == {"low": None, "ends": [None, None, 0.5], "n": 3, "of": None}


def test_every_json_that_is_written_is_strict_where_figures_are_not_defined(done):
    files = [*done.runs.rglob("*.json"), *done.store.rglob("*.json")]
    assert {"results.json", "episodes.json", "encoder.json", "store.json", "environment.json"} <= {
        f.name for f in files
    }
    for file in files:
        strict(file.read_text())
    for file in done.runs.rglob("*.jsonl"):
        for line in file.read_text().splitlines():
            strict(line)
    auroc = strict((done.runs / "tuned" / "results.json").read_text())["test"]["macro"]["auroc"]
    assert auroc["value"] > 0.5 and auroc["low"] is None
    few = strict((done.runs / "few" / "results.json").read_text())["results"]["run"]["prototypes"]["1"]
    assert few["accuracy"]["mean"] > 0 and few["accuracy"]["patient_interval"]["low"] is None


def test_with_one_test_patient_the_console_and_the_pages_say_why_there_is_no_interval(done):
    pages = [report(done.runs / name).read_text() for name in ("tuned", "few")]
    assert done.said.count(ONE_PATIENT) == 2 and "(no interval)" in done.said
    for text in (done.said, *pages):
        assert ONE_PATIENT in text and not re.search(r"\bnan\b", text)
    assert not any("– to –" in page for page in pages)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"value": 0.5, "low": 0.25, "high": 0.75}, "0.500  (95 % interval 0.250 to 0.750)"),
        ({"value": 0.5, "low": float("nan"), "high": float("nan")}, "0.500  (no interval)"),
        ({"value": float("nan"), "low": float("nan"), "high": float("nan")}, "not defined on these scans"),
    ],
)
def test_a_figure_is_said_without_nan(found, said):
    assert in_words(found) == said
