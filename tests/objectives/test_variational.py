import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ranks import on_ranks
from scanlearn.engine.learner import build_learner
from scanlearn.engine.recipe import parse_recipe
from scanlearn.errors import ScanlearnError
from scanlearn.networks.encoder import build_encoder
from scanlearn.networks.network import Network
from scanlearn.objectives.ranks import own_part
from scanlearn.objectives.step import Step
from scanlearn.objectives.variational import Variational, divergence

ENCODER = {"name": "segres", "width": 8, "blocks": [1, 1, 1], "dropout": 0.0, "groups": 4}
NORMAL = {"mean": [0.4], "std": [0.2]}


def learner_of(dims=2, **settings):
    data = {
        "name": "small",
        "spatial_dims": dims,
        "network": {"encoder": ENCODER, "decoder": {"name": "segres", "groups": 4}, "normalise": NORMAL},
        "views": {"image": {"ops": []}},
        "objectives": {"variational": {"size": [16] * dims, "latent": 6, "narrow": 4, "groups": 4, **settings}},
    }
    return build_learner(parse_recipe(data), seed=0, world_size=1)


def images(samples=4, dims=2):
    return torch.rand((samples, 1, *[16] * dims), generator=torch.Generator().manual_seed(1))


def run(learner, image, step=0):
    batch = {"step": step, "position": torch.arange(len(image))}
    return learner({"image": image}, batch, {"variational": 1.0})


def test_parameters_of_the_published_branch():
    with torch.device("meta"):
        network = Network(build_encoder({"name": "segres", "in_channels": 4, "spatial_dims": 3}))
        objective = Variational(network, size=[160, 192, 128])
    embedder = [objective.reduce, objective.mean, objective.log_variance]
    decoder = [objective.expand, objective.widen, objective.ups, objective.output]
    counts = [sum(p.numel() for part in parts for p in part.parameters()) for parts in (embedder, decoder)]
    assert counts == [4_043_536, 3_191_716]
    assert sum(counts) + 18_830_374 == 26_065_626


def test_divergence_equals_the_plain_loop():
    mean, log_variance = torch.randn(2, 3, 5, dtype=torch.float64)
    terms = [
        0.5 * (m**2 + np.exp(v) - v - 1) for m, v in zip(mean.flatten(), log_variance.flatten().numpy(), strict=True)
    ]
    assert divergence(mean, log_variance).item() == pytest.approx(float(np.mean(terms)), abs=1e-12)
    assert divergence(torch.zeros(1, 4), torch.zeros(1, 4)).item() == 0


@pytest.mark.parametrize("dims", [2, 3])
def test_in_evaluation_the_code_is_its_mean_and_the_target_what_the_encoder_sees(dims):
    learner, image = learner_of(dims, kl=0.5).eval(), images(2, dims)
    objective = learner.objectives["variational"]
    with torch.no_grad():
        loss, parts = run(learner, image)
        flat = objective.reduce(learner.network.features(image)[-1]).flatten(1)
        mean, log_variance = objective.mean(flat), objective.log_variance(flat)
        error = F.mse_loss(objective.drawn(mean), (image - 0.4) / 0.2)
    assert parts["variational_error"].item() == pytest.approx(error.item(), rel=1e-5)
    assert loss.item() == pytest.approx((error + 0.5 * divergence(mean, log_variance)).item(), rel=1e-5)
    assert torch.equal(run(learner, image, step=7)[0], loss)


def test_in_training_the_noise_belongs_to_sample_and_step():
    learner, image = learner_of(), images()
    assert torch.equal(run(learner, image)[0], run(learner, image)[0])
    assert not torch.equal(run(learner, image)[0], run(learner, image, step=1)[0])


def test_encoder_and_branch_learn_and_no_segmentation_decoder():
    learner = learner_of()
    run(learner, images())[0].backward()
    for name, parameter in learner.named_parameters():
        if name.startswith("network.decoder"):
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("term", ["variational_error", "variational_kl"])
def test_each_term_alone_reaches_the_encoder(term, monkeypatch):
    learner, logged = learner_of(), {}
    monkeypatch.setattr(Step, "log", lambda self, name, value: logged.update({name: value}))
    run(learner, images())
    logged[term].backward()
    assert all(p.grad.abs().sum() > 0 for p in learner.network.encoder.parameters())


def gradients(image):
    learner = learner_of()
    rows = own_part(torch.arange(len(image)))
    loss, _ = learner({"image": image[rows]}, {"step": 0, "position": rows}, {"variational": 1.0})
    loss.backward()
    return [loss.detach(), *[p.grad for p in learner.parameters() if p.grad is not None]]


def test_two_ranks_give_the_loss_and_gradients_of_one_process(tmp_path):
    alone, ranks = gradients(images()), on_ranks(tmp_path, gradients, images())
    for whole, *parts in zip(alone, *ranks, strict=True):
        torch.testing.assert_close(torch.stack(parts).mean(dim=0), whole, atol=1e-5, rtol=1e-4)


def test_sizes_that_do_not_fit_are_refused_with_what_to_set():
    with pytest.raises(ScanlearnError, match="divisible by 8, not \\[16, 12\\]"):
        learner_of(size=[16, 12])
    with pytest.raises(ScanlearnError, match=r"has \[8, 8\] voxels"):
        run(learner_of(), torch.rand(1, 1, 8, 8))
