import json

import numpy as np
import pytest
from runs import image_store, volume_store

from engine.test_leaks import a_run
from scanlearn.cli import main
from scanlearn.errors import ScanlearnError
from scanlearn.networks.network import build_network
from scanlearn.scans.store import open_store
from scanlearn.tasks.fewshot.episodes import load_episodes
from scanlearn.tasks.fewshot.run import fewshot, fewshot_table
from scanlearn.tasks.fewshot.sources import features_from, short_names
from scanlearn.tasks.probe import features_of
from scanlearn.weights.encoder import save_network

FAST = {"target": "label", "part": "all", "shots": [1, 3], "queries": 6, "episodes": 8, "bootstrap": 20}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """30 patients of bright and of dark scans, and a saved network."""
    folder = tmp_path_factory.mktemp("images")
    image_store(folder, count=90)
    network = build_network({"encoder": {"name": "resnet18", "spatial_dims": 2, "width": 4}})
    save_network(network, folder / "run", input_size=[24, 24])
    return folder


def test_bright_and_dark_are_told_apart_and_all_sources_see_the_same_episodes(images, tmp_path):
    results = fewshot(images / "run", images / "store", out=tmp_path / "few", **FAST)
    run = "run"  # by the name of its folder: results name no path
    assert list(results["results"]) == results["sources"] == [run, "random", "pixels"]
    pixels = results["results"]["pixels"]["prototypes"]["3"]
    assert pixels["accuracy"]["mean"] == pixels["auc"]["mean"] == 1.0
    told = results["differences"]["pixels"]["prototypes"]["3"]["accuracy"]
    ours = results["results"][run]["prototypes"]["3"]["accuracy"]
    assert told["value"] == pytest.approx(ours["mean"] - 1.0) and told["low"] <= told["value"] <= told["high"]
    assert ours["episode_interval"]["low"] <= ours["mean"] <= ours["episode_interval"]["high"]
    written = json.loads((tmp_path / "few" / "results.json").read_text())
    assert (
        written["results"][run]["nearest"]["1"]["auc"]["mean"] == results["results"][run]["nearest"]["1"]["auc"]["mean"]
    )
    assert written["scans"] <= 90 and written["patients"] <= 30
    assert "1.000 (1.000–1.000)" in fewshot_table(results)

    again = fewshot(images / "run", images / "store", out=tmp_path / "again", **FAST)
    assert again == results
    episodes = tmp_path / "few" / "episodes.json"
    options = {**FAST, "same_as": episodes, "against": ["pixels"], "classifiers": ["prototypes"]}
    reused = fewshot(images / "run", images / "store", out=tmp_path / "reused", **options)
    assert reused["results"]["pixels"]["prototypes"] == results["results"]["pixels"]["prototypes"]
    assert (tmp_path / "reused" / "episodes.json").read_bytes() == episodes.read_bytes()
    with pytest.raises(ScanlearnError, match="1 to 3 shots"):
        fewshot(images / "run", images / "store", out=tmp_path / "x", **{**options, "shots": [4]})
    with pytest.raises(ScanlearnError, match="has results already"):
        fewshot(images / "run", images / "store", out=tmp_path / "few", **FAST)


def test_features_of_a_run_of_fresh_weights_and_of_pixels(images):
    store, rows, run = open_store(images / "store"), np.array([5, 2, 70]), str(images / "run")
    assert np.array_equal(features_from(run, run, store, rows), features_of(run, store, rows))
    fresh, same, other = (features_from("random", run, store, rows, seed) for seed in (0, 0, 1))
    assert np.array_equal(fresh, same) and not np.allclose(fresh, other)
    pixels = features_from("pixels", run, store, rows)
    assert pixels.shape == (3, 256)
    low, high = store.window(rows)
    means = [
        ((image.astype(float) - a) / (b - a)).mean() for image, a, b in zip(store.read(rows), low, high, strict=True)
    ]
    np.testing.assert_allclose(pixels.mean(1), means, atol=0.02)


def test_pixels_of_a_volume_are_eight_a_side(tmp_path):
    store = volume_store(tmp_path, count=3)
    assert features_from("pixels", "", store, np.arange(3)).shape == (3, 512)


@pytest.mark.parametrize(
    "changed, sentence",
    [
        ({"classifiers": ["prototype"]}, "did you mean 'prototypes'"),
        ({"against": ["pixels", "pixels"]}, "named twice"),
        ({"against": ["nowhere/run"]}, "There is no run nowhere/run"),
        ({"target": "scan"}, "no label column 'scan'"),
        ({"classes": ["0", "7"]}, "no class '7'"),
        ({"part": "tests"}, "did you mean 'test'"),
        ({"shots": [0]}, "at least 2 ways"),
    ],
)
def test_what_cannot_be_is_refused_before_the_work(images, tmp_path, changed, sentence):
    with pytest.raises(ScanlearnError, match=sentence):
        fewshot(images / "run", images / "store", out=tmp_path / "few", **{**FAST, **changed})
    assert not (tmp_path / "few").exists()


def test_the_first_source_has_to_be_a_network(images, tmp_path):
    with pytest.raises(ScanlearnError, match="first source has to be a run"):
        fewshot("pixels", images / "store", out=tmp_path / "few", **FAST)


def test_the_verb_prints_a_table(images, tmp_path, capsys):
    words = ["--target", "label", "--ways", "2", "--shots", "1", "2", "--episodes", "5", "--part", "all"]
    more = ["--classifiers", "prototypes", "cosine", "--against", "pixels", "--bootstrap", "10"]
    out = ["--out", str(tmp_path / "few")]
    assert main(["fewshot", str(images / "run"), str(images / "store"), *words, *more, *out]) == 0
    printed = capsys.readouterr()
    assert (
        "1 shot " in printed.out
        and "2 shots" in printed.out
        and "pixels" in printed.out
        and "Next:  scanlearn finetune" in printed.err
    )
    assert (tmp_path / "few" / "episodes.json").is_file()


def test_two_runs_of_one_name_are_told_apart():
    assert short_names(["a/moco", "b/moco", "pixels"]) == ["moco", "moco (2)", "pixels"]


def test_what_a_run_was_trained_on_is_said_and_can_be_left_out_of_the_episodes(images, tmp_path):
    store = open_store(images / "store")
    run = a_run(tmp_path / "run", store, store.splits["train"])
    (tmp_path / "run/encoder").symlink_to(images / "run")
    options = {**FAST, "against": ["pixels"], "classifiers": ["prototypes"], "shots": [1], "queries": 2}
    seen = fewshot(run, store, out=tmp_path / "seen", **options)["checked"]["done"]
    assert any("files of the store were in the pre-training of run" in text for text in seen)
    assert "No patient, and no identical file, is in the support and the query of an episode." in seen
    results = fewshot(run, store, out=tmp_path / "unseen", exclude=[run], **options)
    assert not any("were in the pre-training" in text for text in results["checked"]["done"])
    assert any("scans are left out that run has too" in text for text in results["checked"]["done"])
    drawn = load_episodes(tmp_path / "unseen/episodes.json", store, store.catalog.labels("label"))
    assert not np.isin(drawn.rows(), store.splits["train"]).any()
    assert results["settings"]["left_out"] == len(store.splits["train"])
    with pytest.raises(ScanlearnError, match="settles which scans are drawn: leave --exclude out"):
        fewshot(run, store, out=tmp_path / "x", exclude=[run], same_as=tmp_path / "unseen/episodes.json", **options)
    with pytest.raises(ScanlearnError, match="were in the pre-training of all"):
        everything = a_run(tmp_path / "all", store, np.arange(len(store)))
        (tmp_path / "all/encoder").symlink_to(images / "run")
        fewshot(everything, store, out=tmp_path / "x", **{**options, "part": "test"})
