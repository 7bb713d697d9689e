"""Linear CKA equals its definition, does not mind rotation and scale, and is told of every fine-tuning."""

import json
import math

import numpy as np
import pytest
import torch
from runs import volume_store

from scanlearn.networks.network import build_network
from scanlearn.study.report import report
from scanlearn.study.reuse import reuse_panel
from scanlearn.tasks.feature_reuse import Alignment, feature_reuse, linear_cka, stage_alignments
from scanlearn.tasks.finetune import finetune
from scanlearn.weights.encoder import save_network


def plain_cka(x, y):
    """By centred Gram matrices, entry by entry (Kornblith et al., equations 1 to 4)."""
    x, y = (np.asarray(values) - np.asarray(values).mean(0) for values in (x, y))
    hsic = {"xy": 0.0, "xx": 0.0, "yy": 0.0}
    for i in range(len(x)):
        for j in range(len(x)):
            of_x = sum(a * b for a, b in zip(x[i], x[j], strict=True))
            of_y = sum(a * b for a, b in zip(y[i], y[j], strict=True))
            hsic["xy"] += of_x * of_y
            hsic["xx"] += of_x * of_x
            hsic["yy"] += of_y * of_y
    return hsic["xy"] / math.sqrt(hsic["xx"] * hsic["yy"])


def features(n=12, width=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((n, width), generator=generator, dtype=torch.float64) + 3


def test_it_is_the_alignment_of_centred_gram_matrices():
    x, y = features(), features(width=6, seed=1)
    assert linear_cka(x, y) == pytest.approx(plain_cka(x, y), rel=1e-10)
    assert linear_cka(x, x + 0.3 * features(seed=2)) == pytest.approx(
        plain_cka(x, x + 0.3 * features(seed=2)), rel=1e-10
    )


def test_rotation_scale_and_shift_change_nothing_and_a_linear_map_does():
    x, y = features(), features(width=5, seed=1)
    turned, _ = torch.linalg.qr(features(4, 4, 3))
    value = linear_cka(x, y)
    assert linear_cka(x @ turned, y) == pytest.approx(value) and linear_cka(y, x) == pytest.approx(value)
    assert linear_cka(7 * x + 2, 0.01 * y) == pytest.approx(value)
    assert linear_cka(x, 4 * (x @ turned) - 1) == pytest.approx(1)
    assert linear_cka(x * torch.tensor([1, 1, 1, 9.0]), x) < 0.9


def test_features_that_never_vary_have_no_alignment():
    assert math.isnan(linear_cka(features(), torch.full((12, 3), 0.1)))
    assert math.isnan(linear_cka(torch.zeros(12, 4), features()))


def test_parts_add_up_to_the_whole():
    x, y = features(40), features(40, 3, 1)
    alignment = Alignment()
    for part in (slice(0, 7), slice(7, 8), slice(8, 40)):
        alignment.add(x[part], y[part])
    assert alignment.value() == pytest.approx(linear_cka(x, y), rel=1e-12)


def networks():
    made = [build_network({"encoder": {"name": "unet", "width": 2}, "decoder": None}).eval() for _ in range(2)]
    return made[0], made[1]


def test_every_place_of_a_map_is_an_example_and_each_stage_stands_alone():
    first, second = networks()
    images = torch.rand(3, 1, 16, 16, 8)
    found = stage_alignments(first, second, iter(images.split(2)))
    with torch.no_grad():
        for value, a, b in zip(found, first.features(images), second.features(images), strict=True):
            x, y = (m.movedim(1, -1).reshape(-1, m.shape[1]).double() for m in (a, b))
            assert value == pytest.approx(linear_cka(x, y), rel=1e-5)
    assert stage_alignments(first, first, iter(images.split(2))) == pytest.approx([1.0] * 4)


def test_fine_tuned_weights_are_compared_with_those_they_began_from(tmp_path):
    store, (first, second) = volume_store(tmp_path), networks()
    save_network(first, tmp_path / "init")
    second.train()
    rows = np.arange(len(store))
    found = feature_reuse(tmp_path / "init", second, store, rows, [16, 16, 16])
    assert found["scans"] == 8 and found["strides"] == [1, 2, 4, 8] and second.training
    assert all(0 < value < 1 for value in found["stages"])
    same = feature_reuse(tmp_path / "init", first, store, rows, [16, 16, 16])
    assert same["stages"] == pytest.approx([1.0] * 4)


def test_the_page_shows_a_bar_for_each_stage_and_a_gap_where_nothing_is_known():
    panel = reuse_panel({"scans": 5, "stages": [0.99, None], "strides": [1, 2]}, "moco")
    assert "stage 0, 1/1 0.990, stage 1, 1/2 –" in panel.picture.alt and "of moco" in panel.note
    assert "5 test scans" in panel.note


def test_fine_tuning_from_weights_tells_what_it_kept_and_the_twin_has_nothing_to_tell(tmp_path):
    store = volume_store(tmp_path, label=True)
    save_network(networks()[0], tmp_path / "init", input_size=[16, 16, 16])
    settings = {"steps": 2, "batch_size": 2, "precision": "32-true", "log_every": 1, "size": [16, 16, 16]}
    results = finetune(store, "classify", out=tmp_path / "a", target="label", init=tmp_path / "init", settings=settings)
    assert len(results["feature_reuse"]["stages"]) == 4 and results["feature_reuse"]["scans"] == len(
        store.splits["test"]
    )
    assert json.loads((tmp_path / "a" / "results.json").read_text())["feature_reuse"] == results["feature_reuse"]
    assert "Features kept in fine-tuning" in report(tmp_path / "a").read_text()
    settings["network.encoder"] = {"name": "unet", "width": 2}
    assert "feature_reuse" not in finetune(store, "classify", out=tmp_path / "b", target="label", settings=settings)
