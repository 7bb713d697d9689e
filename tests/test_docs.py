"""What the documentation says exists: tests, recipes, links, commands with their options."""

import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml

from scanlearn.cli.arguments import parse, split_settings
from scanlearn.cli.words import TAKES_SETTINGS
from scanlearn.engine.learner import build_learner
from scanlearn.engine.recipe import load_recipe, parse_recipe, recipe_names, with_base
from scanlearn.views.graph import ViewGraph

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").rglob("*.md"))
METHODS = sorted((ROOT / "docs" / "methods").glob("*.md"))
page_by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def commands(page):
    """The indented lines that start with ``scanlearn``, with their continuations."""
    text = re.sub(r"\\\n\s+", " ", page.read_text())
    lines = re.findall(r"^    .*?(?:-m scanlearn\.cli|\bscanlearn) ((?:[a-z-]+) .*)$", text, flags=re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


def builds(recipe):
    """Views, network and objectives take the settings of the recipe."""
    ViewGraph(recipe.views)
    if "words" in recipe.objectives:
        recipe.objectives["words"].setdefault("classes", 44)  # what a table of words would say
    if "segment" in recipe.objectives:
        recipe.objectives["segment"].setdefault("classes", 3)  # what a store with masks would say
    with torch.device("meta"):
        build_learner(recipe, seed=0, world_size=1)


@page_by_page
def test_every_test_that_is_named_exists(page):
    for file, function in re.findall(r"`(test_\w+\.py)::(test_\w+)`", page.read_text()):
        found = [path for path in (ROOT / "tests").rglob(file) if f"def {function}(" in path.read_text()]
        assert found, f"{file}::{function}"


@page_by_page
def test_every_command_has_the_options_it_uses(page):
    for verb, *arguments in commands(page):
        _, options, settings = parse([verb, *arguments])
        recipe = options.get("recipe") or f"finetune_{options.get('task')}"
        if verb in TAKES_SETTINGS and recipe in recipe_names():
            builds(load_recipe(recipe, settings))


@pytest.mark.parametrize("page", METHODS, ids=lambda page: page.stem)
def test_settings_quoted_in_the_tables_of_a_method_are_settings_of_its_recipes(page):
    recipe = {
        "momentum_contrast": "moco_v2",
        "c2l": "c2l_resnet18",
        "few_shot": "chen2021_covid_ct",
        "prototypes": "prototypes",
        "models_genesis": "models_genesis_3d",
        "semantic_genesis": "semantic_genesis_3d",
        "baselines": "inpainting_semantics_3d",
        "targets": "target_ncs",
        "dira": "dira_moco_2d",
        "sscpcseg": "encdec",
    }[page.stem]
    quoted = re.findall(
        r"`(--(?!task|split|size '\[512|window)[^`]+)`", page.read_text().replace("queue_size N/4", "queue_size 4")
    )
    changed = 0
    for text in quoted:
        words = shlex.split(text)
        if len(words) > 1:
            rest, settings = split_settings(words)
            assert not rest, text
            builds(load_recipe(recipe, settings))
            changed += 1
    assert changed >= 3


@page_by_page
def test_recipes_in_yaml_are_recipes(page):
    for text in re.findall(r"```yaml\n(.*?)```", page.read_text(), flags=re.DOTALL):
        builds(parse_recipe(with_base(yaml.safe_load(text))))


@page_by_page
def test_links_lead_somewhere_and_no_path_is_absolute(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("https://") or (page.parent / target).exists(), target
    assert not re.search(r"(?<![\w./-])/(?:home|tmp|work|root|Users)/", text)


def test_every_recipe_of_a_method_is_on_its_page_and_every_page_in_the_index():
    written = "\n".join(page.read_text() for page in METHODS)
    assert [name for name in recipe_names() if f"`{name}`" not in written and not name.startswith("finetune")] == []
    index = (ROOT / "docs" / "README.md").read_text()
    assert [page.stem for page in PAGES if page.name != "README.md" and page.name not in index] == []


@page_by_page
def test_lines_are_short_and_a_how_to_has_at_most_sixty(page):
    lines = page.read_text().splitlines()
    assert len(lines) <= 60 or page.parent.name != "how-to"
    assert [line for line in lines if len(line) > 120 and not line.startswith("|")] == []
