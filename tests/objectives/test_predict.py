import math

import numpy as np
import pytest
import torch
from torch import nn

from ranks import on_ranks
from scanlearn.engine.learner import build_learner
from scanlearn.engine.recipe import load_recipe, parse_recipe
from scanlearn.errors import ScanlearnError
from scanlearn.networks.encoder import build_encoder
from scanlearn.networks.network import Network
from scanlearn.objectives.predict import Predict, encoded_patches, patch_grid, prediction_logits
from scanlearn.objectives.ranks import own_part
from scanlearn.objectives.step import Step

ENCODER = {"name": "segres", "width": 8, "blocks": [1, 1], "dropout": 0.0, "groups": 4}
SMALL = {"patch": 8, "stride": 4, "blocks": 1, "groups": 4, "negatives": 5, "chunk": 7}


def learner_of(dims=2, encoder=ENCODER, decoder=None, **settings):
    data = {
        "name": "small",
        "spatial_dims": dims,
        "network": {"encoder": encoder, "decoder": decoder},
        "views": {"image": {"ops": []}},
        "objectives": {"predict": {**SMALL, **settings}},
    }
    return build_learner(parse_recipe(data), seed=0, world_size=1)


def images(samples=2, dims=2, sides=(16, 16, 20)):
    return torch.rand((samples, 1, *sides[-dims:]), generator=torch.Generator().manual_seed(1))


def run(learner, image, step=0):
    batch = {"step": step, "position": torch.arange(len(image))}
    return learner({"image": image}, batch, {"predict": 1.0})


def test_parameters_of_the_published_predictor():
    with torch.device("meta"):
        network = Network(build_encoder({"name": "segres", "in_channels": 4, "spatial_dims": 3}))
        objective = Predict(network)
    assert sum(p.numel() for p in objective.parameters()) == 28_389_632


def test_the_grid_of_the_published_crop_is_8_8_7_in_row_major_order():
    assert patch_grid(torch.empty(1, 4, 144, 144, 128, device="meta"), 32, 16).shape == (1, 8, 8, 7, 4, 32, 32, 32)
    image = torch.rand(2, 1, 10, 12)
    grid = patch_grid(image, 4, 2)
    assert torch.equal(grid[1, 3, 2], image[1, :, 6:10, 4:8])


def plain_loss(z, predicted, chosen):
    """Dot products and softmax in loops; z and predicted (F, *grid), the context first along the last axis."""
    features, *_, depth = z.shape
    seen = depth // 2
    right = z[..., depth - seen :].reshape(features, -1)
    others = z[..., : depth - seen].reshape(features, -1)[:, chosen]
    total = 0.0
    for place in range(right.shape[1]):
        guess = predicted.reshape(features, -1)[:, place]
        products = [guess @ column for column in [*right.T, *others.T]]
        total += math.log(sum(math.exp(p - products[place]) for p in products))
    return total / right.shape[1]


@pytest.mark.parametrize("dims", [2, 3])
def test_loss_equals_the_plain_loop(dims):
    learner = learner_of(dims).double()
    objective, image = learner.objectives["predict"], images(dims=dims).double()
    loss, parts = run(learner, image)
    step = Step(learner.network, {"image": image}, {"step": 0, "position": torch.arange(2)}, learner.seed)
    with torch.no_grad():
        z = objective.features(step)
        seen = z.shape[-1] // 2
        pool = z[..., : z.shape[-1] - seen].flatten(2).shape[2]
        chosen = step.draws("predict").permutation(pool)[:, :5]
        predicted = objective.predictor(z[..., :seen])
    rows = zip(z.numpy(), predicted.numpy(), chosen.numpy(), strict=True)
    assert loss.item() == pytest.approx(np.mean([plain_loss(*row) for row in rows]), abs=1e-5)
    assert 0 <= parts["predict_accuracy"].item() <= 1


def test_features_that_are_all_zero_cost_ln_212_on_the_published_grid():
    """192 targets and 20 others, each as likely (spec_cpcseg §5.4, test 6)."""
    network = Network(build_encoder({"name": "segres", "spatial_dims": 3, "width": 8, "groups": 4}))
    objective = Predict(network, blocks=1, groups=4)
    step = Step(network, {"image": torch.zeros(1, 1, 4, 4, 4)}, {"step": 0, "position": [0]})
    for parameter in objective.predictor.parameters():
        nn.init.zeros_(parameter)
    loss, _ = objective.contrast(torch.zeros(1, 64, 8, 8, 7), step.draws("predict"))
    assert loss.item() == pytest.approx(math.log(212), abs=1e-5)


def test_negatives_are_never_of_the_slabs_that_are_predicted_and_differ_from_each_other():
    learner = learner_of(3, negatives=32)
    grid = torch.zeros(1, 16, 4, 4, 7)
    marks = torch.arange(4.0 * 4 * 7).view(1, 1, 4, 4, 7)
    seen = []
    objective = learner.objectives["predict"]

    class Spy(nn.Module):
        def forward(self, x):
            return x

    objective.predictor = Spy()
    import scanlearn.objectives.predict as module

    def spy(predicted, right, others):
        seen.append(others[0, 0])
        return prediction_logits(predicted, right, others)

    original, module.prediction_logits = module.prediction_logits, spy
    try:
        step = Step(learner.network, {"image": grid}, {"step": 3, "position": [0]})
        objective.contrast(grid + marks, step.draws("predict"))
    finally:
        module.prediction_logits = original
    slabs = seen[0] % 7
    assert len(seen[0].unique()) == 32 and slabs.max() <= 3 and len(slabs.unique()) == 4


def test_every_parameter_of_encoder_and_predictor_learns_and_no_decoder():
    learner = learner_of(2, decoder={"name": "segres", "groups": 4})
    loss, _ = run(learner, images())
    loss.backward()
    for name, parameter in learner.named_parameters():
        if name.startswith("network.decoder"):
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("setting", [{"direction": "both"}, {"normalise": True, "temperature": 0.1}, {"axis": 0}])
def test_options_change_the_loss_and_keep_gradients(setting):
    usual, _ = run(learner_of(), images())
    learner = learner_of(**setting)
    loss, _ = run(learner, images())
    loss.backward()
    assert loss.item() != pytest.approx(usual.item())
    assert all(p.grad is not None for p in learner.parameters())


def test_detached_targets_leave_the_gradient_of_the_context_alone():
    learner, grid = learner_of(detach_targets=True), torch.rand(1, 16, 3, 4, requires_grad=True)
    draws = Step(learner.network, {"image": images(1)}, {"step": 0, "position": [0]}).draws("predict")
    learner.objectives["predict"].contrast(grid, draws)[0].backward()
    assert (grid.grad[..., :2] != 0).any() and (grid.grad[..., 2:] == 0).all()


def test_chunks_change_neither_loss_nor_gradients():
    whole, parts = learner_of(chunk=None), learner_of(chunk=5)
    for learner in (whole, parts):
        run(learner, images())[0].backward()
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-5, rtol=1e-4)


def test_chunks_are_not_kept_in_memory_for_the_backward_pass():
    """What autograd saves outside a checkpoint is what chunks are for."""
    saved = {}
    for chunk in (None, 4):
        learner = learner_of(3, chunk=chunk)
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, s=sizes: s.append(x.numel()) or x, lambda x: x):
            run(learner, images(1, 3))
        saved[chunk] = sum(sizes)
    assert saved[4] < 0.2 * saved[None]


def test_the_second_computation_of_a_chunk_moves_no_running_statistics():
    encoder = {"name": "unet", "width": 4}
    once, twice = (learner_of(2, encoder, chunk=chunk) for chunk in (None, 10_000))
    for learner in (once, twice):
        run(learner, images())[0].backward()
    for (name, a), (_, b) in zip(once.named_buffers(), twice.named_buffers(), strict=True):
        torch.testing.assert_close(a, b, msg=name)


def test_evaluation_changes_no_buffer():
    learner = learner_of(2, {"name": "unet", "width": 4}).eval()
    before = {name: buffer.clone() for name, buffer in learner.named_buffers()}
    with torch.no_grad():
        run(learner, images())
    assert all(torch.equal(buffer, before[name]) for name, buffer in learner.named_buffers())


def test_it_learns_what_lies_where():
    torch.manual_seed(0)
    image = torch.rand(4, 1, 4, 5).repeat_interleave(4, 2).repeat_interleave(4, 3)
    learner = learner_of()
    optimizer = torch.optim.Adam(learner.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        loss, _ = run(learner, image)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def gradients(image):
    learner = learner_of()
    rows = own_part(torch.arange(len(image)))
    loss, _ = learner({"image": image[rows]}, {"step": 0, "position": rows}, {"predict": 1.0})
    loss.backward()
    return [loss.detach(), *[p.grad for p in learner.parameters()]]


def test_two_ranks_give_the_loss_and_gradients_of_one_process(tmp_path):
    alone, ranks = gradients(images(4)), on_ranks(tmp_path, gradients, images(4))
    for whole, *parts in zip(alone, *ranks, strict=True):
        torch.testing.assert_close(torch.stack(parts).mean(dim=0), whole, atol=1e-5, rtol=1e-4)


def test_what_cannot_be_cut_or_drawn_is_refused_with_what_to_set():
    with pytest.raises(ScanlearnError, match="less than one patch of 8"):
        run(learner_of(), images(sides=(4, 16, 6)))
    with pytest.raises(ScanlearnError, match="negatives"):
        run(learner_of(negatives=100), images())
    with pytest.raises(ScanlearnError, match="did you mean 'both'"):
        learner_of(direction="bot")


def test_patches_are_encoded_in_the_order_of_the_grid():
    image = torch.rand(2, 1, 8, 12)
    means = encoded_patches(patch_grid(image, 4, 4), lambda x: x.flatten(2).mean(2), 4, nn.Identity())
    assert means.shape == (2, 1, 2, 3)
    assert means[1, 0, 1, 2].item() == pytest.approx(image[1, 0, 4:, 8:].mean().item())


ANY_ENCODER = [
    *((dims, {"name": name, "width": 8}, 16) for dims in (2, 3) for name in ("unet", "segres", "resnet18")),
    *((dims, {"name": "densenet121", "width": 8}, 32) for dims in (2, 3)),
    (2, {"name": "resnet50", "width": 8}, 32),
    (2, {"name": "conv4", "width": 8}, 16),
    (2, {"name": "nnunet", "width": 4}, 64),
]


@pytest.mark.parametrize(
    ("dims", "encoder", "patch"), ANY_ENCODER, ids=lambda v: v["name"] if isinstance(v, dict) else v
)
def test_it_learns_on_every_kind_of_encoder(dims, encoder, patch):
    learner = learner_of(dims, encoder, patch=patch, stride=patch // 2, negatives=2, chunk=None)
    loss, _ = run(learner, images(2, dims, (patch, patch, 5 * patch // 2)))
    loss.backward()
    untouched = [name for name, p in learner.named_parameters() if p.grad is None]
    assert not untouched and any(p.grad.any() for p in learner.network.encoder.parameters())


BESIDE = {
    "restore": {"restore": {"view": "image", "target": "image"}},
    "words": {"words": {"view": "image", "classes": 3}},
    "momentum_contrast": {"momentum_contrast": {"query": "image", "key": "image", "queue_size": 8, "dim": 4}},
    "both": {"restore": {"view": "image", "target": "image"}, "words": {"view": "image", "classes": 3}},
}


@pytest.mark.parametrize("others", BESIDE)
def test_it_is_added_to_other_objectives_without_changing_them(others):
    def learner_with(more):
        data = {
            "name": "small",
            "network": {"encoder": {**ENCODER, "blocks": [1, 1, 1, 1]}, "decoder": {"name": "segres", "groups": 4}},
            "views": {"image": {"ops": []}},
            "objectives": {**BESIDE[others], **more},
        }
        return build_learner(parse_recipe(data), seed=0, world_size=1)

    image, batch = images(2, 2, (32, 32)), {"step": 0, "position": torch.arange(2), "word": torch.tensor([0, 2])}
    alone, joint = learner_with({}), learner_with({"predict": {**SMALL, "weight": 0.5}})
    joint.load_state_dict(alone.state_dict(), strict=False)
    weights = dict.fromkeys(BESIDE[others], 1.0)
    before, _ = alone({"image": image}, batch, weights)
    loss, parts = joint({"image": image}, batch, {**weights, "predict": 0.5})
    torch.testing.assert_close(loss, before + 0.5 * parts["predict"])
    before.backward()
    loss.backward()
    theirs = dict(alone.named_parameters())
    for name, p in joint.named_parameters():
        if name.startswith("network.encoder"):
            assert not torch.equal(p.grad, theirs[name].grad), name  # both terms reach the encoder
        elif name in theirs and p.grad is not None:
            torch.testing.assert_close(p.grad, theirs[name].grad, msg=name)  # and this one nothing else of theirs


@pytest.mark.parametrize(
    ("recipe", "view"),
    [("models_genesis_3d_small", "clean"), ("semantic_genesis_3d_small", "clean"), ("moco_v2_small", "query")],
)
def test_a_setting_joins_it_to_packaged_recipes(recipe, view):
    joined = load_recipe(recipe, {"objectives.predict.weight": 0.001, "objectives.predict.view": view})
    if "words" in joined.objectives:
        joined.objectives["words"]["classes"] = 4
    with torch.device("meta"):
        learner = build_learner(joined, seed=0, world_size=1)
    assert "predict" in learner.objectives and joined.stage_weights()[0]["predict"] == 0.001
