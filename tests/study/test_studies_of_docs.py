"""The studies in docs/studies say what this version understands, and compare what may be compared."""

from pathlib import Path

import pytest
import torch

from scanlearn.engine.learner import build_learner, weights_at
from scanlearn.engine.recipe import load_recipe, override, parse_recipe, recipe_dict, with_base
from scanlearn.engine.stages import phases
from scanlearn.study.grid import pretrainings
from scanlearn.study.plan import load_plan
from scanlearn.views.graph import ViewGraph

FOLDER = Path(__file__).parents[2] / "docs" / "studies"
PLANS = {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}
WORDS = ["words_hippocampus", "words_nodule"]


def built(recipe):
    """The learner of a recipe, without memory for its weights."""
    ViewGraph(recipe.views)
    if "words" in recipe.objectives:
        recipe.objectives["words"].setdefault("classes", 44)  # what a table of words would say
    with torch.device("meta"):
        return build_learner(recipe, seed=0, world_size=1)


def recipes_of(plan):
    """{method: recipe as its pre-training runs it}."""
    found = {name: pretrainings(name, method, plan)[0] for name, method in plan.methods.items() if method.recipe}
    return {name: load_recipe(p.recipe, p.overrides) for name, p in found.items()}


@pytest.mark.parametrize("name", PLANS)
def test_every_pretraining_and_the_fine_tuning_can_be_built_and_learn_at_every_step(name):
    plan = load_plan(PLANS[name])
    for method, recipe in recipes_of(plan).items():
        built(recipe)
        for step in (0, recipe.steps - 1):
            assert any(weights_at(recipe, step).values()), (method, step)
    for method in plan.methods.values():
        data = with_base(recipe_dict(method.finetuning_recipe or plan.recipe or f"finetune_{plan.task}"))
        for key, value in {**plan.finetuning, **method.finetuning}.items():
            override(data, key, value)
        built(parse_recipe(data))


@pytest.mark.parametrize("name", WORDS)
def test_studies_of_words_compare_all_methods_at_equal_steps_sizes_and_encoders(name):
    recipes = recipes_of(load_plan(PLANS[name]))
    on_words = {method for method, recipe in recipes.items() if recipe.patches == "words"}
    plain = {"inpainting", "context_restoration", "rotation"}
    with_words = {f"{method}_semantics" for method in plain} | {"words_only", "restore_only", "semantic_genesis"}
    assert on_words == with_words and set(recipes) == with_words | plain | {"models_genesis"}
    for value in ("steps", "size", "spatial_dims", "batch_size"):
        assert len({str(getattr(recipe, value)) for recipe in recipes.values()}) == 1, value
    assert len({str(recipe.network.encoder) for recipe in recipes.values()}) == 1
    parts = {
        method: weights_at(recipes[method], recipes[method].steps - 1) for method in ("words_only", "restore_only")
    }
    assert parts["words_only"]["restore"] == parts["restore_only"]["words"] == 0


def test_the_study_of_dira_compares_losses_alone_and_its_targets_start_from_its_pretrainings():
    recipes = recipes_of(load_plan(PLANS["dira_radiographs"]))
    families = ("moco", "simsiam", "barlow")
    assert set(recipes) == {f"{family}{more}" for family in families for more in ("", "_restore", "_dira")}
    for value in ("steps", "batch_size", "views", "schedule"):
        assert len({str(getattr(recipe, value)) for recipe in recipes.values()}) == 1, value
    assert len({str((recipe.network.encoder, recipe.network.decoder)) for recipe in recipes.values()}) == 1
    for family in families:
        for losses, more in enumerate(("", "_restore", "_dira"), 1):
            recipe = recipes[family + more]
            assert sum(weight != 0 for weight in weights_at(recipe, recipe.steps - 1).values()) == losses
            assert len(phases(recipe)) == (2 if more == "_dira" else 1)
    for target in ("radiographs_frozen", "lungs", "ventricle"):
        methods = load_plan(PLANS[f"dira_{target}"]).methods
        assert methods.pop("scratch").from_scratch
        assert {name: method.weights for name, method in methods.items()} == {
            name: f"studies/dira_radiographs/pretrained/{name}-seed0" for name in recipes
        }


def test_the_published_experiment_has_every_method_without_and_with_words_and_ten_seeds():
    plan = load_plan(PLANS["semantic_genesis_add_semantics"])
    base = {"inpainting", "context_restoration", "rotation", "models_genesis"}
    alone = {"scratch", "words_only", "restore_only", "semantic_genesis"}
    assert set(plan.methods) == base | {f"{name}_semantics" for name in base} | alone
    assert (plan.seeds, plan.labels, plan.recipe) == (10, ["all"], "target_ncc")
