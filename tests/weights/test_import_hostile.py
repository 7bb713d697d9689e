"""Files that mean harm, or are damaged: refused in one sentence, without running their code or filling the memory."""

import collections
import pickle
import zipfile

import h5py
import numpy as np
import pytest
import torch
from fuzz import damaged, read_or_refused
from safetensors.torch import save

from scanlearn.errors import ScanlearnError
from scanlearn.weights.layouts import import_weights
from scanlearn.weights.layouts.opening import open_tensors

RAN = []


class Runs:
    def __reduce__(self):
        return (RAN.append, ("the file ran its code",))


class Calls:
    def __reduce__(self):
        return (exec, ("raise SystemExit('the file ran its code')",))


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("where", ["beside", "among"])
def test_a_pickle_with_code_is_refused_by_the_name_of_what_it_calls(tmp_path, old, where):
    tensors = {"a": torch.zeros(2)} | ({"b": Calls()} if where == "among" else {})
    content = {"state_dict": tensors, "best_loss": np.float64(1.0)} | ({"b": Calls()} if where == "beside" else {})
    torch.save(content, tmp_path / "bad.pt", _use_new_zipfile_serialization=not old)
    with pytest.raises(
        ScanlearnError, match=r"code would run when they are opened \((builtins\.)?exec\): it is not opened"
    ):
        import_weights(tmp_path / "bad.pt", "genesis", tmp_path / "out")


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_plain_pickle_runs_nothing_either(tmp_path, protocol):
    (tmp_path / "bad.pt").write_bytes(pickle.dumps({"state_dict": Runs()}, protocol=protocol))
    assert not read_or_refused(open_tensors, tmp_path / "bad.pt") and RAN == []


def test_numpy_scalars_are_read_under_the_name_of_numpy_1_too(tmp_path):
    content = {"state_dict": {"a": torch.ones(2)}, "best_loss": np.float64(0.5), "best_acc": np.float64(1)}
    torch.save(content, tmp_path / "new.pt", pickle_protocol=2)
    with zipfile.ZipFile(tmp_path / "new.pt") as new, zipfile.ZipFile(tmp_path / "old.pt", "w") as old:
        for name in new.namelist():
            old.writestr(name, new.read(name).replace(b"cnumpy._core.multiarray", b"cnumpy.core.multiarray"))
    assert b"cnumpy.core.multiarray" in (tmp_path / "old.pt").read_bytes()
    for file in ("new.pt", "old.pt"):
        opened = open_tensors(tmp_path / file)
        assert torch.equal(opened.tensors["a"], torch.ones(2)) and opened.beside == ["best_loss", "best_acc"]


@pytest.mark.parametrize(
    "content, words",
    [
        ({"state_dict": {"a": torch.zeros(1).expand(1 << 50)}}, "declared larger than the file"),
        (
            {"state_dict": {"a": torch.zeros(3).to_sparse()}},
            "'a' in .* is a tensor of torch.float32, which is no weight",
        ),
        ({"state_dict": {"a": torch.zeros(3, dtype=torch.complex64)}}, "is a tensor of torch.complex64"),
        ({"state_dict": {"a": torch.zeros(3, device="meta")}}, "which is no weight"),
        ({"state_dict": {"a": [1, 2]}}, "'a' in .* is a list"),
        ({"state_dict": {3: torch.zeros(3)}}, "holds a dict where tensors by name should be"),
        ([torch.zeros(3)], "holds a list where"),
        (torch.zeros(3), "holds a Tensor where"),
        ({"epoch": 3}, "'epoch' in .* is a int"),
        (collections.OrderedDict(), "not one of its 0 tensors"),
    ],
)
def test_what_is_no_state_dict_is_refused(tmp_path, content, words):
    torch.save(content, tmp_path / "bad.pt")
    with pytest.raises(ScanlearnError, match=words):
        import_weights(tmp_path / "bad.pt", "genesis", tmp_path / "out")


def test_a_compressed_archive_is_refused_before_it_grows(tmp_path):
    torch.save({"state_dict": {"a": torch.zeros(1 << 20)}}, tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain:
        with zipfile.ZipFile(tmp_path / "small.pt", "w", zipfile.ZIP_DEFLATED) as small:
            for name in plain.namelist():
                small.writestr(name, plain.read(name))
    with pytest.raises(ScanlearnError, match="compressed archive"):
        open_tensors(tmp_path / "small.pt")


def test_a_file_beyond_any_network_is_not_read(tmp_path):
    with (tmp_path / "large.pt").open("wb") as file:
        file.truncate(1 << 40)  # a hole: no byte of it lies on the disk
    with pytest.raises(ScanlearnError, match="larger than 17"):
        open_tensors(tmp_path / "large.pt")


@pytest.mark.parametrize("kind", ["pt", "old.pt", "safetensors", "h5"])
def test_damaged_files_are_read_or_refused(tmp_path, kind):
    good = tmp_path / f"good.{kind}"
    tensors = {f"layer{i}.weight": torch.rand(3, 4) for i in range(6)}
    if kind == "safetensors":
        good.write_bytes(save(tensors))
    elif kind == "h5":
        write_h5(good, {name.replace(".", "/"): t.numpy() for name, t in tensors.items()})
    else:
        torch.save({"state_dict": tensors, "best": np.float64(1)}, good, _use_new_zipfile_serialization=kind == "pt")
    bad = tmp_path / f"bad.{kind}"
    for data in damaged(good.read_bytes(), 100, seed=1):
        bad.write_bytes(data)
        read_or_refused(open_tensors, bad)
    assert len(open_tensors(good).tensors) == 6


# ---------------------------------------------------------------- HDF5


def write_h5(file, arrays):
    with h5py.File(file, "w") as opened:
        for path, array in arrays.items():
            opened[path] = array


def outside(file):
    write_h5(file.with_name("other.h5"), {"secret": np.zeros(3, np.float32)})


def soft(opened, file):
    opened["layer/kernel:0"] = h5py.SoftLink("/a/kernel:0")


def external(opened, file):
    outside(file)
    opened["layer/kernel:0"] = h5py.ExternalLink("other.h5", "/secret")


def external_group(opened, file):
    outside(file)
    opened["layer"] = h5py.ExternalLink(str(file.with_name("other.h5")), "/")


def external_storage(opened, file):
    (file.parent / "raw").write_bytes(bytes(12))
    opened.create_dataset("layer/kernel:0", (3,), np.float32, external=[(str(file.parent / "raw"), 0, 12)])


def virtual(opened, file):
    outside(file)
    layout = h5py.VirtualLayout((3,), np.float32)
    layout[:] = h5py.VirtualSource(str(file.with_name("other.h5")), "secret", (3,))
    opened.create_virtual_dataset("layer/kernel:0", layout)


def reference(opened, file):
    opened.create_dataset("layer/kernel:0", (1,), h5py.ref_dtype)[0] = opened["a"].ref


def text(opened, file):
    opened["layer/kernel:0"] = "not numbers"


def integers(opened, file):
    opened["layer/kernel:0"] = np.zeros(3, np.int64)


def compound(opened, file):
    opened["layer/kernel:0"] = np.zeros(2, [("a", "f4"), ("b", "f4")])


def named_type(opened, file):
    opened["layer/kernel:0"] = np.dtype("f4")


def nothing(opened, file):
    opened["layer/kernel:0"] = h5py.Empty("f4")


def huge(opened, file):
    opened.create_dataset("layer/kernel:0", (1 << 40,), np.float32)


def huge_in_chunks(opened, file):
    opened.create_dataset("layer/kernel:0", (1 << 40,), np.float32, chunks=(1024,))


def compressed(opened, file):
    opened.create_dataset("layer/kernel:0", data=np.zeros(1 << 20, np.float32), compression="gzip")


def circle(opened, file):
    opened["layer/again"] = opened.create_group("layer") if "layer" not in opened else opened["layer"]


def many(opened, file):
    for i in range(10_001):
        opened.create_group(f"layer{i}")


def twice(opened, file):
    opened["b/a/kernel:0"] = np.zeros(3, np.float32)


@pytest.mark.parametrize(
    "make, words",
    [
        (soft, "'layer/kernel:0' in .* is a link that leads elsewhere"),
        (external, "'layer/kernel:0' in .* is a link that leads elsewhere"),
        (external_group, "'layer' in .* is a link that leads elsewhere"),
        (external_storage, "keeps its values in another file"),
        (virtual, "keeps its values in another file"),
        (reference, "does not hold floating-point numbers"),
        (text, "does not hold floating-point numbers"),
        (integers, "does not hold floating-point numbers"),
        (compound, "does not hold floating-point numbers"),
        (named_type, "is no tensor"),
        (nothing, "does not hold floating-point numbers"),
        (huge, "declared larger than what is stored"),
        (huge_in_chunks, "declared larger than what is stored"),
        (compressed, "is compressed, as Keras does not do it"),
        (circle, "more objects than a file of weights"),
        (many, "more objects than a file of weights"),
        (twice, "'a/kernel' twice"),
    ],
)
def test_hdf5_that_leads_elsewhere_or_pretends_is_refused(tmp_path, make, words):
    file = tmp_path / "bad.h5"
    write_h5(file, {"a/kernel:0": np.ones(3, np.float32)})
    assert list(open_tensors(file).tensors) == ["a/kernel"]
    with h5py.File(file, "a") as opened:
        make(opened, file)
    with pytest.raises(ScanlearnError, match=words):
        open_tensors(file)


def test_the_optimiser_of_a_saved_model_is_left_aside_unread(tmp_path):
    file = tmp_path / "model.h5"
    arrays = {"model_weights/a/a/kernel:0": np.ones(3, np.float32), "optimizer_weights/Adam/iterations:0": np.int64(3)}
    write_h5(file, arrays)
    opened = open_tensors(file)
    assert list(opened.tensors) == ["a/kernel"] and opened.beside == ["optimizer_weights"]


def test_without_h5py_the_sentence_names_the_extra(tmp_path, monkeypatch):
    write_h5(tmp_path / "a.h5", {"a/kernel:0": np.ones(3, np.float32)})
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(ScanlearnError, match=r"pip install 'scanlearn\[keras\]'"):
        open_tensors(tmp_path / "a.h5")
