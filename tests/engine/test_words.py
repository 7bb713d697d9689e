import json

import numpy as np
import pytest
from runs import genesis_recipe, volume_store

from scanlearn.engine.pretrain import pretrain
from scanlearn.engine.recipe import Stage, load_recipe, stretched
from scanlearn.errors import ScanlearnError
from scanlearn.scans.words import open_words
from scanlearn.weights.encoder import read_card
from word_tables import word_table

RECIPE = {"patches": "words", "steps": 4, "checkpoint_every": 2, "monitor": {"every": -1}}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return volume_store(tmp_path_factory.mktemp("volumes"))


@pytest.fixture
def words(store, tmp_path):
    return word_table(store, tmp_path / "words", (16, 16, 16), words=3)


def test_a_run_on_words_counts_crops_and_keeps_the_table(store, words, tmp_path, capsys):
    result = pretrain(store, genesis_recipe(**RECIPE), tmp_path / "run", words=words.folder)
    assert result.steps == 4
    assert open_words(tmp_path / "run" / "words", store).same_as(words)
    notes = read_card(tmp_path / "run")["notes"]
    assert (notes["words"], notes["crops"]) == (3, 3 * len(store.splits["train"]))
    assert notes["scans"] == len(store.splits["train"])
    assert "crops of 3 words" in capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["scans"] == notes["crops"]


def test_epochs_are_passes_over_the_crops(store, words, tmp_path):
    recipe = genesis_recipe(**{**RECIPE, "steps": 1, "epochs": 2, "batch_size": 3})
    assert pretrain(store, recipe, tmp_path / "run", words=words.folder).steps == 2 * len(words.patches()) // 3


def test_words_must_be_given_exactly_when_the_recipe_learns_from_them(store, words, tmp_path):
    with pytest.raises(ScanlearnError, match="scanlearn discover"):
        pretrain(store, genesis_recipe(**RECIPE), tmp_path / "run")
    with pytest.raises(ScanlearnError, match="leave --words out"):
        pretrain(store, genesis_recipe(), tmp_path / "run", words=words.folder)
    with pytest.raises(ScanlearnError, match="leave --part out"):
        pretrain(store, genesis_recipe(**RECIPE), tmp_path / "run", words=words.folder, part="all")
    with pytest.raises(ScanlearnError, match="kind of patches"):
        genesis_recipe(patches="letters")


def test_a_resumed_run_goes_on_with_its_own_table(store, words, tmp_path):
    recipe = genesis_recipe(**RECIPE)
    whole = pretrain(store, recipe, tmp_path / "whole", words=words.folder)
    pretrain(store, recipe, tmp_path / "run", words=words.folder)
    for checkpoint in sorted((tmp_path / "run" / "checkpoints").glob("step*"))[1:]:
        checkpoint.unlink()  # as if it had been killed before the last one
    again = pretrain(store, recipe, tmp_path / "run", resume=True)
    for name, tensor in whole.network.state_dict().items():
        assert np.array_equal(tensor, again.network.state_dict()[name]), name
    other = word_table(store, tmp_path / "other", (16, 16, 16), words=3, seed=5)
    with pytest.raises(ScanlearnError, match="another table"):
        pretrain(store, recipe, tmp_path / "run", resume=True, words=other.folder)


def test_asking_for_steps_stretches_the_stages(tmp_path):
    stages = [Stage(20, {"a": 0.0}), Stage(180, {})]
    assert [s.steps for s in stretched(stages, 1000)] == [100, 900]
    assert [s.steps for s in stretched(stages, 5)] == [1, 4]
    assert stretched(stages, 1000)[0].weights == {"a": 0.0}
    file = tmp_path / "staged.yaml"
    file.write_text(
        "base: models_genesis_3d_small\nname: staged\nstages: [{steps: 10, weights: {restore: 0.5}}, {steps: 30}]\n"
    )
    recipe = load_recipe(file, {"steps": 400})
    assert recipe.steps == 400 and [s.steps for s in recipe.stages] == [100, 300]
    assert load_recipe(file).steps == 40
