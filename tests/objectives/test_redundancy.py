from types import SimpleNamespace

import numpy as np
import pytest
import torch
from builders import small_learner, two_steps_of_gradients, two_views

from ranks import on_ranks
from scanlearn.errors import ScanlearnError
from scanlearn.objectives.redundancy import Redundancy, cross_correlation, redundancy_terms

REDUNDANCY = {"redundancy": {"dim": 8}}


def normalised(*shape):
    x = torch.randn(*shape, dtype=torch.float64)
    return (x - x.mean(0)) / x.std(0, unbiased=False)


def test_the_terms_equal_the_plain_loop():
    first, second = normalised(6, 4), normalised(6, 4)
    on_diagonal = off_diagonal = 0.0
    for i in range(4):
        for j in range(4):
            c = sum(float(first[n, i] * second[n, j]) for n in range(6)) / 6
            if i == j:
                on_diagonal += (c - 1) ** 2
            else:
                off_diagonal += c**2
    ours = redundancy_terms(cross_correlation(first, second))
    assert [term.item() for term in ours] == pytest.approx([on_diagonal, off_diagonal], abs=1e-12)


def test_identical_whitened_views_cost_nothing_and_opposite_ones_four_a_feature():
    # spec_dira §11, test 11.
    drawn = np.random.default_rng(0).standard_normal((64, 8))
    q, _ = np.linalg.qr(drawn - drawn.mean(0))
    white = torch.from_numpy(q) * 8.0  # columns of mean 0 and variance 1, uncorrelated
    assert [t.item() for t in redundancy_terms(cross_correlation(white, white))] == pytest.approx([0, 0], abs=1e-20)
    assert redundancy_terms(cross_correlation(white, -white))[0].item() == pytest.approx(4 * 8)


def test_noise_alone_costs_the_strength_times_squared_width_over_the_batch():
    # spec_dira §2.3: 0.0051 d^2 / N; 1,337 for d = 8192 and N = 256, so 20.9 for d = 1024.
    assert pytest.approx(1337, abs=0.5) == 0.0051 * 8192**2 / 256
    first, second = normalised(256, 1024), normalised(256, 1024)
    off_diagonal = redundancy_terms(cross_correlation(first, second))[1].item()
    assert 0.0051 * off_diagonal == pytest.approx(0.0051 * 1024 * 1023 / 256, rel=0.02)


def test_a_step_is_the_published_equation_on_normalised_projections():
    learner = small_learner(REDUNDANCY)
    objective, views = learner.objectives["redundancy"], two_views(6)
    loss, _ = learner(views, {"step": 0}, {"redundancy": 1.0})
    z = [objective.projector(learner.network.pooled(views[name])).detach().double() for name in ("query", "key")]
    first, second = ((x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt() for x in z)
    c = first.T @ second / 6
    wanted = (c.diagonal() - 1).square().sum() + 0.0051 * (c.square().sum() - c.diagonal().square().sum())
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-4)


def test_gradient_reaches_encoder_and_projector_through_both_views():
    learner = small_learner(REDUNDANCY)
    views = {name: view.requires_grad_() for name, view in two_views(8).items()}
    loss, _ = learner(views, {"step": 0}, {"redundancy": 1.0})
    loss.backward()
    assert all(view.grad.abs().sum() > 0 for view in views.values())
    for name, p in learner.named_parameters():
        if "conv1.bias" not in name:  # a bias before batch norm has no effect
            assert p.grad.abs().sum() > 0, name


def test_layers_have_the_published_shapes_and_names():
    # spec_dira §8.3: projector.0 to projector.6 and bn of the full checkpoint.
    with torch.device("meta"):
        objective = Redundancy(SimpleNamespace(encoder=SimpleNamespace(num_features=2048)))
    shapes = {name: tuple(value.shape) for name, value in objective.named_parameters()}
    wide = {"projector.0.weight": (8192, 2048), "projector.3.weight": (8192, 8192), "projector.6.weight": (8192, 8192)}
    assert shapes == wide | {f"projector.{i}.{part}": (8192,) for i in (1, 4) for part in ("weight", "bias")}
    assert not objective.bn.affine and objective.strength == 0.0051


def test_evaluation_changes_nothing():
    learner = small_learner(REDUNDANCY).eval()
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    with torch.no_grad():
        learner(two_views(4), {"step": 0}, {"redundancy": 1.0})
    assert all(torch.equal(value, before[name]) for name, value in learner.state_dict().items())


def test_two_ranks_give_the_loss_and_gradients_of_one_process(tmp_path):
    # The correlation is of the global batch on both; gradients averaged over ranks are those of one process.
    alone = two_steps_of_gradients(REDUNDANCY, 1, {"batch_norm": "split", "batch_norm_groups": 2})
    for rank in on_ranks(tmp_path, two_steps_of_gradients, REDUNDANCY, 2, {"batch_norm": "local"}):
        for ours, theirs in zip(alone, rank, strict=True):
            largest = float(ours.abs().max())  # the second step starts from weights that large gradients moved
            torch.testing.assert_close(ours, theirs, atol=1e-4 * max(largest, 1.0), rtol=1e-3)


@pytest.mark.parametrize("settings", [{"dim": 1}, {"strength": -1.0}, {"views": ["query"]}])
def test_settings_that_mean_nothing_are_refused(settings):
    with pytest.raises(ScanlearnError, match=r"needs a dim of 2 or more|compares two views"):
        Redundancy(small_learner(REDUNDANCY).network, **settings)
