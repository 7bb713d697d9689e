"""Published weights: every tensor is accounted for, or the file is refused by name."""

import json
from collections import OrderedDict

import h5py
import numpy as np
import pytest
import torch
from runs import volume_store
from safetensors.torch import save_file

from networks.names import genesis_nnunet, genesis_unet
from scanlearn.errors import ScanlearnError
from scanlearn.networks.network import build_network
from scanlearn.scans.intensity import to_unit
from scanlearn.scans.loader import Loader
from scanlearn.weights import statistics
from scanlearn.weights.encoder import load_network, read_card
from scanlearn.weights.layouts import import_weights
from scanlearn.weights.layouts.account import plain_names
from scanlearn.weights.layouts.layout import LAYOUTS
from weights import published

LAYOUT_TENSORS = {
    "genesis": (published.genesis, 106, 0),
    "semantic_genesis": (published.semantic, 115, 9),
    "transvw": (lambda: published.semantic(words=7), 115, 9),
    "genesis_nnunet": (published.nnunet, 98, 4),
}
TORCH = pytest.mark.parametrize("layout", LAYOUT_TENSORS)
PARTS = {
    "epoch": 12,
    "optimizer_state_dict": {"state": {0: {"exp_avg": torch.rand(3)}}, "param_groups": [{"lr": 0.001}]},
    "num_epoch_no_improvement": 3,
    "best_loss": np.float64(0.25),
    "best_acc": np.float64(0.5),
}


def checkpoint(folder, tensors, prefix="module.", old=False, **parts):
    """A file as the authors' code writes it."""
    file = folder / "published.pt"
    content = {**parts, "state_dict": OrderedDict((prefix + name, tensor) for name, tensor in tensors.items())}
    torch.save(content, file, _use_new_zipfile_serialization=not old)
    return file


def arrays_file(folder, arrays):
    file = folder / "published.h5"
    with h5py.File(file, "w") as opened:
        for path, array in arrays.items():
            opened[path] = array
    return file


# ---------------------------------------------------------------- golden lists


@pytest.mark.parametrize(
    "made, names, count",
    [
        (published.genesis(32), genesis_unet(), 106),
        (published.nnunet(32, 320), genesis_nnunet(), 98),
    ],
    ids=["genesis", "nnunet"],
)
def test_the_state_dicts_of_these_tests_are_those_of_the_published_key_lists(made, names, count):
    assert [(name, tuple(t.shape)) for name, t in made.items()] == names and len(names) == count


def test_parameters_are_those_of_the_published_files():
    counts = {"genesis": 19_073_665, "semantic_genesis": 33_277_613, "genesis_nnunet": 30_785_184}
    made = {
        "genesis": published.genesis(32),
        "semantic_genesis": published.semantic(44, 32),
        "genesis_nnunet": published.nnunet(32, 320),
    }
    for layout, count in counts.items():
        buffers = ("running_mean", "running_var", "num_batches_tracked")
        assert sum(t.numel() for name, t in made[layout].items() if not name.endswith(buffers)) == count
    encoder_and_head = published.semantic(44, 32, decoder=False)
    assert len(encoder_and_head) == 65
    assert sum(t.numel() for n, t in encoder_and_head.items() if not n.endswith(buffers)) == 21_231_724
    keras = published.keras(width=32)
    assert sum(a.size for path, a in keras.items() if "moving" not in path) == 16_320_257


# ---------------------------------------------------------------- what is imported


@TORCH
@pytest.mark.parametrize(
    "prefix", ["", "module.", "classficationNet.", "module.classficationNet.", "base_model.model."]
)
def test_every_tensor_is_accounted_for_and_lies_where_it_belongs(tmp_path, capsys, layout, prefix):
    make, whole, aside = LAYOUT_TENSORS[layout]
    tensors = make()
    account = import_weights(checkpoint(tmp_path, tensors, prefix, **PARTS), layout, tmp_path / "out")
    assert account.facts()["tensors"] == whole == len(tensors)
    assert (len(account.taken), len(account.aside)) == (whole - aside, aside)
    assert account.beside == list(PARTS) and "".join(account.prefixes) == prefix
    ours = load_network(tmp_path / "out").published_state_dict()
    assert list(set(tensors) - set(ours)) != [] or aside == 0
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in ours.items())
    said = " ".join(capsys.readouterr().err.split())
    assert f"All {whole} tensors of published.pt" in said and "best_acc" in said


def test_without_a_decoder_the_encoder_and_the_head_are_taken_for_what_they_are(tmp_path):
    file = checkpoint(tmp_path, published.semantic(decoder=False), **PARTS)
    account = import_weights(file, "semantic_genesis", tmp_path / "out")
    assert account.facts()["tensors"] == 65 and len(account.taken) == 56
    assert load_network(tmp_path / "out").decoder is None


@pytest.mark.parametrize("words", [44, 50])
def test_the_number_of_words_is_read_from_the_head(tmp_path, capsys, words):
    import_weights(checkpoint(tmp_path, published.semantic(words)), "semantic_genesis", tmp_path / "out")
    assert read_card(tmp_path / "out")["notes"]["words"] == words
    assert f"head for {words} words" in capsys.readouterr().err


def test_the_old_format_bare_tensors_and_safetensors_are_read_alike(tmp_path):
    tensors = published.genesis()
    files = [checkpoint(tmp_path, tensors, old=True, **PARTS).rename(tmp_path / "old.pt"), tmp_path / "bare.pt"]
    torch.save(tensors, files[1])
    save_file(tensors, tmp_path / "plain.safetensors")
    files += [tmp_path / "plain.safetensors"]
    for file in files:
        import_weights(file, "genesis", tmp_path / file.stem)
        ours = load_network(tmp_path / file.stem).published_state_dict()
        assert all(torch.equal(ours[name], tensor) for name, tensor in tensors.items())


def test_counters_of_batches_may_be_missing_and_that_is_said(tmp_path, capsys):
    tensors = {name: t for name, t in published.semantic().items() if not name.endswith("tracked")}
    account = import_weights(checkpoint(tmp_path, tensors), "semantic_genesis", tmp_path / "out")
    assert account.facts()["tensors"] == 115 - 15 and account.uncounted == 14
    assert "as the file lacks them: 14 counters" in capsys.readouterr().err


def test_heads_of_other_objectives_are_dropped_and_named(tmp_path, capsys):
    other = {"projection_head.0.weight": torch.rand(4, 4), "prototypes.weight": torch.rand(2)}
    file = checkpoint(tmp_path, {**{f"model.{n}": t for n, t in published.genesis().items()}, **other})
    account = import_weights(file, "genesis", tmp_path / "out")
    assert account.dropped == ["module.projection_head.0.weight", "module.prototypes.weight"]
    assert account.facts()["tensors"] == 108 and "module.prototypes.weight" in capsys.readouterr().err


def test_a_prefix_is_taken_from_the_front_only_and_again_and_again():
    names = ["module.model.module.a.module.b", "module.model.module.c.model.d", "module.model.module.e"]
    plain, prefixes, foreign = plain_names(names)
    assert list(plain.values()) == ["a.module.b", "c.model.d", "e"]
    assert prefixes == ["module.", "model.", "module."] and not foreign
    assert plain_names(["a.module.b", "c"])[0] == {"a.module.b": "a.module.b", "c": "c"}


# ---------------------------------------------------------------- what is refused


@TORCH
@pytest.mark.parametrize("change", ["missing", "extra", "misshapen"])
def test_a_missing_an_extra_and_a_misshapen_tensor_are_refused_by_name_wherever_they_are(tmp_path, layout, change):
    make, _, _ = LAYOUT_TENSORS[layout]
    names = [name for name in make() if not name.endswith("tracked")]
    for name in {names[0], names[1], names[len(names) // 2], names[-2], names[-1]}:
        tensors = make()
        there = "x".join(map(str, tensors[name].shape))
        words = {"missing": rf"'{name}' is missing \({there}\)", "extra": rf"'{name}\.more' \(3\) is none"}
        if change == "missing":
            del tensors[name]
        elif change == "extra":
            tensors[f"{name}.more"] = torch.rand(3)
        else:
            tensors[name] = torch.rand(*tensors[name].shape[:-1], tensors[name].shape[-1] + 1)
            wrong = "x".join(map(str, tensors[name].shape))
            words["misshapen"] = rf"'{name}' is {wrong} where {there} is needed"
        with pytest.raises(ScanlearnError, match=rf"is refused: .*{words[change]}") as told:
            import_weights(checkpoint(tmp_path, tensors), layout, tmp_path / "out")
        assert not (tmp_path / "out").exists() and len(str(told.value)) < 900


@pytest.mark.parametrize("name", LAYOUTS.names())
def test_a_file_of_which_nothing_fits_is_never_a_success(tmp_path, name):
    with pytest.raises(ScanlearnError, match=r"not one of its 2 tensors fits \(first are fc\.weight, fc\.bias\)"):
        import_weights(
            checkpoint(tmp_path, {"fc.weight": torch.rand(3, 3), "fc.bias": torch.rand(3)}), name, tmp_path / "out"
        )


@pytest.mark.parametrize("name", ["genesis", "genesis_keras", "genesis_nnunet"])
def test_a_file_without_a_tensor_is_refused(tmp_path, name):
    with pytest.raises(ScanlearnError, match="not one of its 0 tensors fits"):
        import_weights(checkpoint(tmp_path, {}), name, tmp_path / "out")


@pytest.mark.parametrize("made, tried", [("genesis", "transvw"), ("semantic_genesis", "genesis")])
def test_the_layout_that_a_file_has_is_named(tmp_path, made, tried):
    with pytest.raises(ScanlearnError, match=rf"try --layout {made}"):
        import_weights(checkpoint(tmp_path, LAYOUT_TENSORS[made][0]()), tried, tmp_path / "out")


def test_a_name_with_and_without_prefix_is_refused(tmp_path):
    tensors = published.genesis()
    tensors |= {f"module.{name}": tensor.clone() for name, tensor in tensors.items()}
    tensors["module.x"] = torch.rand(1)  # so that most of them have the prefix
    with pytest.raises(ScanlearnError, match=r"'down_tr64\.ops\.0\.conv1\.weight' twice"):
        import_weights(checkpoint(tmp_path, tensors, prefix=""), "genesis", tmp_path / "out")


@pytest.mark.parametrize(
    "value, words", [(float("nan"), "no trained network has"), (float("inf"), "no trained network")]
)
def test_values_that_are_not_finite_are_refused_by_name(tmp_path, value, words):
    tensors = published.genesis()
    tensors["up_tr128.ops.1.bn1.bias"][0] = value
    with pytest.raises(ScanlearnError, match=f"'up_tr128.ops.1.bn1.bias' in .* {words}"):
        import_weights(checkpoint(tmp_path, tensors), "genesis", tmp_path / "out")


def test_a_folder_in_use_and_unknown_words_are_refused(tmp_path):
    file = checkpoint(tmp_path, published.genesis())
    with pytest.raises(ScanlearnError, match="not empty: choose another --out"):
        import_weights(file, "genesis", tmp_path)
    with pytest.raises(ScanlearnError, match="did you mean 'genesis'"):
        import_weights(file, "gensis", tmp_path / "out")
    with pytest.raises(ScanlearnError, match="did you mean 'always'"):
        import_weights(file, "genesis", tmp_path / "out", batch_stats="alway")
    with pytest.raises(ScanlearnError, match="No such file"):
        import_weights(tmp_path / "nothing.pt", "genesis", tmp_path / "out")


# ---------------------------------------------------------------- what it is good for


def plain_unet(tensors, x, eps, upsample):
    """The published network with its tensors by name, statistics of the file."""
    from torch.nn import functional

    def units(x, stem):
        for index in (0, 1):
            unit = f"{stem}.ops.{index}"
            x = functional.conv3d(x, tensors[f"{unit}.conv1.weight"], tensors[f"{unit}.conv1.bias"], padding=1)
            norm = [tensors[f"{unit}.bn1.{n}"] for n in ("running_mean", "running_var", "weight", "bias")]
            x = functional.batch_norm(x, *norm, eps=eps).relu()
        return x

    maps = []
    for stem in ("down_tr64", "down_tr128", "down_tr256", "down_tr512"):
        x = units(functional.max_pool3d(x, 2) if maps else x, stem)
        maps.append(x)
    for stem, skip in zip(("up_tr256", "up_tr128", "up_tr64"), maps[-2::-1], strict=True):
        x = units(torch.cat([upsample(x, stem), skip], 1), stem)
    return functional.conv3d(x, tensors["out_tr.final_conv.weight"], tensors["out_tr.final_conv.bias"])


def test_the_imported_network_computes_what_the_published_one_does(tmp_path):
    tensors = published.genesis()
    import_weights(checkpoint(tmp_path, tensors), "genesis", tmp_path / "out")
    x = torch.rand(2, 1, 16, 16, 8)
    transposed = lambda x, stem: torch.nn.functional.conv_transpose3d(  # noqa: E731
        x, tensors[f"{stem}.up_conv.weight"], tensors[f"{stem}.up_conv.bias"], stride=2
    )
    expected = plain_unet(tensors, x, 1e-5, transposed)
    assert torch.allclose(load_network(tmp_path / "out").eval().restored(x), expected, rtol=1e-4)


@pytest.mark.parametrize("last", ["final_conv", "conv3d_1"])
@pytest.mark.parametrize("words", [None, 5])
@pytest.mark.parametrize("folder", ["", "model_weights/"])
def test_keras_files_are_turned_into_the_network_that_they_are(tmp_path, last, words, folder):
    arrays = published.keras(words, last=last)
    account = import_weights(
        arrays_file(tmp_path, {folder + path: a for path, a in arrays.items()}), "genesis_keras", tmp_path / "out"
    )
    assert account.facts()["tensors"] == len(arrays) == (86 if words is None else 96) and len(account.taken) == 86

    def array(layer, weight):
        return torch.from_numpy(arrays[f"{layer}/{layer}/{weight}:0"])

    tensors = {}
    stems = ("down_tr64", "down_tr128", "down_tr256", "down_tr512", "up_tr256", "up_tr128", "up_tr64")
    for number in range(14):
        unit = f"{stems[number // 2]}.ops.{number % 2}"
        kernel = array(f"depth_{number}_conv", "kernel")
        weight = torch.empty(kernel.shape[4], kernel.shape[3], 3, 3, 3)
        for o in range(weight.shape[0]):
            for i in range(weight.shape[1]):
                weight[o, i] = kernel[:, :, :, i, o]
        tensors[f"{unit}.conv1.weight"], tensors[f"{unit}.conv1.bias"] = weight, array(f"depth_{number}_conv", "bias")
        names = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
        tensors |= {f"{unit}.bn1.{ours}": array(f"depth_{number}_bn", theirs) for ours, theirs in names.items()}
    tensors["out_tr.final_conv.weight"] = array(last, "kernel").permute(4, 3, 0, 1, 2)
    tensors["out_tr.final_conv.bias"] = array(last, "bias")
    x = torch.rand(1, 1, 8, 16, 8)
    nearest = lambda x, _: x.repeat_interleave(2, 2).repeat_interleave(2, 3).repeat_interleave(2, 4)  # noqa: E731
    network = load_network(tmp_path / "out").eval()
    assert torch.allclose(network.restored(x), plain_unet(tensors, x, 1e-3, nearest), rtol=1e-4)


@pytest.mark.parametrize("change", ["missing", "extra", "misshapen"])
def test_arrays_of_keras_are_refused_by_name_too(tmp_path, change):
    for path in ("depth_0_conv/depth_0_conv/kernel:0", "depth_9_bn/depth_9_bn/gamma:0", "cls_fc/cls_fc/bias:0"):
        arrays = published.keras(5)
        name = path.split("/")[0] + "/" + path.split("/")[-1].removesuffix(":0")
        if change == "missing":
            del arrays[path]
        elif change == "extra":
            arrays[path.replace("depth_", "depth_2").replace("cls_fc", "cls_3")] = np.zeros(2, np.float32)
            name = name.replace("depth_", "depth_2").replace("cls_fc", "cls_3")
        else:
            arrays[path] = np.zeros((*arrays[path].shape[:-1], 9), np.float32)
        with pytest.raises(ScanlearnError, match=f"is refused: .*'{name}'"):
            import_weights(arrays_file(tmp_path, arrays), "genesis_keras", tmp_path / "out")


def test_the_nnunet_file_sees_hounsfield_units_as_it_was_trained(tmp_path):
    import_weights(checkpoint(tmp_path, published.nnunet()), "genesis_nnunet", tmp_path / "out")
    encoder = load_network(tmp_path / "out").encoder
    x = torch.rand(1, 1, 8, 8, 8)
    assert torch.allclose(encoder.prepared(x), ((x * 2000 - 1000) + 775.8457) / 251.9326, atol=1e-5)
    assert encoder.strides == [1, 2, 4, 8, 16, 32]
    assert [m.shape[2:] for m in encoder(torch.rand(1, 1, 32, 32, 32))][-1] == (2, 1, 1)


def test_always_normalises_by_the_batch_in_evaluation_and_running_does_not(tmp_path):
    file, x = checkpoint(tmp_path, published.genesis()), torch.rand(2, 1, 16, 16, 8)
    outputs = {}
    for choice in ("running", "always"):
        import_weights(file, "genesis", tmp_path / choice, batch_stats=choice)
        network = load_network(tmp_path / choice)
        trained = build_network(network.describe()).train()
        trained.load_state_dict(network.state_dict())
        outputs[choice] = torch.allclose(network.eval().restored(x), trained.restored(x), rtol=1e-4)
        assert read_card(tmp_path / choice)["notes"]["batch_stats"] == choice
    assert outputs == {"running": False, "always": True}
    with pytest.raises(ScanlearnError, match="does not know batch_stats 'always'"):
        import_weights(
            checkpoint(tmp_path, published.nnunet()), "genesis_nnunet", tmp_path / "out", batch_stats="always"
        )


def test_running_statistics_are_estimated_on_the_training_scans_of_a_store(tmp_path, monkeypatch):
    monkeypatch.setattr(statistics, "BATCHES", 2)
    store = volume_store(tmp_path)
    file = checkpoint(tmp_path, published.genesis())
    import_weights(file, "genesis", tmp_path / "plain")
    import_weights(file, "genesis", tmp_path / "anew", store=store.path)
    plain, anew = (load_network(tmp_path / name).state_dict() for name in ("plain", "anew"))
    for name in plain:
        assert torch.equal(plain[name], anew[name]) != ("running" in name or name.endswith("tracked")), name
    notes = read_card(tmp_path / "anew")["notes"]
    assert notes["batch_stats"] == "estimated" and notes["statistics_from"] == store.info["key"]


def test_estimated_statistics_are_the_means_over_batches_and_leave_the_network_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(statistics, "BATCHES", 3)
    store, size = volume_store(tmp_path), (16, 16, 8)
    network = build_network({"encoder": {"name": "unet", "width": 2}, "decoder": "unet"}).eval()
    statistics.estimate_statistics(network, store, size)
    # The first batch norm sees one convolution of the patches.
    seen = []
    for batch in Loader(store, store.splits["train"], batch_size=statistics.BATCH_SIZE, size=size, seed=0, stop=3):
        x = to_unit(batch["image"], batch["low"], batch["high"])
        seen.append(network.encoder.down_tr64.ops[0].conv1(x).transpose(0, 1).flatten(1).double())
    norm = network.encoder.down_tr64.ops[0].bn1
    assert torch.allclose(norm.running_mean.double(), torch.stack([x.mean(1) for x in seen]).mean(0), rtol=1e-4)
    assert torch.allclose(norm.running_var.double(), torch.stack([x.var(1) for x in seen]).mean(0), rtol=1e-4)
    assert not any(part.training for part in network.modules()) and norm.momentum == 0.1
    for other in (
        {"encoder": {"name": "nnunet", "width": 2}},
        {"encoder": {"name": "unet", "always_batch_stats": True}},
    ):
        with pytest.raises(ScanlearnError, match="nothing to estimate"):
            statistics.estimate_statistics(build_network(other), store, size)
    with pytest.raises(ScanlearnError, match="for 2D scans, the store store holds 3D ones"):
        statistics.estimate_statistics(build_network({"encoder": {"name": "unet", "spatial_dims": 2}}), store, size)


def test_the_card_holds_the_terms_the_window_and_the_account(tmp_path, capsys):
    file = checkpoint(tmp_path, published.genesis(), **PARTS)
    import_weights(file, "genesis", tmp_path / "out")
    card = json.loads((tmp_path / "out" / "encoder.json").read_text())["notes"]
    assert "non-commercial" in card["licence_notice"] and "US 11,763,952" in card["licence_notice"]
    assert card["licence_notice"] in capsys.readouterr().err.replace("\n", " ").replace("  ", " ")
    assert (card["input_size"], card["window"]) == ([64, 64, 32], [-1000, 1000])
    assert card["imported"]["taken"] == card["imported"]["tensors"] == 106
    assert card["imported"]["beside"] == list(PARTS) and card["imported"]["file"] == "published.pt"
