import math

import numpy as np
import pytest
import torch
from builders import small_learner, step_of, two_steps_of_gradients, two_views

from ranks import on_ranks
from scanlearn.errors import ScanlearnError
from scanlearn.networks.encoder import build_encoder
from scanlearn.networks.network import Network
from scanlearn.objectives.prototypes import Prototypes, prototype_logits, prototype_loss

THREE = {"prototypes": {"view": "query", "ways": 3, "shots": 2, "queries": 2}}
SIZE = 12  # scans of an episode of THREE


def plain_loss(features, ways, shots, queries):
    """Snell's loss and accuracy by loops in float64, from the features (E * size, d) of whole episodes."""
    features = np.asarray(features, np.float64)
    size = ways * (shots + queries)
    losses, hits = [], []
    for start in range(0, len(features), size):
        episode = features[start : start + size]
        means = [sum(episode[w * shots + s] for s in range(shots)) / shots for w in range(ways)]
        for w in range(ways):
            for q in range(queries):
                z = episode[ways * shots + w * queries + q]
                distance = [sum((a - b) ** 2 for a, b in zip(z, mean, strict=True)) for mean in means]
                nearest = min(distance)
                total = sum(math.exp(nearest - d) for d in distance)
                losses.append(distance[w] - nearest + math.log(total))
                hits.append(distance.index(nearest) == w)
    return sum(losses) / len(losses), sum(hits) / len(hits)


@pytest.mark.parametrize("episodes", [1, 2])
@pytest.mark.parametrize("options", [{}, {"flatten": False}, {"normalise": True, "temperature": 0.1}])
def test_loss_and_accuracy_equal_the_plain_loop(episodes, options):
    learner = small_learner({"prototypes": {**THREE["prototypes"], **options}})
    objective, step = learner.objectives["prototypes"], step_of(learner, two_views(SIZE * episodes))
    maps = step.features("query")[-1].detach().double()
    features = maps.flatten(2).mean(2) if options.get("flatten") is False else maps.flatten(1)
    if options.get("normalise"):
        features = features / features.norm(dim=1, keepdim=True)
    loss, accuracy = plain_loss(features / math.sqrt(options.get("temperature", 1.0)), 3, 2, 2)
    assert objective(step).item() == pytest.approx(loss, rel=1e-5)
    assert step.logs["episode_accuracy"].item() == pytest.approx(accuracy)


def test_the_distance_is_squared_and_the_example_worked_by_hand_holds():
    support = torch.tensor([[[[0.0, 0.0], [2.0, 0.0]], [[0.0, 3.0], [0.0, 5.0]]]])  # means (1, 0) and (0, 4)
    logits = prototype_logits(support, torch.tensor([[[1.0, 1.0], [0.0, 2.0]]]))
    assert logits.tolist() == [[[-1.0, -10.0], [-5.0, -4.0]]]
    golden = (math.log1p(math.exp(-9)) + math.log1p(math.exp(-1))) / 2  # 0.156693
    assert prototype_loss(logits, torch.tensor([[0, 1]])).item() == pytest.approx(golden, abs=1e-6)


@pytest.mark.parametrize("ways", [5, 20, 60])
def test_equal_features_cost_the_logarithm_of_the_number_of_ways(ways):
    same = torch.ones(1, ways, 1, 64)
    loss = prototype_loss(
        prototype_logits(same, torch.ones(1, ways * 5, 64)), torch.zeros(1, ways * 5, dtype=torch.long)
    )
    assert loss.item() == pytest.approx(math.log(ways), abs=1e-6)


def test_support_and_query_share_one_forward_pass_and_its_batch_statistics():
    network = Network(build_encoder({"name": "conv4", "width": 4})).train()
    objective = Prototypes(network, ways=3, shots=2, queries=2, view="query")
    calls = []
    network.encoder.register_forward_hook(lambda *given: calls.append(len(given[1][0])))
    learner = small_learner(THREE)
    learner.network = network
    views = {name: view.repeat(1, 1, 2, 2) for name, view in two_views(SIZE).items()}
    together = objective(step_of(learner, views))
    assert calls == [SIZE]
    apart = torch.cat([network(part)[-1].flatten(1) for part in views["query"].split([6, 6])])
    alone = prototype_loss(
        prototype_logits(apart[None, :6].unflatten(1, (3, 2)), apart[None, 6:]), torch.tensor([[0, 0, 1, 1, 2, 2]])
    )
    assert abs(together.item() - alone.item()) > 1e-4  # other statistics, other features


def test_gradient_is_that_of_the_plain_equation_and_reaches_the_encoder_and_nothing_else():
    rng = torch.Generator().manual_seed(0)
    features = torch.randn(1, 12, 5, dtype=torch.float64, generator=rng, requires_grad=True)

    def loss(x):
        logits = prototype_logits(x[:, :6].unflatten(1, (3, 2)), x[:, 6:])
        return prototype_loss(logits, torch.tensor([[0, 0, 1, 1, 2, 2]]))

    assert torch.autograd.gradcheck(loss, features)
    learner = small_learner({**THREE, "restore": {"view": "query", "target": "key"}})
    total, parts = learner(two_views(SIZE), {"step": 0}, {"prototypes": 1.0, "restore": 0.0})
    total.backward()
    torch.testing.assert_close(total.detach(), parts["prototypes"])
    for name, parameter in learner.named_parameters():
        if name.startswith("network.decoder"):
            assert parameter.grad is None, name
        elif "conv1.bias" not in name:  # a bias before batch norm has no effect
            assert parameter.grad.abs().sum() > 0, name
    assert not list(learner.objectives["prototypes"].parameters())  # no head: nothing to learn but the features


def gradients(world_size):
    """Two episodes of 2 ways, 1 shot and 1 query; each has a batch norm of its own."""
    objectives = {"prototypes": {"view": "query", "ways": 2, "shots": 1, "queries": 1}}
    return two_steps_of_gradients(objectives, world_size, {"batch_norm": "split", "batch_norm_groups": 2})


def test_two_ranks_with_an_episode_each_give_the_loss_and_gradients_of_one_process_with_both(tmp_path):
    one = gradients(1)
    for ranks in on_ranks(tmp_path, gradients, 2):
        for ours, expected in zip(ranks, one, strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-3)  # of gradients up to 300


def test_evaluation_changes_nothing():
    learner = small_learner(THREE).eval()
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    learner(two_views(SIZE), {"step": 0}, {"prototypes": 1.0})
    assert all(torch.equal(value, before[name]) for name, value in learner.state_dict().items())


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"ways": None}, "give the recipe `episodes`"),
        ({"ways": 1}, "2 ways or more"),
        ({"temperature": 0.0}, "a temperature above 0"),
    ],
)
def test_settings_that_make_no_episode_are_refused(settings, sentence):
    with pytest.raises(ScanlearnError, match=sentence):
        small_learner({"prototypes": {**THREE["prototypes"], **settings}})


def test_a_batch_that_is_no_whole_number_of_episodes_is_refused():
    learner = small_learner(THREE)
    with pytest.raises(ScanlearnError, match="multiple of the ranks"):
        learner(two_views(SIZE - 1), {"step": 0}, {"prototypes": 1.0})
