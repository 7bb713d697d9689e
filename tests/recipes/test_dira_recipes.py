"""The recipes of DiRA hold the published numbers, and are made of one another as they say."""

import dataclasses
import math

import pytest
import torch

from scanlearn.engine.learner import build_learner, weights_at
from scanlearn.engine.recipe import load_recipe, parse_recipe, recipe_dict
from scanlearn.engine.recipe_file import with_base
from scanlearn.engine.schedule import factor
from scanlearn.engine.stages import phases, settled
from scanlearn.engine.train import rate_at, total_steps
from scanlearn.errors import ScanlearnError

FULL = ["dira_moco_2d", "dira_moco_2d_released", "dira_simsiam_2d", "dira_barlow_2d", "dira_c2l_2d"]
SMALL = [f"dira_{method}_2d_small" for method in ("moco", "simsiam", "barlow", "c2l")] + ["dira_moco_2d_released_small"]
SCANS = 75_312  # of the official training list


def learner_of(name):
    recipe = load_recipe(name)
    if "words" in recipe.objectives:
        recipe.objectives["words"]["classes"] = 44
    with torch.device("meta"):
        return build_learner(recipe, seed=0, world_size=1)


def size_of(module):
    return sum(p.numel() for p in module.parameters())


def test_networks_heads_and_judges_have_the_published_number_of_parameters():
    learner = learner_of("dira_moco_2d")
    encoder, decoder = learner.network.encoder, learner.network.decoder
    assert (size_of(encoder), size_of(decoder.blocks), size_of(decoder.segmentation_head)) == (
        23_508_032,
        9_012_928,
        145,
    )
    assert size_of(learner.network) == 32_521_105
    assert size_of(learner.objectives["momentum_contrast"].projector) == 4_458_624
    assert size_of(learner.objectives["adversary"].opponent) == 1_554_433
    volumes = learner_of("dira_transvw_3d")
    assert size_of(volumes.network) == 19_073_665 and size_of(volumes.objectives["words"]) == 14_203_948
    assert size_of(volumes.objectives["adversary"].opponent) == 4_661_377


def test_dira_holds_the_published_numbers():
    recipe = load_recipe("dira_moco_2d")
    moco, restore, adversary = (recipe.objectives[n] for n in ("momentum_contrast", "restore", "adversary"))
    assert (moco["weight"], restore["weight"], adversary["weight"]) == (1.0, 10.0, 0.001)
    assert (moco["dim"], moco["queue_size"], moco["momentum"], moco["temperature"]) == (128, 65536, 0.999, 0.2)
    assert moco["head"] == "mlp" and adversary["loss"] == "least_squares"
    assert adversary["optimizer"] == {"name": "adam", "lr": 0.0002, "betas": [0.5, 0.999]}
    optimizer = recipe.optimizer
    assert (optimizer.name, optimizer.lr, optimizer.momentum, optimizer.weight_decay) == ("sgd", 0.03, 0.9, 1e-4)
    assert optimizer.decay_norm_and_bias and recipe.network.normalise is None
    assert (recipe.network.batch_norm, recipe.network.batch_norm_groups) == ("split", 4)
    for objective in (restore, adversary):
        assert (objective["view"], objective["target"]) == ("query", "clean")


@pytest.mark.parametrize(
    ("name", "steps"), [("dira_moco_2d", (117_675, 117_675)), ("dira_moco_2d_released", (353_025, 1_882_800))]
)
def test_stages_have_the_published_lengths_on_the_published_data(name, steps):
    recipe = load_recipe(name)
    assert tuple(stage.steps for stage in settled(recipe, SCANS)) == steps
    assert total_steps(recipe, SCANS) == sum(steps)


@pytest.mark.parametrize(("size", "batch"), [("", 256), ("_small", 128)])
def test_the_released_code_differs_in_length_last_batch_and_flip_alone(size, batch):
    paper, released = load_recipe(f"dira_moco_2d{size}"), load_recipe(f"dira_moco_2d_released{size}")
    assert [stage.batch_size for stage in released.stages] == [None, 16] and released.batch_size == batch
    differ = {f.name for f in dataclasses.fields(paper) if getattr(paper, f.name) != getattr(released, f.name)}
    assert differ - {"name", "title", "command", "cost", "expects", "epochs"} == {"stages", "views"}
    assert {view for view in paper.views if paper.views[view] != released.views[view]} == {"query", "cropped"}


@pytest.mark.parametrize("name", [*FULL, *SMALL, "dira_transvw_3d", "dira_transvw_3d_small"])
def test_the_adversary_comes_last_and_its_stage_begins_anew(name):
    recipe = load_recipe(name)
    course = phases(recipe)
    assert [p.name for p in course][-2:] == ["dir", "dira"]
    assert course[-1].handed_over and course[-1].start == "last" and course[-1].weights["adversary"] > 0
    assert all(phase.weights["adversary"] == 0 for phase in course[:-1])
    assert course[-2].weights["restore"] == course[-1].weights["restore"] > 0
    rate = rate_at(recipe, course[-1], course[-1].first, 1)
    assert rate == rate_at(recipe, course[0], 0, 1)  # the schedule starts again


def test_three_dimensions_follow_stepwise_pretraining():
    for name in ("dira_transvw_3d", "dira_transvw_3d_small"):
        recipe = load_recipe(name)
        weights = [(p.weights["words"], p.weights["restore"], p.weights["adversary"]) for p in phases(recipe)]
        assert weights == [(1.0, 0.0, 0.0), (1.0, 100.0, 0.0), (1.0, 100.0, 1.0)]
        assert recipe.patches == "words" and recipe.optimizer.name == "adam" and recipe.optimizer.lr == 1e-3
        assert [stage.fresh for stage in recipe.stages] == [False, True, True]
    assert load_recipe("dira_transvw_3d").epochs == 200 and load_recipe("dira_transvw_3d").size == [64, 64, 32]


@pytest.mark.parametrize("size", ["", "_small"])
def test_the_four_differ_by_the_discriminative_method_and_how_it_is_trained(size):
    base = load_recipe(f"dira_moco_2d{size}")
    for method, called in (("simsiam", "siamese"), ("barlow", "redundancy"), ("c2l", "mixed_contrast")):
        other = load_recipe(f"dira_{method}_2d{size}")
        assert set(other.objectives) == {called, "restore", "adversary"}
        assert all(other.objectives[name] == base.objectives[name] for name in ("restore", "adversary"))
        assert (other.views, other.stages, other.batch_size) == (base.views, base.stages, base.batch_size)
        assert {**other.network.encoder, "zero_init_last": False} == {**base.network.encoder, "zero_init_last": False}


@pytest.mark.parametrize("size", ["", "_small"])
def test_caid_is_dira_without_the_adversary(size):
    caid, dira = load_recipe(f"caid{size}"), load_recipe(f"dira_moco_2d{size}")
    assert caid.objectives == {name: s for name, s in dira.objectives.items() if name != "adversary"}
    assert (caid.views, caid.network, caid.optimizer) == (dira.views, dira.network, dira.optimizer) and not caid.stages
    assert load_recipe("caid").epochs == 800


def test_the_base_methods_hold_the_official_numbers():
    simsiam, barlow = load_recipe("simsiam_2d"), load_recipe("barlow_2d")
    assert (simsiam.batch_size, simsiam.optimizer.lr, simsiam.epochs) == (512, 0.05 * 512 / 256, 100)
    assert (simsiam.optimizer.weight_decay, simsiam.schedule.name, simsiam.schedule.per_epoch) == (1e-4, "cosine", True)
    settings = simsiam.objectives["siamese"]
    assert (settings["dim"], settings["bottleneck"], settings["predictor_rate"]) == (2048, 512, "constant")
    assert (barlow.batch_size, barlow.epochs, barlow.optimizer.name) == (2048, 1000, "lars")
    assert barlow.optimizer.lr == pytest.approx(0.2 * 2048 / 256)
    assert barlow.optimizer.lr * barlow.optimizer.vector_lr_scale == pytest.approx(0.0048 * 2048 / 256)
    assert (barlow.optimizer.weight_decay, barlow.optimizer.trust, barlow.optimizer.momentum) == (1e-6, 1e-3, 0.9)
    assert not barlow.optimizer.decay_norm_and_bias
    assert (barlow.objectives["redundancy"]["dim"], barlow.objectives["redundancy"]["strength"]) == (8192, 0.0051)
    for recipe in (simsiam, barlow):
        assert recipe.network.encoder == {"name": "resnet50", "zero_init_last": True}


def test_barlow_twins_warms_up_ten_epochs_and_falls_to_a_thousandth():
    schedule = load_recipe("barlow_2d").schedule
    steps, each = 1000 * 50, 50
    seen = [factor(schedule, step, steps, each) for step in (0, 249, 499, 500, 25_250, 49_999)]
    assert seen == pytest.approx([1 / 500, 0.5, 1.0, 1.0, 0.5 + 0.0005, 0.001], abs=1e-6)


def test_the_views_of_barlow_twins_differ_in_blur_and_solarisation():
    views = load_recipe("barlow_2d").views
    crop = {"random_resized_crop": {"size": 224, "scale": [0.08, 1.0]}}
    jitter = {"colour_jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1, "p": 0.8}}
    same = [crop, {"flip": {"p": 0.5, "axes": [-1]}}, jitter, {"grayscale": {"p": 0.2}}]
    blur = {"sigma": [0.1, 2.0]}
    assert views["query"]["ops"] == [*same, {"gaussian_blur": {**blur, "p": 1.0}}]
    assert views["key"]["ops"] == [*same, {"gaussian_blur": {**blur, "p": 0.1}}, {"solarise": {"p": 0.2}}]


def test_asking_for_steps_shortens_every_stage():
    recipe = load_recipe("dira_moco_2d_released", {"steps": 1000})
    share = 1200 / 256 / (1200 / 256 + 400 / 16)  # of the steps, as the last stage takes batches of 16
    assert [stage.steps for stage in recipe.stages] == [round(1000 * share), 1000 - round(1000 * share)]
    assert recipe.stages[1].batch_size == 16 and recipe.epochs is None


# ---------------------------------------------------------------- null and like in recipes with a base


def test_null_takes_an_objective_of_the_base_away_and_a_view_with_ops_replaces_one_that_was_like_another():
    data = with_base(
        {
            "base": "moco_v2_small",
            "objectives": {"momentum_contrast": None, "siamese": {}},
            "views": {"key": {"ops": [{"random_resized_crop": {"size": 64}}]}},
        }
    )
    recipe = parse_recipe(data)
    assert list(recipe.objectives) == ["siamese"]
    assert recipe.views["key"] == {"ops": [{"random_resized_crop": {"size": 64}}]}


def test_null_works_on_the_command_line_and_a_stage_that_names_what_is_gone_is_refused():
    without = load_recipe("dira_moco_2d_small", {"objectives.adversary": None, "stages": []})
    assert without.objectives == load_recipe("caid_small").objectives
    with pytest.raises(ScanlearnError, match="adversary"):
        load_recipe("dira_moco_2d_small", {"objectives.adversary": None})
    with pytest.raises(ScanlearnError, match="no objectives"):
        load_recipe("caid_small", {"objectives.restore": None, "objectives.momentum_contrast": None})


def test_the_base_of_a_recipe_stays_as_it_is():
    assert recipe_dict("moco_v2")["views"]["key"] == {"like": "query"}
    assert math.isclose(weights_at(load_recipe("dira_moco_2d_small"), 2999)["restore"], 10.0)
