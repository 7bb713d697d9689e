import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import MASKS_SEEN, RECIPES, SMALL_MOCO, genesis_recipe, image_store, moco_recipe, volume_store

from scanlearn.engine.checkpoint import checkpoints
from scanlearn.engine.learner import build_learner, weights_at
from scanlearn.engine.pretrain import pretrain
from scanlearn.engine.recipe import Stage, load_recipe
from scanlearn.engine.run_folder import RunFolder
from scanlearn.engine.train import Training, train
from scanlearn.errors import ScanlearnError
from scanlearn.weights.encoder import load_network, read_card, save_network

HERE = Path(__file__).parent


@pytest.mark.parametrize("recipe, store", [(moco_recipe, image_store), (genesis_recipe, volume_store)])
def test_a_run_folder_holds_everything_and_the_export_is_the_trained_network(tmp_path, recipe, store):
    result = pretrain(store(tmp_path), recipe(), tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    names = ("record.json", "record.arrow", "encoder/encoder.json")
    for path in (run.recipe, run.environment, run.metrics, *(run.path / name for name in names)):
        assert path.is_file(), path
    exported = load_network(run.path).state_dict()
    assert all(torch.equal(v, exported[k]) for k, v in result.network.state_dict().items())
    losses = [line["loss"] for line in run.read_metrics("train")]
    assert len(losses) == 6 and np.isfinite(losses).all()
    line = run.read_metrics("train")[-1]
    assert {"learning_rate", "images_per_second", "data_wait"} <= line.keys()


def test_a_run_folder_names_no_file_of_the_data(tmp_path):
    pretrain(image_store(tmp_path), moco_recipe(steps=1), tmp_path / "run")
    text = b"".join(path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert str(tmp_path).encode() not in text


def test_training_lowers_the_loss(tmp_path):
    recipe = genesis_recipe(steps=60, log_every=10, optimizer={"name": "adam", "lr": 0.01})
    pretrain(volume_store(tmp_path), recipe, tmp_path / "run")
    losses = [line["loss"] for line in RunFolder(tmp_path / "run").read_metrics("train")]
    assert losses[-1] < 0.8 * losses[0]


def test_workers_change_nothing(tmp_path):
    store = image_store(tmp_path)
    states = [pretrain(store, moco_recipe(), tmp_path / f"run{n}", workers=n).learner.state_dict() for n in (0, 2)]
    assert all(torch.equal(v, states[1][k]) for k, v in states[0].items())


def test_accumulated_parts_give_the_gradient_of_the_whole_batch(tmp_path):
    # Batch norm sees the parts, so the whole batch is normalised in groups of their size.
    store = volume_store(tmp_path)
    sgd = {"name": "sgd", "lr": 0.1}  # Adam would blow the noise in gradients of biases before batch norm up
    split = {**dataclasses.asdict(genesis_recipe().network), "batch_norm": "split", "batch_norm_groups": 2}
    whole = genesis_recipe(steps=3, optimizer=sgd, network=split)
    parts = genesis_recipe(steps=3, optimizer=sgd, accumulate=2)
    parts.views = whole.views = {"clean": {"ops": []}, "distorted": {"source": "clean", "ops": []}}
    whole.size = parts.size = [24, 24, 24]  # larger than the scans: no random place
    first = train(whole, store, Training(np.arange(4)), tmp_path / "whole").network
    second = train(parts, store, Training(np.arange(4)), tmp_path / "parts").network
    for (name, a), b in zip(first.named_parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4, msg=name)


def test_monitor_and_evaluation_change_nothing_in_the_weights(tmp_path):
    store = image_store(tmp_path)
    watched = pretrain(store, moco_recipe(monitor={"every": 1, "scans": 12}), tmp_path / "watched").learner.state_dict()
    alone = pretrain(store, moco_recipe(monitor={"every": -1}), tmp_path / "alone").learner.state_dict()
    assert all(torch.equal(v, alone[k]) for k, v in watched.items())


def test_the_monitor_says_how_spread_the_features_are(tmp_path):
    pretrain(image_store(tmp_path, count=60), moco_recipe(monitor={"every": 6, "scans": 60}), tmp_path / "run")
    line = RunFolder(tmp_path / "run").read_metrics("monitor")[-1]
    assert {"rankme", "feature_std", "alignment", "uniformity", "knn_auroc_label", "linear_auroc_label"} <= line.keys()


def test_a_loss_that_is_not_finite_stops_with_the_step_and_the_scans(tmp_path):
    store = image_store(tmp_path)
    recipe = moco_recipe(optimizer={"name": "sgd", "lr": 1e30})
    with pytest.raises(ScanlearnError, match=r"not finite at step \d+, on [5-8] scans \(scan-[0-9a-f]+, "):
        pretrain(store, recipe, tmp_path / "run")


def test_overlapping_parts_refuse_to_run(tmp_path):
    store = image_store(tmp_path)
    training = Training(np.arange(6), parts={"pre-training": np.arange(6), "test": np.arange(5, 9)})
    with pytest.raises(ScanlearnError, match="pre-training"):
        train(moco_recipe(), store, training, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_pretraining_leaves_validation_and_test_patients_out(tmp_path):
    store = image_store(tmp_path)
    pretrain(store, moco_recipe(steps=1), tmp_path / "run")
    used = json.loads((tmp_path / "run" / "environment.json").read_text())["scans"]
    assert used == len(store.splits["train"]) < len(store)


def test_a_2d_recipe_on_volumes_is_refused(tmp_path):
    with pytest.raises(ScanlearnError, match="is for 2D scans, the store holds 3D"):
        pretrain(volume_store(tmp_path), moco_recipe(), tmp_path / "run")


def test_init_starts_from_the_weights_and_key_encoder_follows(tmp_path):
    store = image_store(tmp_path)
    first = pretrain(store, moco_recipe(), tmp_path / "first").network
    recipe = moco_recipe(steps=1, optimizer={"name": "sgd", "lr": 0.0})
    second = pretrain(store, recipe, tmp_path / "second", init=tmp_path / "first", seed=9)
    for (name, a), b in zip(first.encoder.named_parameters(), second.network.encoder.parameters(), strict=True):
        assert torch.equal(a, b), name
    keys = second.learner.objectives["momentum_contrast"].key_encoder
    for a, b in zip(first.encoder.parameters(), keys.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_stages_change_weights_and_skip_objectives():
    recipe = genesis_recipe()
    recipe.stages = [Stage(5, {"restore": 0.0}), Stage(7)]
    assert [weights_at(recipe, s)["restore"] for s in (0, 4, 5, 11)] == [0.0, 0.0, 1.0, 1.0]


def torchrun(method, store, out, strategy):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(HERE / "killed.py"), method, str(store), str(out), strategy]
    return subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("method", ["moco", "genesis_sgd", "masks"])
def test_two_ranks_from_torchrun_train_as_one_process(tmp_path, method, strategy):
    recipe, store = RECIPES[method]
    path = store(tmp_path).path
    plain = recipe(network={**dataclasses.asdict(recipe().network), "batch_norm": "split", "batch_norm_groups": 2})
    labels = MASKS_SEEN if method == "masks" else None
    alone = pretrain(path, plain, tmp_path / "alone", seed=3, labels=labels).network
    done = torchrun(method, path, tmp_path / "ranks", strategy)
    assert read_card(tmp_path / "ranks")["notes"]["finished"], done.stderr[-3000:]
    ranks = load_network(tmp_path / "ranks")
    for (name, ours), theirs in zip(alone.named_parameters(), ranks.parameters(), strict=True):
        tolerance = 1e-5 if strategy == "ddp" else 1e-4  # FSDP keeps weights contiguous, so sums run in another order
        torch.testing.assert_close(theirs, ours, atol=tolerance, rtol=1e-3, msg=name)
    for one, two in zip(*(RunFolder(tmp_path / n).read_metrics("train") for n in ("alone", "ranks")), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-3)  # the loss that is logged is that of all ranks


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_an_opponent_trains_on_two_ranks_as_in_one_process(tmp_path, strategy):
    path, recipe = image_store(tmp_path).path, RECIPES["dira_short"][0]
    split = {**dataclasses.asdict(recipe().network), "batch_norm": "split", "batch_norm_groups": 2}
    alone = pretrain(path, recipe(network=split), tmp_path / "alone", seed=3)
    done = torchrun("dira_short", path, tmp_path / "ranks", strategy)
    assert read_card(tmp_path / "ranks")["notes"]["finished"], done.stderr[-3000:]
    state = torch.load(checkpoints(tmp_path / "ranks" / "checkpoints")[-1], weights_only=True)["learner"]
    for name, ours in alone.learner.state_dict().items():
        if name == "balance.norms":
            torch.testing.assert_close(state[name], ours, atol=0, rtol=1e-4)
        elif "running" not in name and "num_batches" not in name:  # these buffers belong to their rank
            # Adam moves what has no gradient (a bias before a norm) by the sign of rounding, about its rate in a step, on
            # either side.
            loose = alone.steps * 2 * 2e-4 if "opponent" in name and name.endswith("bias") else 2e-5
            torch.testing.assert_close(state[name], ours, atol=loose, rtol=1e-4, msg=name)


def test_the_same_seed_gives_the_same_learner():
    first, second = (build_learner(moco_recipe(), seed=5, world_size=1).state_dict() for _ in range(2))
    assert all(torch.equal(v, second[k]) for k, v in first.items())


def test_mixed_precision_leaves_views_and_targets_in_float32(tmp_path, monkeypatch):
    from scanlearn.objectives.restore import Restore, restored_image

    seen, forward = set(), Restore.forward

    def spy(self, step):
        seen.update({step.view("clean").dtype, restored_image(step, "distorted", "clean").dtype})
        seen.add(("network", step.restored("distorted").dtype))
        return forward(self, step)

    monkeypatch.setattr(Restore, "forward", spy)
    pretrain(volume_store(tmp_path), genesis_recipe(steps=2, precision="bf16-mixed"), tmp_path / "run")
    assert seen == {torch.float32, ("network", torch.bfloat16)}


def test_collapsed_features_are_said_in_plain_words(tmp_path, capsys):
    # Without learning rate the key is the query; zero weights make all features equal.
    store = image_store(tmp_path)
    recipe = moco_recipe(steps=2, optimizer={"name": "sgd", "lr": 0.0}, monitor={"every": 1, "scans": 12})
    start = pretrain(store, moco_recipe(steps=1, monitor={"every": -1}), tmp_path / "start").network
    for parameter in start.parameters():
        torch.nn.init.zeros_(parameter)
    save_network(start, tmp_path / "zeros")
    capsys.readouterr()
    pretrain(store, recipe, tmp_path / "run", init=tmp_path / "zeros")
    assert "The features have collapsed" in capsys.readouterr().err
    looks = RunFolder(tmp_path / "run").read_metrics("monitor")
    assert ["warning" in look for look in looks] == [False, True]


def test_steps_that_are_asked_for_win_over_the_epochs_of_a_recipe():
    assert load_recipe("moco_v2").epochs == 200
    recipe = load_recipe("moco_v2", {"steps": 7})
    assert recipe.epochs is None and recipe.steps == 7


def test_resume_needs_no_settings_again_and_takes_no_init(tmp_path):
    store = image_store(tmp_path)
    pretrain(store, "moco_v2_small", tmp_path / "run", settings=SMALL_MOCO)
    assert pretrain(store, "moco_v2_small", tmp_path / "run", resume=True).steps == 2
    with pytest.raises(ScanlearnError, match="begun with the recipe 'moco_v2_small'"):
        pretrain(store, "moco_v2", tmp_path / "run", resume=True)
    with pytest.raises(ScanlearnError, match="takes no --init"):
        pretrain(store, "moco_v2_small", tmp_path / "run", resume=True, init=tmp_path / "run")


def test_a_decoder_that_paints_one_grey_is_said(tmp_path, capsys):
    store = volume_store(tmp_path)
    start = pretrain(store, genesis_recipe(steps=1), tmp_path / "start").network
    for parameter in start.parameters():
        torch.nn.init.zeros_(parameter)
    save_network(start, tmp_path / "zeros")
    still = genesis_recipe(steps=4, optimizer={"name": "sgd", "lr": 0.0})
    pretrain(store, still, tmp_path / "run", init=tmp_path / "zeros")
    assert capsys.readouterr().err.count("the decoder has collapsed") == 1
