import numpy as np
import pytest
import torch

from ranks import on_ranks
from scanlearn.engine.learner import build_learner
from scanlearn.engine.recipe import parse_recipe
from scanlearn.errors import ScanlearnError
from scanlearn.objectives.boundary import balance
from scanlearn.objectives.ranks import own_part
from scanlearn.objectives.regions import inner_edges, region_masks
from scanlearn.objectives.step import Step

REGIONS = {"both": [1, 2], "second": [2]}
NETWORK = {
    "encoder": {"name": "segres", "width": 8, "blocks": [1, 1], "dropout": 0.0, "groups": 4},
    "decoder": {"name": "segres_boundary", "out_channels": 4, "groups": 4},
}


def learner_of(dims=2, objectives=("boundary",), network=NETWORK, **settings):
    data = {
        "name": "small",
        "spatial_dims": dims,
        "network": network,
        "views": {"image": {"ops": []}},
        "objectives": {name: {"classes": 3, "regions": REGIONS, **settings} for name in objectives},
    }
    return build_learner(parse_recipe(data), seed=0, world_size=1)


def scans(samples=4, dims=2):
    generator = torch.Generator().manual_seed(1)
    shape = (samples, 1, *[8] * dims)
    return {
        "image": torch.rand(shape, generator=generator),
        "mask": torch.randint(0, 3, shape, generator=generator),
    }


def run(learner, views, **batch):
    return learner(views, {"step": 0, **batch}, dict.fromkeys(learner.objectives, 1.0))[0]


def plain(pair, edge):
    """Dice of both kinds + cross-entropy in which each voxel weighs the share of the other kind, in loops."""
    p = np.exp(pair) / np.exp(pair).sum(axis=1, keepdims=True)
    dice = []
    for c, truth in enumerate((~edge, edge)):
        above, below = (p[:, c] * truth).sum(), (p[:, c] ** 2).sum() + truth.sum()
        dice.append(1 - (2 * above + 1e-7) / (below + 1e-7))
    cross = []
    for n in range(len(edge)):
        rare = edge[n].mean()
        for at in np.ndindex(*edge.shape[1:]):
            here = int(edge[n][at])
            cross.append((1 - rare if here else rare) * -np.log(p[(n, here, *at)]))
    return np.mean(dice) + np.mean(cross)


@pytest.mark.parametrize("dims", [2, 3])
def test_loss_equals_the_plain_loop(dims):
    learner, views = learner_of(dims), scans(2, dims)
    found = run(learner, views).item()
    with torch.no_grad():
        drawn = Step(learner.network, views, {"step": 0}).aside("image", "boundary").double().numpy()
    edges = inner_edges(region_masks(views["mask"], REGIONS, 3)).numpy()
    wanted = sum(plain(drawn[:, 2 * r : 2 * r + 2], edges[:, r]) for r in range(2))
    assert found == pytest.approx(wanted, abs=1e-4)


def test_the_rare_kind_weighs_most_in_each_sample():
    edges = torch.zeros(2, 4, 4, dtype=torch.bool)
    edges[0, 0] = True
    found = balance(edges)
    assert (found[0, 0] == 0.75).all() and (found[0, 1:] == 0.25).all() and (found[1] == 0).all()


@pytest.mark.parametrize("term", [{"dice": 0.0}, {"cross_entropy": 0.0}])
def test_each_term_trains_encoder_and_stream_and_not_the_segmentation(term):
    learner = learner_of(**term)
    run(learner, scans()).backward()
    own = ("network.decoder.ups", "network.decoder.head")
    for name, parameter in learner.named_parameters():
        if name.startswith(own):
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_segmentation_and_boundary_share_one_pass_of_the_decoder(monkeypatch):
    learner = learner_of(objectives=("segment", "boundary"))
    passes = []
    learner.network.decoder.register_forward_hook(lambda *_: passes.append(1))
    run(learner, scans()).backward()
    assert len(passes) == 1
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in learner.parameters())


def test_scans_without_mask_send_no_gradient():
    learner, views = learner_of(), scans()
    views["image"].requires_grad_()
    run(learner, views, labelled=torch.tensor([True, False, True, False])).backward()
    assert (views["image"].grad[[0, 2]] != 0).any() and (views["image"].grad[[1, 3]] == 0).all()


def gradients(views):
    learner = learner_of()
    loss = run(learner, {name: own_part(view) for name, view in views.items()})
    loss.backward()
    return [loss.detach(), *[p.grad for p in learner.parameters() if p.grad is not None]]


def test_each_rank_trains_as_a_process_with_its_own_samples(tmp_path):
    """Dice is pooled over the samples of a rank (published: one sample each), cross-entropy is a mean over them."""
    halves = [{name: view[rows] for name, view in scans().items()} for rows in (slice(0, 2), slice(2, 4))]
    for rank, half in zip(on_ranks(tmp_path, gradients, scans()), halves, strict=True):
        for ours, alone in zip(rank, gradients(half), strict=True):
            torch.testing.assert_close(ours, alone, atol=1e-5, rtol=1e-4)


def test_a_decoder_without_boundary_stream_is_refused():
    with pytest.raises(ScanlearnError, match="segres_boundary"):
        learner_of(network={**NETWORK, "decoder": {"name": "segres", "out_channels": 4, "groups": 4}})
