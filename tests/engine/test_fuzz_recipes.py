"""Recipes from elsewhere: damaged, forged and meant to do harm, each is read or refused in one sentence."""

import json
import time

import pytest
from fuzz import SECONDS, damaged, forged, read_or_refused
from runs import genesis_recipe, moco_recipe

from scanlearn.engine.learner import build_learner
from scanlearn.engine.recipe import load_recipe, parse_recipe
from scanlearn.errors import ScanlearnError
from scanlearn.views.graph import ViewGraph


def build(recipe):
    """All that a recipe's settings reach before the first scan is read."""
    ViewGraph(recipe.views)
    build_learner(recipe, 0, 1)


def test_a_damaged_recipe_is_read_or_refused(tmp_path):
    file = tmp_path / "recipe.yaml"
    moco_recipe().save(file)
    data = file.read_bytes()
    for copy in damaged(data, 60, seed=4):
        file.write_bytes(copy)
        read_or_refused(load_recipe, file)


@pytest.mark.parametrize("recipe", [moco_recipe, genesis_recipe])
def test_forged_settings_are_taken_or_refused(recipe):
    data = recipe().to_dict()
    for forgery in forged({k: v for k, v in data.items() if k != "views"}, 40, seed=5):
        read_or_refused(lambda data: build(parse_recipe(data)), {**forgery, "views": data["views"]})


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)
)


@pytest.mark.parametrize(
    "text, words",
    [
        (BOMB, "aliases"),
        ("a: &a [*a]", "aliases"),
        ("a: &a {b: 1}\nc: {<<: *a}", "aliases"),
        ("[" * 5000, "nested deeper|not a readable YAML"),
        ("a: " + "{b: " * 100 + "1" + "}" * 100, "nested deeper"),
        ("a: " + "9" * 10_000, "not a readable YAML"),
        ("x: 1\n" * 100_000, "larger than"),
        ("!!python/object/apply:os.system ['true']", "not a readable YAML"),
        ("a: 2001-99-99", "not a readable YAML"),
        ("? [a]\n: 1", "not a readable YAML|mapping|setting"),
        ("- a", "must hold a mapping"),
        ("", "must hold a mapping"),
    ],
)
def test_yaml_that_means_harm_is_refused(tmp_path, text, words):
    (tmp_path / "recipe.yaml").write_text(text)
    begun = time.perf_counter()
    with pytest.raises(ScanlearnError, match=words):
        load_recipe(tmp_path / "recipe.yaml")
    assert time.perf_counter() - begun < SECONDS


@pytest.mark.parametrize("base", ["../../etc/passwd", "/etc/passwd", "../other.yaml", "sub/other.yaml", 3, ["a"], None])
def test_a_base_is_a_packaged_recipe_or_a_file_beside(tmp_path, base):
    (tmp_path / "recipe.yaml").write_text(json.dumps({"base": base, "name": "x"}))
    with pytest.raises(
        ScanlearnError, match="must be the name of a packaged recipe or of a YAML file in the same folder"
    ):
        load_recipe(tmp_path / "recipe.yaml")


def test_bases_in_a_circle_are_refused_and_a_file_beside_is_read(tmp_path):
    (tmp_path / "a.yaml").write_text("base: b.yaml\nname: a")
    (tmp_path / "b.yaml").write_text("base: a.yaml\nname: b")
    with pytest.raises(ScanlearnError, match="is its own base"):
        load_recipe(tmp_path / "a.yaml")
    for i in range(20):
        (tmp_path / f"{i}.yaml").write_text(f"base: {i + 1}.yaml")
    with pytest.raises(ScanlearnError, match="is its own base"):
        load_recipe(tmp_path / "0.yaml")
    (tmp_path / "b.yaml").write_text("base: moco_v2_small\nname: b\nbatch_size: 6")
    recipe = load_recipe(tmp_path / "a.yaml")
    assert (recipe.name, recipe.batch_size) == ("a", 6)


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 0},
        {"steps": -5},
        {"steps": 10**30},
        {"batch_size": 0},
        {"log_every": 0},
        {"accumulate": 0},
        {"clip_norm": -1.0},
        {"foreground": 1.5},
        {"optimizer": {"lr": float("nan")}},
        {"optimizer": {"lr": float("inf")}},
        {"optimizer": {"betas": [0.9, 2.0]}},
        {"optimizer": {"__class__": "os.system"}},
        {"__class__": "Recipe"},
        {"objectives": {"__class__": {}}},
        {"objectives": {"momentum_contrast": {"temperature": float("nan")}}},
        {"objectives": {"momentum_contrast": {"__init__": 1}}},
        {"objectives": {"momentum_contrast": {"network": 1}}},
        {"objectives": {"momentum_contrast": {"dim": "four"}}},
        {"network": {"encoder": {"name": "unet", "__class__": 1}}},
        {"network": {"encoder": {"name": ["unet"]}}},
        {"network": {"encoder": {"name": "unet", "width": "wide"}}},
        {"network": []},
        {"views": {"query": {"ops": [{"__class__": {}}]}}},
    ],
)
def test_settings_beyond_their_range_or_of_no_kind_are_refused(change):
    data = {**moco_recipe().to_dict(), **change}
    with pytest.raises(ScanlearnError) as told:
        build(parse_recipe(data))
    assert "\n" not in str(told.value)
