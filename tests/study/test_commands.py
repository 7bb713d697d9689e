import dataclasses
import shlex

import pytest

from scanlearn.cli.arguments import build_parser, split_settings
from scanlearn.engine.recipe import load_recipe
from scanlearn.study import commands
from scanlearn.study.facts import read_facts
from study.names import RUN


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"steps": 7, "optimizer.lr": 1e-5, "monitor.every": 3},
        {"objectives.momentum_contrast.temperature": 0.1, "network.encoder": {"name": "unet", "width": 4}},
        {"size": [32, 48], "schedule.milestones": [0.5, 0.75], "clip_norm": 1.0, "precision": "32-true"},
    ],
)
def test_the_command_brings_back_the_recipe_to_the_last_setting(overrides):
    saved = load_recipe("moco_v2_small", overrides)
    settings = commands.recipe_settings(saved.to_dict())
    text = commands.line("pretrain", "STORE", recipe="moco_v2_small", out="x", **settings)
    _, read = split_settings(shlex.split(text)[2:])
    assert load_recipe("moco_v2_small", read) == saved


def test_a_recipe_that_options_cannot_say_is_named_as_a_file(runs):
    facts = read_facts(runs.pretrain)
    assert commands.recipe_settings(facts.recipe) is None  # no packaged recipe of that name
    words = shlex.split(commands.repeat(facts).text)
    assert words[words.index("--recipe") + 1] == f"{RUN}/recipe.yaml"
    assert words[words.index("--out") + 1] == f"{RUN}-again"


def test_every_command_of_a_page_is_one_that_the_program_takes(runs, volumes):
    lines = []
    for run in (runs.pretrain, runs.classify, runs.segment, volumes.run):
        facts = read_facts(run)
        lines.append(commands.repeat(facts))
        lines += commands.next_steps(facts, "finding", masks=True)
        unfinished = dataclasses.replace(facts, results={}, notes={})
        lines += commands.next_steps(unfinished, None, masks=False)
        flat = dataclasses.replace(facts, monitor=[{"step": 1, "warning": "flat"}])
        lines += commands.next_steps(flat, None, masks=False)
    for command in lines:
        program, verb, *words = shlex.split(command.text)
        assert program == "scanlearn"
        rest = split_settings(words)[0] if verb in ("pretrain", "finetune") else words
        build_parser().parse_args([verb, *rest])


def test_the_twin_differs_in_its_weights_alone(runs):
    facts = read_facts(runs.classify)
    again = shlex.split(commands.repeat(facts).text)
    twin = next(shlex.split(c.text) for c in commands.next_steps(facts, None, False) if "--like" in c.text)
    for option in ("--task", "--target", "--labels", "--seed", "--recipe", "--size"):
        assert again[again.index(option) + 1] == twin[twin.index(option) + 1]
    assert twin[twin.index("--init") + 1] == "none" and twin[twin.index("--like") + 1] == RUN
