import numpy as np
import pytest
import torch
from builders import RESTORE, small_learner, step_of, two_steps_of_gradients, two_views

from ranks import on_ranks
from scanlearn.errors import ScanlearnError
from scanlearn.networks.encoder import build_encoder
from scanlearn.networks.network import Network
from scanlearn.objectives.restore import Restore, changed_voxels, restoration_error

MASKED = {"restore": {**RESTORE["restore"], "region": "masked"}}


@pytest.mark.parametrize("loss", ["mse", "mae"])
def test_error_equals_the_plain_loop(loss):
    a, b = torch.rand(2, 1, 3, 4, dtype=torch.float64), torch.rand(2, 1, 3, 4, dtype=torch.float64)
    total = sum(
        (x - y) ** 2 if loss == "mse" else abs(x - y) for x, y in zip(a.numpy().flat, b.numpy().flat, strict=True)
    )
    assert restoration_error(a, b, loss).item() == pytest.approx(total / a.numel(), abs=1e-12)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_the_target_is_compared_with_the_sigmoid_of_the_decoder(spatial_dims):
    learner = small_learner(RESTORE, spatial_dims=spatial_dims).eval()
    views = two_views(2, spatial_dims=spatial_dims)
    with torch.no_grad():
        loss, parts = learner(views, {"step": 0}, {"restore": 1.0})
        output = torch.sigmoid(learner.network.restored(views["query"])).numpy()
    assert loss.item() == pytest.approx(float(np.mean((output - views["key"].numpy()) ** 2)), abs=1e-6)
    assert parts["restored_std"].item() == pytest.approx(float(output.std(ddof=1)), abs=1e-6)


def test_targets_outside_the_unit_range_are_compared_without_sigmoid():
    learner = small_learner({"restore": {**RESTORE["restore"], "activation": "none"}}).eval()
    views = {name: 6 * view - 3 for name, view in two_views(2).items()}
    with torch.no_grad():
        loss, _ = learner(views, {"step": 0}, {"restore": 1.0})
        output = learner.network.restored(views["query"]).numpy()
    assert loss.item() == pytest.approx(float(np.mean((output - views["key"].numpy()) ** 2)), abs=1e-5)


def test_the_error_of_more_views_is_the_mean_of_theirs():
    def error(**settings):
        return small_learner({"restore": settings})(two_views(4), {"step": 0}, {"restore": 1.0})[0]

    each = error(view="query", target="key"), error(view="key", target="query")
    torch.testing.assert_close(error(view="query", target="key", also={"key": "query"}), sum(each) / 2)
    assert abs(each[0] - each[1]) > 1e-4


def test_gradient_reaches_every_parameter_of_encoder_and_decoder():
    learner = small_learner(RESTORE)
    loss, _ = learner(two_views(4), {"step": 0}, {"restore": 1.0})
    loss.backward()
    assert all(p.grad is not None for p in learner.parameters())
    still = [n for n, p in learner.named_parameters() if p.grad.abs().sum() == 0 and "conv1.bias" not in n]
    assert not still  # a bias before batch norm has no effect, everything else must move


def test_evaluation_changes_no_buffer():
    learner = small_learner(RESTORE).eval()
    before = {k: v.clone() for k, v in learner.state_dict().items()}
    with torch.no_grad():
        learner(two_views(4), {"step": 0}, {"restore": 1.0})
    assert all(torch.equal(v, before[k]) for k, v in learner.state_dict().items())


def test_a_network_without_decoder_is_refused():
    network = Network(build_encoder({"name": "unet", "spatial_dims": 2, "in_channels": 1, "width": 2}))
    with pytest.raises(ScanlearnError, match="needs a decoder"):
        Restore(network)


def test_unknown_settings_are_refused_with_the_nearest():
    network = small_learner(RESTORE).network
    with pytest.raises(ScanlearnError, match="did you mean 'mse'"):
        Restore(network, loss="mes")


def test_two_ranks_give_the_loss_and_gradients_of_one_process(tmp_path):
    alone = two_steps_of_gradients(RESTORE, 1, {"batch_norm": "split", "batch_norm_groups": 2})
    for rank in on_ranks(tmp_path, two_steps_of_gradients, RESTORE, 2, {"batch_norm": "local"}):
        for ours, theirs in zip(alone, rank, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


# ---------------------------------------------------------------- only what was masked


@pytest.mark.parametrize("loss", ["mse", "mae"])
def test_error_of_the_masked_region_equals_the_plain_loop_over_changed_voxels(loss):
    view, target, restored = (torch.rand(2, 3, 3, 4, dtype=torch.float64) for _ in range(3))
    view[:, :, 1:] = target[:, :, 1:]  # the first row differs
    view[1, 2, 2, 3] += 0.5  # and one voxel, in one of its channels
    total = count = 0
    for n in range(2):
        for i in range(3):
            for j in range(4):
                if view[n, :, i, j].tolist() != target[n, :, i, j].tolist():
                    count += 3
                    away = [abs(a - b) for a, b in zip(restored[n, :, i, j], target[n, :, i, j], strict=True)]
                    total += sum(a.item() ** 2 if loss == "mse" else a.item() for a in away)
    changed = changed_voxels(view, target)
    assert count == 3 * (2 * 4 + 1) and changed.shape == (2, 1, 3, 4)
    assert restoration_error(restored, target, loss, changed).item() == pytest.approx(total / count, abs=1e-12)


def test_a_batch_in_which_nothing_was_masked_costs_nothing_and_has_finite_gradients():
    learner = small_learner(MASKED)
    views = two_views(2)
    loss, _ = learner({"query": views["key"], "key": views["key"]}, {"step": 0}, {"restore": 1.0})
    loss.backward()
    assert loss.item() == 0 and all((p.grad == 0).all() for p in learner.parameters())


def test_only_masked_voxels_send_gradients_to_the_restored_image():
    learner, views = small_learner(MASKED), two_views(2)
    views["query"] = views["key"].clone()
    views["query"][:, :, 4:8, 4:8] = 0.5
    step = step_of(learner, views)
    image = step.restored("query")
    image.retain_grad()
    learner.objectives["restore"](step).backward()
    inside = torch.zeros(2, 1, 16, 16, dtype=torch.bool)
    inside[:, :, 4:8, 4:8] = True
    assert (image.grad[inside] != 0).all() and (image.grad[~inside] == 0).all()


def test_all_voxels_count_unless_said_otherwise():
    network = small_learner(RESTORE).network
    assert Restore(network).region == "all"
    with pytest.raises(ScanlearnError, match="did you mean 'masked'"):
        Restore(network, region="mask")


def masked_steps(world_size, batch_norm):
    """Two steps; the second half of the global batch has a quarter of the masked voxels that the first half has."""
    views = two_views(8)
    query = views["key"].clone()
    query[:4, :, :8, :8], query[4:, :, :4, :4] = 0.5, 0.5
    return two_steps_of_gradients(MASKED, world_size, batch_norm, query=query, key=views["key"])


def test_two_ranks_with_unequal_masks_give_the_loss_and_gradients_of_one_process(tmp_path):
    alone = masked_steps(1, {"batch_norm": "split", "batch_norm_groups": 2})
    for rank in on_ranks(tmp_path, masked_steps, 2, {"batch_norm": "local"}):
        for ours, theirs in zip(alone, rank, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
