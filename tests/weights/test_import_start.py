"""What was imported is where runs start: fine-tuning, pre-training, the command line."""

import json

import pytest
import torch
from runs import genesis_recipe, volume_store

from scanlearn.cli import main
from scanlearn.engine.pretrain import pretrain
from scanlearn.tasks.finetune import finetune
from scanlearn.weights.encoder import load_network, terms_of
from scanlearn.weights.layouts import import_weights
from weights import published
from weights.test_import import checkpoint

FAST = {"steps": 1, "batch_size": 2, "precision": "32-true", "monitor.every": -1}


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    return volume_store(tmp_path_factory.mktemp("volumes"), count=10, size=20)


@pytest.mark.parametrize(
    "layout, make, size, encoder, decoder",
    [
        ("genesis", published.genesis, [16, 16, 16], "56 of 56", "48 of 50"),
        ("semantic_genesis", lambda: published.semantic(decoder=False), [16, 16, 16], "56 of 56", "0 of 50"),
        ("genesis_nnunet", published.nnunet, [32, 32, 32], "48 of 48", "46 of 46"),
    ],
)
def test_segmentation_starts_from_it_and_says_what_was_taken(
    volumes, tmp_path, capsys, layout, make, size, encoder, decoder
):
    import_weights(checkpoint(tmp_path, make()), layout, tmp_path / "imported")
    capsys.readouterr()
    settings = {**FAST, "size": size}
    results = finetune(volumes, "segment", init=tmp_path / "imported", out=tmp_path / "run", settings=settings)
    said = " ".join(capsys.readouterr().err.split())
    assert f"Loaded {encoder} encoder tensors and {decoder} decoder tensors" in said
    assert "Terms of these weights" in said and results["init"] == "imported"
    assert load_network(tmp_path / "run").encoder.name == ("nnunet" if layout == "genesis_nnunet" else "unet")


def test_the_published_cube_is_the_input_unless_another_is_asked_for(volumes, tmp_path):
    import_weights(checkpoint(tmp_path, published.genesis()), "genesis", tmp_path / "imported")
    card = json.loads((tmp_path / "imported" / "encoder.json").read_text())
    assert card["notes"]["input_size"] == [64, 64, 32]
    assert terms_of(tmp_path / "imported") == {"licence_notice": card["notes"]["licence_notice"]}


def test_pretraining_goes_on_from_it(volumes, tmp_path, capsys):
    tensors = published.genesis()
    import_weights(checkpoint(tmp_path, tensors), "genesis", tmp_path / "imported")
    recipe = genesis_recipe(steps=1, batch_size=2, optimizer={"name": "sgd", "lr": 0.0})
    pretrain(volumes, recipe, tmp_path / "run", init=tmp_path / "imported")
    said = " ".join(capsys.readouterr().err.split())
    assert "Loaded 56 of 56 encoder tensors and 50 of 50 decoder tensors" in said and "Terms of these weights" in said
    assert terms_of(tmp_path / "run") == terms_of(tmp_path / "imported") != {}  # they go with the weights
    weight = load_network(tmp_path / "run").state_dict()["encoder.down_tr512.ops.1.conv1.weight"]
    assert torch.equal(weight, tensors["down_tr512.ops.1.conv1.weight"])


def test_frozen_features_keep_the_terms_too(tmp_path, capsys):
    store = volume_store(tmp_path, count=20, size=20, label=True)
    import_weights(checkpoint(tmp_path, published.genesis()), "genesis", tmp_path / "imported")
    finetune(store, "classify", target="label", init=tmp_path / "imported", mode="frozen", out=tmp_path / "run")
    assert "Terms of these weights" in " ".join(capsys.readouterr().err.split())
    assert "non-commercial" in terms_of(tmp_path / "run")["licence_notice"]


def test_a_network_of_our_own_has_no_terms(tmp_path, volumes):
    pretrain(volumes, genesis_recipe(steps=1, batch_size=2), tmp_path / "run")
    assert terms_of(tmp_path / "run") == {}


def test_the_verb_imports_and_says_what_comes_next(tmp_path, capsys):
    file, out = checkpoint(tmp_path, published.genesis()), tmp_path / "out"
    assert main(["import-weights", str(file), "--layout", "genesis", "--out", str(out)]) == 0
    said = capsys.readouterr().err
    assert "All 106 tensors" in said and f"finetune STORE --task segment --init {out}" in said
    assert main(["import-weights", str(file), "--layout", "genesis", "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert "not empty: choose another --out" in said and "Traceback" not in said
