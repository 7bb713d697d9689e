import math

import numpy as np
import pytest
import torch
from builders import (
    assert_encoder_and_head_learn_and_no_decoder,
    small_learner,
    step_of,
    two_steps_of_gradients,
    two_views,
)

from ranks import on_ranks
from scanlearn.errors import ScanlearnError
from scanlearn.networks.conv import Conv3d
from scanlearn.networks.encoder import ENCODERS, build_encoder
from scanlearn.networks.network import Network
from scanlearn.networks.norm import SplitBatchNorm
from scanlearn.objectives.objective import build_objective
from scanlearn.objectives.words import HEADS, ClassifyWords, word_error

WORDS = {"words": {"view": "query", "classes": 5, "width": 6}}
LABELS = torch.tensor([0, 3, 4, 1])


def published(classes=44, dims=3, **settings):
    """The head on the published U-Net, and its learnable numbers."""
    with torch.device("meta"):
        network = Network(build_encoder({"name": "unet", "spatial_dims": dims, "in_channels": 1, "width": 32}))
        return ClassifyWords(network, classes=classes, **settings)


def size_of(module):
    return sum(p.numel() for p in module.parameters())


def test_error_equals_the_plain_loop():
    logits, words = torch.randn(4, 5, dtype=torch.float64), LABELS
    losses = []
    for row, word in zip(logits.tolist(), words.tolist(), strict=True):
        softmax = [math.exp(z) / sum(math.exp(other) for other in row) for z in row]
        losses.append(-math.log(softmax[word]))
    assert word_error(logits, words).item() == pytest.approx(sum(losses) / 4, abs=1e-12)


def test_error_stays_finite_where_a_softmax_underflows():
    logits = torch.tensor([[200.0, -200.0]], requires_grad=True)
    error = word_error(logits, torch.tensor([1]))
    error.backward()
    assert error.item() == pytest.approx(400.0) and torch.isfinite(logits.grad).all()


def test_the_head_has_the_published_tensors_and_parameters():
    head = published()
    assert {name: tuple(tensor.shape) for name, tensor in head.state_dict().items()} == {
        "clc_out.conv1.weight": (1024, 512, 3, 3, 3),
        "clc_out.conv1.bias": (1024,),
        "clc_out.bn1.weight": (1024,),
        "clc_out.bn1.bias": (1024,),
        "clc_out.bn1.running_mean": (1024,),
        "clc_out.bn1.running_var": (1024,),
        "clc_out.bn1.num_batches_tracked": (),
        "clc_out.fc1.weight": (44, 1024),
        "clc_out.fc1.bias": (44,),
    }
    assert size_of(head) == 14_203_948  # spec_dira §4.4


def test_the_head_of_the_keras_release_keeps_the_features_and_has_two_linear_layers():
    head = published(head="keras")
    shapes = [tuple(tensor.shape) for name, tensor in head.named_parameters() if name.endswith("weight")]
    assert shapes == [(512, 512, 3, 3, 3), (512,), (1024, 512), (44, 1024)]
    assert size_of(head) == (512 * 512 * 27 + 512) + 2 * 512 + (512 * 1024 + 1024) + (1024 * 44 + 44)
    assert (head.clc_out.bn1.eps, head.clc_out.bn1.momentum) == (1e-3, 0.01)  # Keras: 1e-3, 0.99 of the old


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_logits_are_what_the_published_layers_give(kind, spatial_dims):
    settings = {"words": {**WORDS["words"], "head": kind}}
    learner = small_learner(settings, spatial_dims=spatial_dims).eval()
    step = step_of(learner, two_views(2, spatial_dims=spatial_dims))
    head, maps = learner.objectives["words"].clc_out, step.features("query")[-1]
    with torch.no_grad():
        found = learner.objectives["words"].logits(step)
        convolve = torch.nn.functional.conv2d if spatial_dims == 2 else torch.nn.functional.conv3d
        x = convolve(maps, head.conv1.weight, head.conv1.bias, padding=1).double().numpy()
        x = x / math.sqrt(1 + head.bn1.eps)  # running mean 0, variance 1, scale 1, shift 0
        x = np.maximum(x, 0).reshape(*x.shape[:2], -1).mean(-1)
        for i, linear in enumerate(layer for layer in (head.fc1, head.fc2) if layer is not None):
            x = np.maximum(x, 0) if i else x
            x = x @ linear.weight.double().numpy().T + linear.bias.double().numpy()
    np.testing.assert_allclose(found.numpy(), x, atol=1e-6)


@pytest.mark.parametrize("kind", HEADS)
def test_gradient_reaches_encoder_and_head_and_no_decoder(kind):
    settings = {"words": {**WORDS["words"], "head": kind}}
    learner = small_learner(settings, decoder={"name": "unet"})
    loss, parts = learner(two_views(4), {"step": 0, "word": LABELS}, {"words": 1.0})
    assert_encoder_and_head_learn_and_no_decoder(learner, loss, parts["words"])


def test_with_restoration_both_share_one_forward_pass_and_the_weighted_sum_is_learned():
    objectives = {**WORDS, "restore": {"view": "query", "target": "key"}}
    learner, passes = small_learner(objectives), []
    learner.network.encoder.register_forward_hook(lambda *_: passes.append(1))
    batch = {"step": 0, "word": LABELS}
    loss, parts = learner(two_views(4), batch, {"restore": 1.0, "words": 0.01})
    assert len(passes) == 1
    torch.testing.assert_close(loss.detach(), parts["restore"] + 0.01 * parts["words"])
    loss.backward()
    assert all(p.grad is not None for p in learner.parameters())


def test_words_classify_the_view_that_is_named_and_log_how_often_they_are_right():
    learner = small_learner(WORDS).eval()
    views, objective = two_views(4), learner.objectives["words"]
    with torch.no_grad():
        guess = objective.logits(step_of(learner, views)).argmax(1)
        words = torch.where(torch.arange(4) < 3, guess, (guess + 1) % 5)  # three of four are right
        _, parts = learner(views, {"step": 0, "word": words}, {"words": 1.0})
        _, other = learner({"query": views["query"]}, {"step": 0, "word": words}, {"words": 1.0})
    assert parts["words_accuracy"].item() == 0.75 and torch.equal(parts["words"], other["words"])


def test_evaluation_changes_no_buffer():
    learner = small_learner(WORDS).eval()
    before = {k: v.clone() for k, v in learner.state_dict().items()}
    with torch.no_grad():
        learner(two_views(4), {"step": 0, "word": LABELS}, {"words": 1.0})
    assert all(torch.equal(v, before[k]) for k, v in learner.state_dict().items())


def test_a_batch_without_words_is_refused_in_one_sentence():
    with pytest.raises(ScanlearnError, match=r"`patches: words` and the command --words WORDS"):
        small_learner(WORDS)(two_views(4), {"step": 0}, {"words": 1.0})


def test_an_unknown_number_of_words_is_refused_and_says_who_knows_it():
    with pytest.raises(ScanlearnError, match="the table of words tells it"):
        small_learner({"words": {"view": "query"}})


@pytest.mark.parametrize(
    ("setting", "sentence"), [({"head": "kerras"}, "did you mean 'keras'"), ({"classes": 0}, "1 or more")]
)
def test_settings_that_mean_nothing_are_refused(setting, sentence):
    with pytest.raises(ScanlearnError, match=sentence):
        small_learner({"words": {**WORDS["words"], **setting}})


@pytest.mark.parametrize("name", ENCODERS.names())
def test_the_head_stands_on_the_coarsest_map_of_any_encoder(name):
    with torch.device("meta"):
        network = Network(build_encoder({"name": name, "spatial_dims": 2, "in_channels": 1}))
        tensors = list(network.state_dict())
        head = ClassifyWords(network, classes=3)
    assert head.clc_out.conv1.in_channels == network.encoder.num_features
    assert list(network.state_dict()) == tensors  # what is exported has no head


def test_the_convolution_of_the_head_is_one_that_can_be_trusted():
    assert type(published().clc_out.conv1) is Conv3d


def test_batch_norm_of_the_head_is_that_of_the_network():
    split = small_learner(WORDS, batch_norm="split", batch_norm_groups=2).objectives["words"].clc_out.bn1
    assert isinstance(split, SplitBatchNorm) and split.groups == 2
    assert type(small_learner(WORDS).objectives["words"].clc_out.bn1) is torch.nn.BatchNorm2d
    network = torch.nn.SyncBatchNorm.convert_sync_batchnorm(small_learner(WORDS).network)
    assert type(build_objective("words", {"classes": 3}, network).clc_out.bn1) is torch.nn.SyncBatchNorm


def steps_on_words(world_size, batch_norm):
    """Two steps of gradients; the eight crops of the global batch have words that differ between the ranks."""
    return two_steps_of_gradients(WORDS, world_size, batch_norm, word=torch.tensor([0, 1, 2, 3, 4, 0, 0, 0]))


def test_two_ranks_give_the_loss_and_gradients_of_one_process(tmp_path):
    alone = steps_on_words(1, {"batch_norm": "split", "batch_norm_groups": 2})
    for rank in on_ranks(tmp_path, steps_on_words, 2, {"batch_norm": "local"}):
        for ours, theirs in zip(alone, rank, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
