"""The example in the documentation is the file that runs here."""

import importlib.util
from pathlib import Path

import pytest
import yaml
from runs import image_store

from scanlearn.engine.pretrain import pretrain
from scanlearn.engine.recipe import parse_recipe
from scanlearn.engine.run_folder import RunFolder
from scanlearn.objectives.objective import OBJECTIVES
from scanlearn.weights.encoder import load_encoder

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "add_a_method.py"


@pytest.fixture
def example(monkeypatch):
    """The example as a module; the objective it registers is gone again after the test."""
    OBJECTIVES.names()  # everything of the package is registered before the table is put aside
    monkeypatch.setattr(OBJECTIVES, "_parts", dict(OBJECTIVES._parts))
    spec = importlib.util.spec_from_file_location("add_a_method", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_method_in_one_file_trains_and_leaves_an_encoder(tmp_path, example):
    tiny = {"steps": 4, "log_every": 1, "batch_size": 8, "precision": "32-true"}
    recipe = parse_recipe({**yaml.safe_load(example.RECIPE), **tiny})
    result = pretrain(image_store(tmp_path), recipe, tmp_path / "run")
    lines = RunFolder(tmp_path / "run").read_metrics("train")
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert all(line["four_turns"] == line["loss"] and 0 <= line["four_turns_accuracy"] <= 1 for line in lines)
    assert load_encoder(tmp_path / "run").num_features == result.network.encoder.num_features == 256


def test_the_recipe_of_the_example_is_one_as_it_stands(example):
    recipe = parse_recipe(yaml.safe_load(example.RECIPE))
    assert list(recipe.objectives) == ["four_turns"]
    assert sum(bool(line.strip()) for line in EXAMPLE.read_text().splitlines()) < 40


@pytest.mark.parametrize("page", ["docs/how-to/add-a-method.md", "README.md"])
def test_the_page_shows_the_file_word_for_word(page):
    assert f"```python\n{EXAMPLE.read_text()}```" in (ROOT / page).read_text()
