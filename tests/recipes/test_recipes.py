"""Every packaged recipe is whole, and those of published methods hold the published numbers."""

import math

import pytest
import torch

from scanlearn.engine.learner import build_learner
from scanlearn.engine.recipe import load_recipe, recipe_names
from scanlearn.engine.schedule import factor
from scanlearn.engine.train import total_steps
from scanlearn.networks.norm import SplitBatchNorm
from scanlearn.randomness import Draws
from scanlearn.views.distort import shuffle_map
from scanlearn.views.graph import ViewGraph

MOCO = ["moco_v1", "moco_v2", "chen2021"]
GENESIS = ["models_genesis_3d", "models_genesis_3d_small", "models_genesis_2d", "models_genesis_2d_small"]
PRETRAINING = [name for name in recipe_names() if not name.startswith("finetune")]
EVERY = pytest.mark.parametrize("name", recipe_names())


def tiny_batch(recipe, count=2):
    """Random grey images of the patch size; where whole scans are read, of 48 x 40 pixels."""
    size = recipe.size or (48, 40)
    return torch.rand(count, 1, *size, generator=torch.Generator().manual_seed(0))


def views_of(recipe, count=2, step=0):
    return ViewGraph(recipe.views)(tiny_batch(recipe, count), Draws.for_step(0, step, range(count)))


def ops_of(recipe, view="query"):
    """[(name, settings)] of a view, in order."""
    ops = recipe.views[view]["ops"]
    return [(op, {}) if isinstance(op, str) else next(iter(op.items())) for op in ops]


def rates(recipe, epochs=200, steps_per_epoch=3):
    """The learning rate at every step of a data set of ``steps_per_epoch`` batches, by epoch."""
    scans = steps_per_epoch * recipe.batch_size
    steps = total_steps(recipe, scans)
    assert steps == epochs * steps_per_epoch
    rate = [recipe.optimizer.lr * factor(recipe.schedule, step, steps, steps_per_epoch) for step in range(steps)]
    return [rate[first : first + steps_per_epoch] for first in range(0, steps, steps_per_epoch)]


# ---------------------------------------------------------------- all of them


@EVERY
def test_a_recipe_says_what_it_is_and_its_command_names_it(name):
    recipe = load_recipe(name)
    assert recipe.name == name and recipe.title and recipe.cost
    verb = "finetune" if name.startswith("finetune") else "pretrain"
    assert recipe.command.startswith(f"scanlearn {verb} STORE ")
    if name in PRETRAINING:
        assert f"--recipe {name} " in recipe.command and recipe.paper and recipe.expects


@EVERY
def test_views_run_on_a_batch_and_share_one_size_in_the_unit_range(name):
    recipe = load_recipe(name)
    views = views_of(recipe)
    shapes = {tuple(view.shape) for view in views.values()}
    assert len(shapes) == 1 and len(shapes.pop()) == 2 + recipe.spatial_dims
    assert all(view.min() >= -1e-6 and view.max() <= 1 + 1e-6 for view in views.values())
    again = views_of(recipe)
    assert all(torch.equal(view, again[key]) for key, view in views.items())


@EVERY
def test_network_and_objectives_build_and_name_views_that_exist(name):
    recipe = load_recipe(name)
    with torch.device("meta"):
        learner = build_learner(recipe, seed=0, world_size=1)
    assert list(learner.objectives) == list(recipe.objectives)
    known = {*recipe.views, "mask"}
    for objective in learner.objectives.values():
        named = {
            getattr(objective, key) for key in ("query", "key", "view", "target", "mask") if hasattr(objective, key)
        }
        assert named and named <= known


@pytest.mark.parametrize("name", [name for name in PRETRAINING if name.endswith("_small")])
def test_a_small_recipe_takes_a_step_whose_loss_is_finite(name):
    recipe = load_recipe(name)
    learner = build_learner(recipe, seed=0, world_size=1)
    count = recipe.network.batch_norm_groups if recipe.network.batch_norm == "split" else 2
    weights = {key: settings["weight"] for key, settings in recipe.objectives.items()}
    loss, _ = learner(views_of(recipe, count * 2), {"step": 0}, weights)
    loss.backward()
    assert torch.isfinite(loss)


# ---------------------------------------------------------------- momentum contrast (spec_fewshot §2.2)


@pytest.mark.parametrize(
    ("name", "head", "temperature", "schedule"),
    [("moco_v1", "linear", 0.07, "step"), ("moco_v2", "mlp", 0.2, "cosine"), ("chen2021", "mlp", 0.07, "step")],
)
def test_momentum_contrast_recipes_hold_the_published_numbers(name, head, temperature, schedule):
    recipe = load_recipe(name)
    objective = recipe.objectives["momentum_contrast"]
    assert (objective["head"], objective["temperature"]) == (head, temperature)
    assert (objective["queue_size"], objective["momentum"], objective["dim"]) == (65536, 0.999, 128)
    assert recipe.network.encoder == {"name": "resnet50"}
    optimizer = recipe.optimizer
    assert (optimizer.name, optimizer.lr, optimizer.momentum, optimizer.weight_decay) == ("sgd", 0.03, 0.9, 1e-4)
    assert optimizer.decay_norm_and_bias  # weight decay on all parameters
    assert (recipe.batch_size, recipe.epochs) == (256, 200)
    assert recipe.schedule.name == schedule and recipe.schedule.per_epoch and recipe.schedule.warmup_steps == 0
    assert (recipe.network.batch_norm, recipe.network.batch_norm_groups) == ("split", 8)  # 8 GPUs of 32


@pytest.mark.parametrize("name", MOCO)
def test_heads_and_queue_have_the_published_shapes(name):
    with torch.device("meta"):
        objective = build_learner(load_recipe(name), seed=0, world_size=1).objectives["momentum_contrast"]
    shapes = [tuple(p.shape) for p in objective.projector.parameters()]
    hidden = [] if name == "moco_v1" else [(2048, 2048), (2048,)]
    assert shapes == [*hidden, (128, 2048), (128,)]
    assert tuple(objective.queue.shape) == (128, 65536)


@pytest.mark.parametrize("name", MOCO)
def test_batch_norm_is_split_in_the_query_and_in_the_key_encoder(name):
    with torch.device("meta"):
        learner = build_learner(load_recipe(name), seed=0, world_size=2)
    encoders = (learner.network.encoder, learner.objectives["momentum_contrast"].key_encoder)
    norms = [[m for m in encoder.modules() if isinstance(m, SplitBatchNorm)] for encoder in encoders]
    assert len(norms[0]) == len(norms[1]) == 53  # all of a ResNet-50
    assert {norm.groups for norm in norms[0] + norms[1]} == {4}  # 8 groups of the global batch, 4 on each of 2 ranks


def test_the_views_of_v1_and_v2_are_the_published_ones_in_their_order():
    crop = ("random_resized_crop", {"size": 224, "scale": [0.2, 1.0]})
    flip = ("flip", {"p": 0.5, "axes": [-1]})
    always = ("colour_jitter", {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.4})
    often = ("colour_jitter", {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "p": 0.8})
    grey, blur = ("grayscale", {"p": 0.2}), ("gaussian_blur", {"sigma": [0.1, 2.0], "p": 0.5})
    assert ops_of(load_recipe("moco_v1")) == [crop, grey, always, flip]
    assert ops_of(load_recipe("moco_v2")) == [crop, often, grey, blur, flip]
    imagenet = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    assert [load_recipe(name).network.normalise for name in MOCO] == [imagenet, imagenet, None]
    assert all(load_recipe(name).views["key"] == {"like": "query"} for name in MOCO)


def test_the_views_of_chen2021_have_no_colour():
    ops = dict(ops_of(load_recipe("chen2021")))
    assert list(ops) == ["random_resized_crop", "brightness_contrast", "gaussian_blur", "rotate", "flip"]
    assert ops["brightness_contrast"] == {"brightness": 0.4, "contrast": 0.4, "p": 0.8}
    assert ops["rotate"] == {"degrees": 10} and load_recipe("chen2021").channels == 1


@pytest.mark.parametrize("name", ["moco_v1", "chen2021"])
def test_steps_drop_at_epoch_120_and_160_of_200(name):
    for epoch, seen in enumerate(rates(load_recipe(name))):
        wanted = 0.03 * 0.1 ** ((epoch >= 120) + (epoch >= 160))
        assert seen == pytest.approx([wanted] * 3, rel=1e-12), epoch


def test_the_cosine_of_v2_moves_once_per_epoch():
    for epoch, seen in enumerate(rates(load_recipe("moco_v2"))):
        assert seen == pytest.approx([0.03 * 0.5 * (1 + math.cos(math.pi * epoch / 200))] * 3, rel=1e-12), epoch


# ---------------------------------------------------------------- Models Genesis (spec_genesis §2)


@pytest.mark.parametrize("name", GENESIS)
def test_genesis_recipes_hold_the_order_and_the_probabilities_of_the_released_code(name):
    recipe = load_recipe(name)
    assert ops_of(recipe, "clean") == [("flip", {"mode": "genesis", "p": 0.4})]
    shuffle, curve, paint = ops_of(recipe, "distorted")
    assert (shuffle[0], shuffle[1]["p"]) == ("local_shuffle", 0.5)
    assert curve == ("intensity_curve", {"p": 0.9})
    assert paint == ("one_of", {"ops": ["in_paint", "out_paint"], "weights": [0.2, 0.8], "p": 0.9})
    assert recipe.views["distorted"]["source"] == "clean"
    assert recipe.objectives == {
        "restore": {"weight": 1.0, "view": "distorted", "target": "clean", "loss": "mse", "activation": "sigmoid"}
    }
    optimizer = recipe.optimizer
    assert (optimizer.name, optimizer.lr, optimizer.betas, optimizer.weight_decay) == ("adam", 1e-3, (0.9, 0.999), 0.0)


def test_genesis_3d_holds_the_published_windows_cubes_batch_and_network():
    recipe = load_recipe("models_genesis_3d")
    assert dict(ops_of(recipe, "distorted"))["local_shuffle"]["windows"] == 10_000
    assert (recipe.size, recipe.batch_size) == ([64, 64, 32], 6)
    with torch.device("meta"):
        network = build_learner(recipe, seed=0, world_size=1).network
    assert len(network.state_dict()) == 106 and sum(p.numel() for p in network.parameters()) == 19_073_665


def test_genesis_3d_halves_the_rate_four_times():
    schedule = load_recipe("models_genesis_3d").schedule
    seen = [factor(schedule, step, 100_000) for step in (0, 39_999, 40_000, 60_000, 80_000, 90_000, 99_999)]
    assert seen == [1, 1, 0.5, 0.25, 0.125, 0.0625, 0.0625]


@pytest.mark.parametrize("name", GENESIS)
def test_genesis_restores_the_cube_from_after_the_flips_and_before_the_distortions(name):
    recipe = load_recipe(name)
    recipe.size = [16] * recipe.spatial_dims
    image, count = tiny_batch(recipe, 40), 40
    views = ViewGraph(recipe.views)(image, Draws.for_step(0, 0, range(count)))
    axes = range(1, 1 + recipe.spatial_dims)
    for original, clean in zip(image, views["clean"], strict=True):
        subsets = [[a for a in axes if k >> a & 1] for k in range(0, 2 << recipe.spatial_dims, 2)]
        assert any(torch.equal(clean, original.flip(subset)) for subset in subsets)
    assert not torch.equal(views["clean"], image)
    changed = (views["distorted"] != views["clean"]).flatten(1).any(1)
    assert changed.float().mean() > 0.9


def test_genesis_2d_shuffles_as_many_pixels_as_the_cube_has_shuffled_voxels():
    windows = dict(ops_of(load_recipe("models_genesis_2d"), "distorted"))["local_shuffle"]["windows"]
    source = shuffle_map(Draws.for_step(0, 0, range(8)).spawn_keys(), (224, 224), windows)
    assert abs((source != torch.arange(224 * 224)).float().mean() - 0.81) < 0.02
