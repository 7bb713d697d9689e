"""Files from elsewhere, damaged and forged: each is read or refused in one sentence, and none runs code or fills memory."""

import collections
import hashlib
import json
import pickle

import pytest
import torch
from fuzz import damaged, forged, read_or_refused
from runs import moco_recipe
from safetensors.torch import save

from scanlearn.engine.checkpoint import damage, load_latest, save_checkpoint
from scanlearn.engine.device import start_fabric
from scanlearn.engine.run_folder import RunFolder
from scanlearn.errors import ScanlearnError
from scanlearn.files import parse_json, read_json
from scanlearn.networks.network import build_network
from scanlearn.study.facts import read_facts
from scanlearn.weights.encoder import load_encoder, load_network, read_card, save_network

# ---------------------------------------------------------------- weights


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    torch.manual_seed(0)
    save_network(build_network({"encoder": {"name": "unet", "width": 2, "spatial_dims": 2}}), folder, input_size=[8, 8])
    return (folder / "model.safetensors").read_bytes()


def parts(data):
    """The card and the tensors of a saved network."""
    from safetensors.torch import load

    length = int.from_bytes(data[:8], "little")
    return json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["scanlearn"]), load(data)


def write_forged(path, card, tensors):
    card.pop("digest", None)
    path.write_bytes(save(tensors, metadata={"scanlearn": json.dumps(card)}))
    return path


def test_a_damaged_network_is_never_taken_for_the_whole_one(saved, tmp_path):
    file = tmp_path / "model.safetensors"
    for data in damaged(saved, 80, seed=1):
        file.write_bytes(data)
        assert not read_or_refused(load_network, file) or data == saved
    file.write_bytes(saved)
    load_network(file)


def test_a_network_whose_description_was_forged_is_read_or_refused(saved, tmp_path):
    card, tensors = parts(saved)
    for forgery in forged(card, 60, seed=2):
        read_or_refused(load_encoder, write_forged(tmp_path / "forged.safetensors", forgery, tensors))


@pytest.mark.parametrize("width", [3, 65_536, 10**9, 2.5, "2", [2], -1, 0, True])
def test_a_description_cannot_ask_for_a_network_that_is_not_in_the_file(saved, tmp_path, width):
    card, tensors = parts(saved)
    card["network"]["encoder"]["width"] = width
    with pytest.raises(ScanlearnError, match=r"forged\.safetensors"):
        load_network(write_forged(tmp_path / "forged.safetensors", card, tensors))


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda t: t.to(torch.complex64), "which no network has"),
        (lambda t: t.to(torch.int64), "which no network has"),
        (lambda t: t.new_full(t.shape, float("nan")), "not finite"),
        (lambda t: t[..., :1].contiguous(), "not those of the network it describes"),
        (lambda t: t.flatten(), "not those of the network it describes"),
        (lambda t: t.new_zeros(0), "not those of the network it describes"),
    ],
)
def test_tensors_of_another_type_shape_or_without_sense_are_refused(saved, tmp_path, change, words):
    card, tensors = parts(saved)
    name = "encoder.down_tr64.ops.0.conv1.weight"
    with pytest.raises(ScanlearnError, match=words):
        read_card(write_forged(tmp_path / "forged.safetensors", card, {**tensors, name: change(tensors[name])}))


@pytest.mark.parametrize(
    "header",
    [
        {"a": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 2**63]}},
        {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}},
        {"a": {"dtype": "Q9", "shape": [1], "data_offsets": [0, 4]}},
        {"__metadata__": {"scanlearn": 3}},
        {"__metadata__": None},
        [],
    ],
)
@pytest.mark.parametrize("length", [None, 2**63, 2**40, 0])
def test_headers_that_lie_are_refused(tmp_path, header, length):
    text = json.dumps(header).encode()
    file = tmp_path / "lies.safetensors"
    file.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + bytes(4))
    assert not read_or_refused(load_network, file)


class Runs:
    def __reduce__(self):
        return (exec, ("raise SystemExit('the file ran its code')",))


@pytest.mark.parametrize(
    "content, words",
    [
        (
            {"model": Runs()},
            r"pickled objects whose code would run when they are opened \(builtins\.exec\)|__builtin__",
        ),
        (
            {"state_dict": collections.OrderedDict(a=torch.zeros(2))},
            "holds tensors and plain values without a description",
        ),
    ],
)
@pytest.mark.parametrize("name", ["model.pt", "model.pth", "model.ckpt", "pytorch_model.bin"])
def test_a_pickle_is_told_and_never_opened(tmp_path, content, words, name):
    torch.save(content, tmp_path / name)
    with pytest.raises(ScanlearnError, match=words) as told:
        load_network(tmp_path / name)
    assert "load_tensors" in str(told.value) and "save_network" in str(told.value)


def test_old_pickles_and_torchscript_are_refused_too(tmp_path):
    (tmp_path / "old.pt").write_bytes(pickle.dumps({"model": Runs()}))
    torch.jit.trace(torch.nn.Linear(1, 1), torch.zeros(1, 1)).save(str(tmp_path / "script.pt"))
    for name in ("old.pt", "script.pt"):
        with pytest.raises(ScanlearnError, match="cannot be looked into without running its code"):
            load_network(tmp_path / name)


# ---------------------------------------------------------------- checkpoints


class Small:
    """A learner and its optimiser, with a checkpoint of them."""

    def __init__(self, folder):
        self.folder, self.fabric = folder, start_fabric("32-true")
        torch.manual_seed(0)
        module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
        self.module, self.optimizer = module, torch.optim.Adam(module.parameters(), lr=0.1)
        module(torch.randn(4, 3)).sum().backward()
        self.optimizer.step()
        save_checkpoint(self.fabric, folder, 3, self.state())
        self.file = folder / "step_000000003.ckpt"
        self.data, self.content = self.file.read_bytes(), torch.load(self.file, weights_only=True)

    def state(self):
        return {"learner": self.module, "optimizer": self.optimizer, "step": 0}

    def load(self):
        return load_latest(self.fabric, self.folder, self.state())


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return Small(tmp_path_factory.mktemp("checkpoints"))


def test_a_damaged_checkpoint_is_refused_or_the_same(small):
    expected = hashlib.sha256(repr(small.content).encode()).hexdigest()
    for data in damaged(small.data, 60, seed=3):
        small.file.write_bytes(data)
        if read_or_refused(small.load):  # bits that mean nothing, such as the filling between records
            again = torch.load(small.file, weights_only=True)
            assert hashlib.sha256(repr(again).encode()).hexdigest() == expected
    small.file.write_bytes(small.data)
    assert small.load() == 3 and damage(small.file) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.pop("learner"),
        lambda c: c.pop("step"),
        lambda c: c.update(step=4),
        lambda c: c.update(step="3"),
        lambda c: c.update(learner=7),
        lambda c: c["learner"].update({"0.weight": torch.zeros(5, 5)}),
        lambda c: c["learner"].pop("0.weight"),
        lambda c: c["optimizer"]["state"][0].update(exp_avg=torch.zeros(9)),
        lambda c: c["optimizer"].update(param_groups=[]),
        lambda c: c.update(learner=Runs()),
    ],
)
def test_a_forged_checkpoint_is_refused(small, change):
    content = torch.load(small.file, weights_only=True)
    change(content)
    torch.save(content, small.file)
    try:
        assert not read_or_refused(small.load)
    finally:
        small.file.write_bytes(small.data)


# ---------------------------------------------------------------- JSON


def test_damaged_logs_give_what_is_whole_and_say_how_much_is_not(tmp_path, capsys):
    run = RunFolder(tmp_path)
    good = [{"step": i, "kind": "train", "loss": i / 7, "restored_std": None} for i in range(1, 9)]
    data = "".join(json.dumps(line) + "\n" for line in good).encode()
    for copy in damaged(data, 60, seed=6):
        run.metrics.write_bytes(copy)
        for line in run.read_metrics():
            assert type(line["step"]) is int and isinstance(line["kind"], str)
    strange = [b"[1]", b"{}", b'{"step": "1", "kind": "train"}', b'{"step": 1e999, "kind": "train"}', b"[" * 100_000]
    strange += [b'{"step": 1, "kind": "train", "loss": NaN}', b'{"step": 1, "kind": "train", "loss": [1]}', b"\xff\xfe"]
    strange += [b'{"step": -1, "kind": "train"}', b'{"step": 1, "kind": "monitor", "warning": 5}']
    run.metrics.write_bytes(b"\n".join([*strange, data]))
    capsys.readouterr()
    assert run.read_metrics("train") == good
    assert f"{len(strange)} of {len(strange) + 8} lines of " in capsys.readouterr().err


def test_damaged_json_of_a_run_is_read_or_refused(tmp_path):
    facts = {"seed": 3, "store": "abc", "test": {"macro": {"dice": {"value": 0.5, "low": 0.4, "high": 0.6}}}}
    moco_recipe().save(tmp_path / "recipe.yaml")
    for name in ("environment.json", "results.json", "encoder/encoder.json"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        for copy in damaged(json.dumps(facts).encode(), 30, seed=7):
            file.write_bytes(copy)
            read_or_refused(read_facts, tmp_path)
        file.unlink()


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 200 + "1" + "}" * 200,
        '{"a": NaN}',
        '{"a": 1e999}',
        "[]",
        "3",
        "",
        '{"a": ' + "9" * 9999 + "}",
    ],
)
def test_json_that_means_harm_is_refused(text):
    with pytest.raises(ScanlearnError, match=r"^The file "):
        parse_json(text, "The file")


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    with (tmp_path / "results.json").open("wb") as file:
        file.truncate(1 << 40)  # a hole: no byte of it lies on the disk
    with pytest.raises(ScanlearnError, match="is larger than"):
        read_json(tmp_path / "results.json", "The results")
