import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from runs import genesis_recipe, image_store, moco_recipe, volume_store

from scanlearn.catalog.labels import Labels
from scanlearn.engine.pretrain import pretrain
from scanlearn.errors import ScanlearnError
from scanlearn.scans.store import open_store
from scanlearn.tasks.finetune import finetune
from scanlearn.tasks.targets import only_classes
from scanlearn.weights.encoder import load_network

FAST = {"steps": 40, "batch_size": 8, "precision": "32-true", "optimizer.lr": 0.01, "log_every": 10}
SMALL = {"network.encoder": {"name": "unet", "width": 2}, "size": [16, 16]}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A store of bright and dark scans, and a network pre-trained on its training part."""
    folder = tmp_path_factory.mktemp("images")
    store = image_store(folder, count=90)
    wider = {"encoder": {"name": "unet", "width": 4}}
    pretrain(store, moco_recipe(steps=40, network=wider, monitor={"every": -1}), folder / "moco")
    return folder


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("volumes")
    store = volume_store(folder, count=16)
    pretrain(store, genesis_recipe(steps=3), folder / "genesis")
    return folder


@pytest.mark.parametrize("mode", ["full", "linear", "frozen"])
def test_classification_learns_bright_from_dark_and_reports_intervals(images, tmp_path, mode):
    results = finetune(
        images / "store",
        "classify",
        init=images / "moco",
        out=tmp_path / "run",
        target="label",
        mode=mode,
        settings=FAST,
    )
    auroc = results["test"]["macro"]["auroc"]
    assert auroc["value"] > 0.9 and auroc["low"] <= auroc["value"] <= auroc["high"]
    assert json.loads((tmp_path / "run" / "results.json").read_text())["labelled_scans"] == results["labelled_scans"]
    predictions = pq.read_table(tmp_path / "run" / "predictions.parquet").to_pydict()
    assert set(predictions["part"]) == {"val", "test"}
    scores = np.stack([predictions["score_0"], predictions["score_1"]])
    np.testing.assert_allclose(scores.sum(0), 1, atol=1e-5)


@pytest.mark.parametrize("mode", ["linear", "frozen"])
def test_a_frozen_encoder_is_the_pretrained_one_to_the_bit(images, tmp_path, mode):
    finetune(
        images / "store",
        "classify",
        init=images / "moco",
        out=tmp_path / "run",
        target="label",
        mode=mode,
        settings=FAST,
    )
    before, after = (load_network(path).encoder.state_dict() for path in (images / "moco", tmp_path / "run"))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_scratch_twin_has_the_architecture_and_input_of_the_pretrained_run(images, tmp_path):
    for name, options in (("warm", {"init": images / "moco"}), ("cold", {"init": "none", "like": images / "moco"})):
        finetune(images / "store", "classify", out=tmp_path / name, target="label", labels=20, settings=FAST, **options)
    cards = [json.loads((tmp_path / n / "encoder" / "encoder.json").read_text()) for n in ("warm", "cold")]
    assert cards[0]["network"] == cards[1]["network"]
    tasks = [json.loads((tmp_path / n / "encoder" / "task.json").read_text()) for n in ("warm", "cold")]
    assert tasks[0]["input_size"] == tasks[1]["input_size"] == [16, 16]
    records = [(tmp_path / n / "record.arrow").read_bytes() for n in ("warm", "cold")]
    assert records[0] == records[1]  # the same labelled scans


def test_segmentation_finds_the_ball_and_keeps_examples(volumes, tmp_path):
    results = finetune(
        volumes / "store", "segment", init=volumes / "genesis", out=tmp_path / "run", settings={**FAST, "steps": 60}
    )
    assert results["test"]["macro"]["dice"]["value"] > 0.5
    assert results["classes"] == ["background", "1"]
    cases = pq.read_table(tmp_path / "run" / "cases.parquet")
    assert len(cases) == results["test"]["cases"]
    examples = np.load(tmp_path / "run" / "examples.npz")
    assert examples["image_0"].shape == examples["truth_0"].shape == examples["found_0"].shape


def test_the_decoder_is_taken_and_only_its_last_layer_is_new(volumes, tmp_path, capsys):
    finetune(
        volumes / "store", "segment", init=volumes / "genesis", out=tmp_path / "run", settings={**FAST, "steps": 1}
    )
    said = capsys.readouterr().err
    assert "56 of 56 encoder tensors" in said
    assert "decoder.out_tr.final_conv" in said and "decoder.up_tr64.up_conv" not in said


def test_test_patients_seen_in_pretraining_refuse_the_finetuning(images, tmp_path):
    pretrain(images / "store", moco_recipe(steps=1, monitor={"every": -1}), tmp_path / "leaky", part="all")
    with pytest.raises(ScanlearnError, match="were in the pre-training"):
        finetune(
            images / "store", "classify", init=tmp_path / "leaky", out=tmp_path / "run", target="label", settings=FAST
        )


def test_a_missing_or_unknown_target_is_refused_with_the_columns(images, tmp_path):
    with pytest.raises(ScanlearnError, match="--target; the store has: label"):
        finetune(images / "store", "classify", out=tmp_path / "run", settings=SMALL)
    with pytest.raises(ScanlearnError, match="did you mean 'label'"):
        finetune(images / "store", "classify", out=tmp_path / "run", target="lable", settings=SMALL)


def test_only_some_classes_are_learnt_in_the_order_given(images):
    labels = open_store(images / "store").catalog.labels("label")
    turned = only_classes(labels, ["1", "0"])
    assert turned.classes == ["1", "0"]
    assert np.array_equal(turned.codes, 1 - labels.codes)
    with pytest.raises(ScanlearnError, match="no class 'x'"):
        only_classes(labels, ["0", "x"])


def test_of_several_labels_some_are_learnt_and_scans_without_them_are_negative():
    codes = np.array([[1, 0, 1], [0, 1, 0], [np.nan] * 3], np.float32)
    some = only_classes(Labels("multilabel", ["a", "none", "z"], codes), ["z", "a"])
    assert some.classes == ["z", "a"] and some.labelled.tolist() == [True, True, False]
    np.testing.assert_array_equal(some.codes, [[1, 1], [0, 0], [np.nan, np.nan]])


def test_killed_before_its_first_checkpoint_it_resumes_from_the_pretrained_weights(images, tmp_path):
    settings = {**FAST, "steps": 4}
    options = {"init": images / "moco", "target": "label", "labels": 20, "settings": settings}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        finetune(images / "store", "classify", out=folder, **options)
    for path in [*(killed / "checkpoints").glob("*"), killed / "results.json"]:
        path.unlink()
    finetune(images / "store", "classify", out=killed, resume=True, **options)
    ends = [load_network(folder).state_dict() for folder in (whole, killed)]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_a_pretraining_from_weights_that_has_no_checkpoint_is_not_resumed_from_random_ones(images, tmp_path):
    store = open_store(images / "store")
    wider = {"encoder": {"name": "unet", "width": 4}}
    recipe = moco_recipe(steps=2, network=wider, monitor={"every": -1})
    pretrain(store, recipe, tmp_path / "run", init=images / "moco")
    for path in (tmp_path / "run" / "checkpoints").glob("*"):
        path.unlink()
    with pytest.raises(ScanlearnError, match="begun from moco and stopped before its first checkpoint"):
        pretrain(store, recipe, tmp_path / "run", resume=True)


@pytest.mark.parametrize("mode", ["linear", "frozen"])
def test_a_task_without_a_mode_refuses_it_instead_of_training_everything(volumes, tmp_path, mode):
    with pytest.raises(ScanlearnError, match=f"segment trains the whole network: there is no mode {mode}"):
        finetune(volumes / "store", "segment", init=volumes / "genesis", out=tmp_path / "run", mode=mode)
    assert not (tmp_path / "run").exists()
