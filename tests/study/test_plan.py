import pytest
import torch
import yaml

from scanlearn.errors import ScanlearnError
from scanlearn.networks.network import build_network
from scanlearn.study.plan import load_plan, minutes
from scanlearn.study.run import bring_in

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
        ({"task": "detect", "methods": {"scratch": None, "moco_v2_small": {"mode": "frozen"}}}, "asks for mode frozen"),
        (
            {"task": "segment", "methods": {"scratch": None, "moco_v2_small": {"mode": "linear"}}},
            "asks for mode linear",
        ),
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


def test_baselines_have_one_word_and_imagenet_is_a_file_that_is_imported():
    plan = load_plan({**WORDS, "methods": {"scratch": None, "moco": None, "c2l": None, "imagenet": "resnet18.pth"}})
    methods = plan.methods
    assert methods["scratch"].from_scratch
    assert (methods["moco"].recipe, methods["c2l"].recipe) == ("moco_v2", "c2l_resnet18")
    assert (methods["imagenet"].weights, methods["imagenet"].layout) == ("resnet18.pth", "torchvision")
    with pytest.raises(ScanlearnError, match="has a layout and no file"):
        load_plan({**WORDS, "methods": {"scratch": None, "c2l": {"recipe": "c2l_small", "layout": "c2l"}}})


def test_published_files_are_imported_once_and_the_saved_plan_names_the_folder(tmp_path):
    network = build_network({"encoder": {"name": "resnet18", "in_channels": 3}}, spatial_dims=2, in_channels=3)
    tensors = {name.removeprefix("encoder."): value for name, value in network.state_dict().items()}
    tensors |= {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    torch.save(tensors, tmp_path / "resnet18.pth")
    plan = load_plan({**WORDS, "methods": {"scratch": None, "imagenet": str(tmp_path / "resnet18.pth")}})
    bring_in(plan, tmp_path / "study")
    (folder,) = (tmp_path / "study" / "imported").glob("resnet18-torchvision-*")
    assert plan.methods["imagenet"].weights == str(folder) and plan.methods["imagenet"].layout is None
    before = (folder / "model.safetensors").stat().st_mtime_ns
    again = load_plan({**WORDS, "methods": {"scratch": None, "imagenet": str(tmp_path / "resnet18.pth")}})
    bring_in(again, tmp_path / "study")
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(ScanlearnError, match="of published weights: download it"):
        bring_in(load_plan({**WORDS, "methods": {"scratch": None, "imagenet": "absent.pth"}}), tmp_path / "study")
    again.save(tmp_path / "study.yaml")
    assert load_plan(tmp_path / "study.yaml").methods == again.methods
