import pytest
import yaml

from scanlearn.errors import ScanlearnError
from scanlearn.study.plan import load_plan, minutes

WORDS = {
    "store": "stores/chest",
    "task": "classify",
    "target": "label",
    "methods": {
        "scratch": None,
        "moco_v2_small": None,
        "moco_frozen": {"like": "moco_v2_small", "mode": "frozen"},
        "genesis": {"recipe": "models_genesis_2d_small", "pretraining": {"optimizer.lr": 0.0003}},
    },
    "labels": [50, "all"],
}


def words(**changes):
    return {**WORDS, **changes}


def test_a_method_is_a_recipe_by_its_name_or_with_changes():
    plan = load_plan(WORDS)
    assert plan.methods["scratch"].from_scratch
    assert plan.methods["moco_v2_small"].recipe == "moco_v2_small"
    assert plan.methods["genesis"].pretraining == {"optimizer.lr": 0.0003}
    assert plan.methods["moco_frozen"].recipe == "moco_v2_small" and plan.methods["moco_frozen"].mode == "frozen"


def test_the_command_line_may_name_methods_as_a_list():
    plan = load_plan(words(methods=["scratch", "moco_v2_small"]))
    assert list(plan.methods) == ["scratch", "moco_v2_small"]


def test_a_saved_plan_reads_back_equal_and_says_only_what_was_written(tmp_path):
    plan = load_plan(WORDS)
    plan.save(tmp_path / "study.yaml")
    assert load_plan(tmp_path / "study.yaml") == plan
    assert yaml.safe_load((tmp_path / "study.yaml").read_text())["methods"] == {
        **WORDS["methods"],
        "moco_v2_small": {"recipe": "moco_v2_small"},
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "clasify"}, "no task 'clasify'; did you mean 'classify'"),
        ({"target": None}, "needs the label column"),
        ({"methods": ["scratch"]}, "at least two methods"),
        ({"methods": ["scratch", "moco_v3_small"]}, "no recipe 'moco_v3_small'; did you mean 'moco_v2_small'"),
        ({"methods": ["scratch", "../moco"]}, "cannot be a folder's name"),
        ({"methods": {"scratch": None, "a": {"like": "b"}}}, "no method 'b'"),
        ({"methods": {"scratch": {"mode": "frozen"}, "moco_v2_small": None}}, "starts from scratch"),
        ({"methods": {"scratch": None, "moco_v2_small": {"modes": "full"}}}, "did you mean 'mode'"),
        ({"labels": [0]}, "whole numbers above 0"),
        ({"labels": ["many"]}, "whole numbers above 0"),
        ({"labels": []}, "labels is empty"),
        ({"seeds": 0}, "must be 1 or more"),
        ({"sedes": 5}, "did you mean 'seeds'"),
        ({"budget": "soon"}, "such as 90m"),
        ({"pretraining_steps": 5, "pretraining_minutes": 5.0}, "not both"),
    ],
)
def test_mistakes_are_refused_in_a_sentence(changes, message):
    with pytest.raises(ScanlearnError, match=message):
        load_plan(words(**changes))


def test_times():
    assert [minutes(t) for t in ("90m", "1.5h", "2d", "30")] == [90, 90, 2880, 30]
