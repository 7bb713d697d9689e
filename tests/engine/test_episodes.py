import json

import numpy as np
import pytest
import torch
from runs import moco_recipe

from scanlearn.cli import main
from scanlearn.engine.checkpoint import checkpoints
from scanlearn.engine.pretrain import pretrain
from scanlearn.engine.recipe import load_recipe, parse_recipe
from scanlearn.engine.run_folder import RunFolder
from scanlearn.errors import ScanlearnError
from scanlearn.scans.prepare import prepare
from scanlearn.scans.store import open_store
from scanlearn.tasks.fewshot.run import fewshot

QUICK = {
    "views": {"image": {"ops": []}},
    "network": {"encoder": {"name": "conv4", "width": 4}},
    "objectives": {"prototypes": {"temperature": 20.0}},
    "episodes": {"ways": 2, "shots": 2, "queries": 3},
    "optimizer": {"name": "adam", "lr": 0.01},
    "schedule": {"name": "constant"},
    "steps": 8,
    "checkpoint_every": 3,
    "monitor": {"every": -1},
}


def recipe(**changes):
    return moco_recipe(**{"name": "tiny_prototypes", **QUICK, **changes})


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Four classes of grey, 30 patients of each with two scans; the patient's brightness says nothing."""
    folder = tmp_path_factory.mktemp("classes")
    rng = np.random.default_rng(0)
    label = np.arange(240) // 2 % 4
    image = rng.random((240, 24, 24)) * 40
    for row, c in enumerate(label):
        image[row, c * 6 : c * 6 + 6] += 100  # the class is where the bright band lies
    np.savez(folder / "images.npz", image=image.astype(np.uint8), label=label, patient=np.arange(240) // 2)
    prepare(folder / "images.npz", folder / "store", target="label", workers=1)
    return folder / "store"


def test_learning_from_episodes_of_base_classes_tells_them_apart_and_sees_no_other(store, tmp_path, capsys):
    out = tmp_path / "run"
    pretrain(store, recipe(steps=60, log_every=5), out, target="label", classes=["0", "1", "2"])
    assert "base classes: 0, 1, 2; not seen: 3." in capsys.readouterr().err
    log = RunFolder(out).read_metrics("train")
    assert log[-1]["episode_accuracy"] > 0.9 and log[-1]["loss"] < log[0]["loss"]
    opened = open_store(store)
    record = json.loads((out / "record.json").read_text())
    codes = opened.catalog.labels("label").codes[np.asarray(opened.splits["train"])]
    assert record["parts"]["pre-training"]["scans"] == (codes != 3).sum()
    figures = fewshot(
        out, store, target="label", out=tmp_path / "few", shots=[2], queries=4, episodes=10, bootstrap=10, part="all"
    )
    assert figures["results"]["run"]["prototypes"]["2"]["accuracy"]["mean"] > 0.8


def final(out):
    return torch.load(checkpoints(RunFolder(out).checkpoints)[-1], weights_only=True)["learner"]


@pytest.fixture(scope="module")
def unbroken(store, tmp_path_factory):
    """The last state of a run that nobody stopped."""
    out = tmp_path_factory.mktemp("unbroken") / "run"
    pretrain(store, recipe(), out, target="label")
    return final(out)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_meets_the_episodes_of_the_unbroken_one_with_any_number_of_workers(
    store, unbroken, tmp_path, workers
):
    pretrain(store, recipe(), tmp_path / "run", target="label")
    for checkpoint in checkpoints(RunFolder(tmp_path / "run").checkpoints)[1:]:
        checkpoint.unlink()  # as if it had been killed before the last one
    pretrain(store, recipe(), tmp_path / "run", target="label", resume=True, workers=workers)
    again = final(tmp_path / "run")
    assert unbroken.keys() == again.keys() and all(torch.equal(value, again[name]) for name, value in unbroken.items())
    with pytest.raises(ScanlearnError, match="episodes, scans differ"):
        pretrain(store, recipe(), tmp_path / "run", target="label", classes=["0", "1", "3"], resume=True)


def test_episodes_of_a_step_in_parts_give_the_weights_of_the_step_as_a_whole(store, tmp_path):
    sgd = {"optimizer": {"name": "sgd", "lr": 0.001}, "steps": 2}
    both = {"ways": 2, "shots": 2, "queries": 3, "per_step": 2}
    states = []
    for parts in (1, 2):
        out = tmp_path / str(parts)
        pretrain(store, recipe(episodes=dict(both), accumulate=parts, **sgd), out, target="label")
        states.append(final(out))
    for name, value in states[0].items():
        if "running" not in name and "tracked" not in name:  # parts move them twice
            torch.testing.assert_close(value, states[1][name], rtol=1e-3, atol=1e-5)


def test_it_starts_from_other_weights(store, tmp_path):
    pretrain(store, recipe(steps=1), tmp_path / "first", target="label")
    started = pretrain(store, recipe(steps=1), tmp_path / "second", target="label", init=tmp_path / "first", seed=9)
    scratch = pretrain(store, recipe(steps=1), tmp_path / "third", target="label", seed=9)
    first = dict(pretrain(store, recipe(steps=1), tmp_path / "again", target="label").network.named_parameters())
    near, far = (
        sum((p - first[name]).abs().sum().item() for name, p in result.network.named_parameters())
        for result in (started, scratch)
    )
    assert near < 0.5 * far


def test_two_classes_are_refused_with_the_reason(store, tmp_path):
    with pytest.raises(ScanlearnError, match="always the same task, which `finetune` learns"):
        pretrain(store, recipe(), tmp_path / "run", target="label", classes=["0", "1"])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "say which label column with --target; the store has: label"),
        ({"target": "scan"}, "no label column 'scan'"),
        ({"target": "label", "classes": ["0", "1", "7"]}, "no class '7'"),
    ],
)
def test_what_cannot_be_learned_is_refused(store, tmp_path, options, sentence):
    with pytest.raises(ScanlearnError, match=sentence):
        pretrain(store, recipe(), tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_more_ways_than_classes_and_more_queries_than_scans_are_refused(store, tmp_path):
    for episodes, sentence in (
        ({"ways": 5, "shots": 1, "queries": 1}, "cannot be drawn from 4 classes"),
        ({"ways": 3, "shots": 1, "queries": 500}, "ask for fewer shots or queries"),
    ):
        with pytest.raises(ScanlearnError, match=sentence):
            pretrain(store, recipe(episodes=episodes), tmp_path / "run", target="label")


def test_a_recipe_that_learns_without_labels_takes_no_classes(store, tmp_path):
    with pytest.raises(ScanlearnError, match="leave --target and --classes out"):
        pretrain(store, moco_recipe(), tmp_path / "run", target="label")
    with pytest.raises(ScanlearnError, match="learns from episodes: give recipe 'tiny_prototypes' `episodes`"):
        pretrain(store, recipe(episodes=None), tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"objectives": {"momentum_contrast": {}}}, "no objective 'prototypes'"),
        ({"stopping": {"every": 5}}, "stopping.every does not go with"),
        ({"network": {"encoder": {"name": "conv4"}, "batch_norm": "sync"}}, "batch_norm: sync does not go with"),
        ({"accumulate": 2}, "multiple of accumulate"),
        ({"episodes": {"ways": 1, "shots": 1, "queries": 1}}, "episodes.ways must be between 2"),
    ],
)
def test_recipes_whose_parts_do_not_fit_episodes_are_refused(changes, sentence):
    with pytest.raises(ScanlearnError, match=sentence):
        recipe(**changes)


def test_the_batch_is_the_episodes_and_each_has_a_batch_norm_of_its_own():
    made = recipe(episodes={"ways": 3, "shots": 1, "queries": 4, "per_step": 2})
    assert made.batch_size == 30 and (made.network.batch_norm, made.network.batch_norm_groups) == ("split", 2)
    assert made.objectives["prototypes"] == {"temperature": 20.0, "ways": 3, "shots": 1, "queries": 4}
    again = parse_recipe(made.to_dict())
    assert again.to_dict() == made.to_dict()
    assert load_recipe("prototypes", {"episodes.ways": 5}).batch_size == 100


def test_the_verb_takes_target_and_classes(store, tmp_path):
    settings = ["--steps", "1", "--network.encoder.width", "4", "--views.image.ops", "[]", "--monitor.every", "-1"]
    small = ["--episodes.shots", "1", "--episodes.queries", "2", "--recipe", "prototypes_small"]
    words = ["pretrain", str(store), "--out", str(tmp_path / "run"), "--target", "label", "--classes", "0", "1", "3"]
    assert main([*words, *small, *settings]) == 0
    saved = load_recipe(tmp_path / "run" / "recipe.yaml")
    assert (saved.episodes.target, saved.episodes.classes) == ("label", ["0", "1", "3"])
