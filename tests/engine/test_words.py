import json

import numpy as np
import pytest
import torch
from runs import genesis_recipe, volume_store

from scanlearn.engine.pretrain import pretrain
from scanlearn.engine.recipe import Stage, load_recipe, stretched
from scanlearn.engine.train import Views, unused_parameters
from scanlearn.engine.validation import held_out_figure
from scanlearn.errors import ScanlearnError
from scanlearn.scans.loader import Loader
from scanlearn.scans.words import open_words, write_words
from scanlearn.weights.encoder import read_card
from word_tables import word_columns, word_table

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


def test_stages_share_the_epochs_of_a_run(store, words, tmp_path):
    stages = [{"steps": 1, "weights": {"restore": 2.0}}, {"steps": 3}]
    recipe = genesis_recipe(**{**RECIPE, "stages": stages, "epochs": 4, "batch_size": 5})
    result = pretrain(store, recipe, tmp_path / "run", words=words.folder)
    assert result.steps == 4 * len(words.patches()) // 5 == 12
    assert [stage.steps for stage in load_recipe(tmp_path / "run" / "recipe.yaml").stages] == [3, 9]


def test_a_stage_in_which_nothing_is_learned_is_refused():
    stages = [{"steps": 2, "weights": {"restore": 0.0}}, {"steps": 2}]
    with pytest.raises(ScanlearnError, match=r"Stage 1 .* nothing to learn: .* --stages '\[\]'"):
        genesis_recipe(stages=stages)
    with pytest.raises(ScanlearnError, match="nothing to learn"):
        genesis_recipe(objectives={"restore": {"weight": 0}})
    only = {"objectives.words.weight": 0, "stages": []}
    assert load_recipe("semantic_genesis_3d_small", only).stages == []


def test_an_objective_without_weight_leaves_parameters_unused():
    assert not unused_parameters(genesis_recipe())
    assert unused_parameters(load_recipe("semantic_genesis_3d_small"))
    assert unused_parameters(load_recipe("semantic_genesis_3d_small", {"objectives.words.weight": 0, "stages": []}))


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


def test_validation_is_the_weighted_loss_on_the_words_of_other_patients(store, words, tmp_path):
    recipe = genesis_recipe(**{**RECIPE, "batch_size": 2, "stopping": {"every": 2, "patience": 0}})
    recipe.objectives = {"restore": {"weight": 2.0}, "words": {"weight": 0.5, "width": 4}}
    result = pretrain(store, recipe, tmp_path / "run", words=words.folder, seed=1)
    figure = held_out_figure(recipe, store, words, 1)
    learner = result.learner.eval()
    with torch.no_grad():
        assert figure(learner) == figure(learner)  # the same distortions every time
        patches, losses = words.patches("val"), []
        views = Views(recipe, store, 1, torch.device("cpu"), torch.contiguous_format)
        for batch in Loader(
            store, patches.rows, patches=patches, batch_size=2, size=(16,) * 3, seed=1, stop=len(patches) // 2
        ):
            _, parts = learner(views(batch), batch, {"restore": 1.0, "words": 1.0})
            losses.append(2 * parts["restore"] + 0.5 * parts["words"])
        assert figure(learner) == pytest.approx(float(torch.stack(losses).mean()), rel=1e-5)
        assert result.stopping["best_figure"] == pytest.approx(figure(learner), rel=1e-5)


def test_validation_without_validation_words_is_refused(store, tmp_path):
    columns = word_columns(store, (16, 16, 16))
    train = columns["part"] == 0
    write_words(
        tmp_path / "words",
        store=store.info["key"],
        size=(16, 16, 16),
        settings={},
        **{name: values[train] for name, values in columns.items()},
    )
    recipe = genesis_recipe(**RECIPE, stopping={"every": 2})
    with pytest.raises(ScanlearnError, match="no words of validation patients"):
        pretrain(store, recipe, tmp_path / "run", words=tmp_path / "words")
