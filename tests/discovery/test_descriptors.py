import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from discovery.stores import image_store, volume_store
from scanlearn.discovery import descriptors as module
from scanlearn.discovery.descriptors import WHOLE, Source
from scanlearn.discovery.discover import discover
from scanlearn.engine.learner import build_learner
from scanlearn.engine.pretrain import pretrain
from scanlearn.engine.recipe import load_recipe
from scanlearn.engine.record import read_record
from scanlearn.engine.run_folder import RunFolder
from scanlearn.errors import ScanlearnError
from scanlearn.weights.encoder import load_network, read_card

KILLED = Path(__file__).with_name("killed.py")
TINY = {"steps": 6, "batch_size": 4, "network.encoder.width": 1, "checkpoint_every": 2, "monitor.every": -1}
TINY |= {"precision": "32-true", "size": [16, 16, 16]}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return volume_store(tmp_path_factory.mktemp("descriptors"))


def described(store, out, rows=None, **source):
    rows = np.sort(np.concatenate([store.splits["train"], store.splits["val"]])) if rows is None else rows
    (out / "work").mkdir(parents=True, exist_ok=True)
    what = {"autoencoder": None, "skips": False, "settings": None, "encoder": None, "descriptors": None, **source}
    return Source(store, **what).describe(rows, out / "autoencoder", out / "work", seed=0)


@pytest.fixture(scope="module")
def trained(store, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained")
    return out, described(store, out, settings=TINY)


# ---------------------------------------------------------------- the auto-encoder (spec_genesis §1.3)


def test_the_published_auto_encoder_has_the_published_numbers():
    recipe = load_recipe("autoencoder_3d")
    assert (recipe.size, recipe.batch_size) == ([128, 128, 64], 8)
    assert (recipe.optimizer.name, recipe.optimizer.lr, recipe.optimizer.weight_decay) == ("adam", 1e-3, 0.0)
    assert recipe.objectives["restore"] == {
        "weight": 1.0,
        "view": "image",
        "target": "image",
        "loss": "mse",
        "activation": "sigmoid",
    }
    with torch.device("meta"):
        network = build_learner(recipe, seed=0, world_size=1).network
        maps = network.features(torch.empty(1, 1, 128, 128, 64))
    assert tuple(maps[-1].shape) == (1, 512, 16, 16, 8) and network.encoder.num_features == 512


@pytest.mark.parametrize("name", ["autoencoder_3d_small", "autoencoder_2d_small"])
@pytest.mark.parametrize("skips", [False, True])
def test_without_skips_the_output_depends_on_the_bottleneck_alone(name, skips):
    recipe = load_recipe(name, {"network.encoder.width": 2, "network.decoder.skips": skips})
    network = build_learner(recipe, seed=0, world_size=1).network.eval()
    x = torch.rand(2, 1, *[16] * recipe.spatial_dims)
    maps = network.features(x)
    other = [torch.rand_like(m) for m in maps[:-1]] + maps[-1:]
    same = torch.equal(network.decoder(maps, x.shape[2:]), network.decoder(other, x.shape[2:]))
    assert same is not skips


def test_the_descriptor_is_the_pooled_bottleneck_of_the_whole_scan_not_normalised(store, trained):
    out, found = trained
    network = load_network(out / "autoencoder").eval()
    assert found.values.dtype == np.float32 and found.values.shape == (11, network.encoder.num_features)
    source = module.make_thumbnails(store, found.rows, (16, 16, 16), out / "work" / "thumbnails.u8")
    image = torch.from_numpy(np.stack(source.read(found.rows))).float() / 255
    with torch.no_grad():
        wanted = network.features(image)[-1].mean(dim=(2, 3, 4)).numpy()
    np.testing.assert_allclose(found.values, wanted, rtol=1e-4, atol=1e-6)
    assert np.ptp(np.linalg.norm(found.values, axis=1)) > 0
    assert found.lines(found.rows[[3, 0]]).tolist() == [3, 0]


def test_the_auto_encoder_sees_the_train_part_alone(store, trained):
    record = read_record(RunFolder(trained[0] / "autoencoder"))
    assert sorted(record.rows("pre-training")) == sorted(store.splits["train"]) and record.shared() == (0, 0)
    notes = read_card(trained[0] / "autoencoder")["notes"]
    assert notes["scans"] == len(store.splits["train"]) and notes[WHOLE] and notes["finished"]


def test_images_are_seen_whole_from_the_store_itself(tmp_path):
    store = image_store(tmp_path / "store")
    tiny = {**TINY, "views.image.ops": [{"resize": {"size": 16}}]}
    tiny.pop("size")
    found = described(store, tmp_path, settings=tiny)
    assert not (tmp_path / "work" / "thumbnails.u8").exists() and len(found.values) == len(found.rows)
    assert read_card(tmp_path / "autoencoder")["notes"]["input_size"] == [16, 16]


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ({"autoencoder": "moco_v2_small"}, "is for 2D scans"),
        ({"settings": {"network.decoder": None}}, "autoencoder_3d_small' is no auto-encoder"),
        ({"skips": True, "encoder": "run"}, "give one"),
        ({"encoder": "nowhere"}, "no saved network at nowhere"),
    ],
)
def test_what_gives_no_descriptors_is_refused(store, tmp_path, source, sentence):
    with pytest.raises(ScanlearnError, match=sentence):
        described(store, tmp_path, **source)


# ---------------------------------------------------------------- other encoders


def test_an_encoder_of_whole_scans_is_given_whole_scans(store, trained, tmp_path):
    out, found = trained
    again = described(store, tmp_path, encoder=out / "autoencoder")
    np.testing.assert_array_equal(again.values, found.values)


def test_an_encoder_of_patches_gives_the_mean_over_patches(store, tmp_path):
    views = {"clean": {"source": "image"}, "distorted": {"source": "clean", "ops": ["intensity_curve"]}}
    settings = {"size": [16, 16, 16], "steps": 2, "batch_size": 2, "network.encoder.width": 1, "views": views}
    pretrain(store, "models_genesis_3d_small", tmp_path / "run", settings=settings)
    found = described(store, tmp_path, encoder=tmp_path / "run")
    assert not (tmp_path / "work" / "thumbnails.u8").exists() and found.values.shape == (11, 16)


def test_an_encoder_that_was_trained_on_the_test_part_is_refused_before_the_work(store, tmp_path):
    views = {"clean": {"source": "image"}, "distorted": {"source": "clean", "ops": ["intensity_curve"]}}
    settings = {"size": [16, 16, 16], "steps": 2, "batch_size": 2, "network.encoder.width": 1, "views": views}
    pretrain(store, "models_genesis_3d_small", tmp_path / "run", part="all", settings=settings)
    with pytest.raises(ScanlearnError, match="of the test part were in the pre-training of run"):
        discover(store, tmp_path / "words", encoder=tmp_path / "run", neighbours=2, classes=2, size=8)
    assert not (tmp_path / "words").exists()


# ---------------------------------------------------------------- killed


def test_a_killed_discovery_goes_on_and_gives_the_table_of_an_unbroken_one(store, tmp_path):
    """SIGKILL while thumbnails are made, in the training and while descriptors are written, one after the other."""
    how = {"settings": TINY, "classes": 4, "neighbours": 4, "neighbours_val": 2, "size": [10, 10, 8]}
    whole = discover(store, tmp_path / "whole", **how)
    places = ["thumbnails", "training", "descriptors"]
    arguments = [store.location, tmp_path / "broken", json.dumps(how), *places]
    done = subprocess.run([sys.executable, KILLED, *arguments], capture_output=True, text=True)
    assert done.stdout.split() == ["-9"] * 3, done.stderr
    assert "Going on with what is in" in done.stderr and "Resuming" in done.stderr
    assert not (tmp_path / "broken" / "words.json").exists()
    words = discover(store, tmp_path / "broken", **how)
    for file in ("words.arrow", "words.json"):
        assert (words.folder / file).read_bytes() == (whole.folder / file).read_bytes()


def test_what_was_begun_with_another_auto_encoder_is_begun_again(store, tmp_path, capsys):
    how = {"classes": 4, "neighbours": 4, "neighbours_val": 2, "size": [10, 10, 8]}
    (tmp_path / "w" / ".work").mkdir(parents=True)
    (tmp_path / "w" / ".work" / "begun.json").write_text(json.dumps({"store": "another"}))
    (tmp_path / "w" / ".work" / "thumbnails.u8").write_bytes(b"old")
    words = discover(store, tmp_path / "w", settings=TINY, **how)
    assert "beginning again" in capsys.readouterr().err and words.count == 4
