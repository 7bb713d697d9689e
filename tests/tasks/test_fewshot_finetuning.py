import copy

import numpy as np
import pytest
import torch
from runs import image_store, volume_store
from torch import nn
from torch.nn import functional

from scanlearn.engine.embedding import scan_batches
from scanlearn.errors import ScanlearnError
from scanlearn.networks.encoder import build_encoder
from scanlearn.networks.network import Network, build_network
from scanlearn.study.fewshot_page import fewshot_page
from scanlearn.tasks.fewshot import finetuning
from scanlearn.tasks.fewshot.finetuning import HEAD_RATE, RATE, EpisodeFinetuner, last_stage
from scanlearn.tasks.fewshot.run import fewshot
from scanlearn.weights.encoder import save_network

SUPPORT = np.array([[[0, 1], [3, 4]], [[6, 7], [9, 10]]])  # two episodes of two ways and two shots: dark, bright
QUERY = np.array([[12, 13, 15], [18, 21, -1]])


def network_of(dims=2, name="conv4"):
    torch.manual_seed(0)
    return build_network({"encoder": {"name": name, "spatial_dims": dims, "width": 4}})


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return image_store(tmp_path_factory.mktemp("images"), count=60)


def plain(network, store, support, query, steps, part):
    """One episode step by step, on all of its images at once."""
    network = copy.deepcopy(network).eval()
    read = lambda rows: next(scan_batches(store, np.asarray(rows), (24, 24)))[1]  # noqa: E731
    images, truth = read(support.ravel()), torch.arange(len(support)).repeat_interleave(support.shape[1])
    features = network.pooled(images).detach()
    centre = features.mean(0)
    scale = (features - centre).norm(dim=1).mean()
    head = nn.Linear(features.shape[1], len(support))
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    encoder = network.encoder
    moving = encoder.parameters() if part == "whole" else encoder.blocks[3].parameters()
    optimizer = torch.optim.Adam([{"params": moving, "lr": RATE}, {"params": head.parameters(), "lr": HEAD_RATE}])
    for _ in range(steps):
        optimizer.zero_grad()
        functional.cross_entropy(head((network.pooled(images) - centre) / scale), truth).backward()
        optimizer.step()
    with torch.no_grad():
        return head((network.pooled(read(query)) - centre) / scale).numpy()


@pytest.mark.parametrize("part", ["whole", "last"])
def test_every_episode_starts_from_the_same_weights_and_equals_the_plain_loop(store, part):
    network = network_of()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    tuner = EpisodeFinetuner(network, store, (24, 24), part=part, steps=6)
    found = tuner.logits(SUPPORT, QUERY)
    for e in range(2):
        there = QUERY[e] >= 0
        expected = plain(network, store, SUPPORT[e], QUERY[e][there], 6, part)
        np.testing.assert_allclose(found[e][there], expected, atol=2e-4)
    assert np.array_equal(tuner.logits(SUPPORT[1:], QUERY[1:])[0], found[1])  # whatever came before
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("part", ["whole", "last"])
def test_what_should_move_moves_and_batch_norm_keeps_its_statistics(store, part):
    tuner = EpisodeFinetuner(network_of(), store, (24, 24), part=part, steps=3)
    tuner.logits(SUPPORT[:1], QUERY[:1])
    moved = {name for name, value in tuner.network.state_dict().items() if not torch.equal(value, tuner.start[name])}
    assert not any("running" in name or "tracked" in name for name in moved)
    stages = {name.split(".")[2] for name in moved}
    assert stages == ({"0", "1", "2", "3"} if part == "whole" else {"3"})


@pytest.mark.parametrize(("name", "prefix"), [("resnet18", "layer4"), ("conv4", "blocks.3"), ("unet", "down_tr512")])
def test_the_last_stage_is_what_the_coarsest_map_alone_depends_on(name, prefix):
    encoder = build_encoder({"name": name, "width": 4, "spatial_dims": 2}).eval()
    wanted = {id(p) for n, p in encoder.named_parameters() if n.startswith(prefix)}
    assert {id(p) for p in last_stage(encoder, torch.zeros(1, 1, 64, 64))} == wanted


def test_it_learns_the_support(store):
    tuner = EpisodeFinetuner(network_of(), store, (24, 24), steps=60)
    logits = tuner.logits(SUPPORT[:1], SUPPORT[:1].reshape(1, -1))
    assert (logits[0].argmax(1) == [0, 0, 1, 1]).all()


def test_a_volume_of_several_patches_has_the_mean_of_their_answers(tmp_path):
    store = volume_store(tmp_path, count=6)
    tuner = EpisodeFinetuner(network_of(3), store, (16, 16, 16), steps=2)
    logits = tuner.logits(np.array([[[0], [1]]]), np.array([[2, 3, -1]]))
    assert logits.shape == (1, 3, 2) and np.isfinite(logits).all() and (logits[0, 2] == 0).all()
    assert np.array_equal(tuner.logits(np.array([[[0], [1]]]), np.array([[3, 2]]))[0], logits[0, [1, 0]])


def test_it_is_asked_in_the_first_of_the_same_episodes_and_told_so(store, tmp_path):
    save_network(Network(network_of().encoder), tmp_path / "run", input_size=[24, 24])
    options = {"target": "label", "part": "all", "shots": [2], "queries": 4, "bootstrap": 10, "finetune_steps": 3}
    names = ["prototypes", "finetune", "finetune_last"]
    results = fewshot(
        tmp_path / "run", store, out=tmp_path / "few", episodes=6, classifiers=names, finetune_episodes=4, **options
    )
    run = results["results"]["run"]
    assert {name: run[name]["2"]["accuracy"]["episodes"] for name in run} == dict(zip(names, [6, 4, 4], strict=True))
    assert list(results["results"]["pixels"]) == list(results["differences"]["pixels"]) == ["prototypes"]
    assert set(results["differences"]["random"]) == set(names)
    assert results["finetuning"] == {"episodes": 4, "steps": 3}
    page = fewshot_page(tmp_path / "few").read_text()
    assert "Only in the first 4 episodes." in page and "run, finetune_last" in page and "pixels, finetune" not in page
    few = fewshot(
        tmp_path / "run",
        store,
        out=tmp_path / "again",
        episodes=4,
        classifiers=["finetune"],
        against=["pixels"],
        same_as=tmp_path / "few" / "episodes.json",
        finetune_episodes=4,
        **options,
    )
    assert few["results"]["run"]["finetune"] == run["finetune"] and few["results"]["pixels"] == {}
    fewshot_page(tmp_path / "again")


def test_where_no_bar_is_seen_the_first_episode_tells_how_long_the_others_take(store, capsys, monkeypatch):
    tuner = EpisodeFinetuner(network_of(), store, (24, 24), part="last", steps=1)
    support, query = np.array([[[0], [1]]] * 3), np.array([[2, 3]] * 3)
    tuner.logits(support, query)
    assert capsys.readouterr().err == ""  # done in a moment
    monkeypatch.setattr(finetuning, "TOLD", -1.0)
    tuner.logits(support, query)
    assert capsys.readouterr().err.strip() == "finetune_last, 1 a class: 2 more episodes take about 1 min."


def test_no_episode_and_no_step_are_refused(store, tmp_path):
    save_network(Network(network_of().encoder), tmp_path / "run", input_size=[24, 24])
    for wrong in ({"finetune_steps": 0}, {"finetune_episodes": 0}, {"classifiers": []}):
        with pytest.raises(ScanlearnError, match="at least 1 episode and 1 step"):
            fewshot(tmp_path / "run", store, target="label", out=tmp_path / "few", **wrong)
