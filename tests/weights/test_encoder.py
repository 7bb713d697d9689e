import errno
import hashlib
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from scanlearn import files
from scanlearn.errors import ScanlearnError
from scanlearn.networks.network import build_network
from scanlearn.networks.norm import set_batch_norm
from scanlearn.weights.encoder import initialise, load_encoder, load_network, save_network, verify_export

UNET = {"name": "unet", "width": 2, "spatial_dims": 2}


def small(decoder=True, **settings):
    return build_network({"encoder": {**UNET, **settings}, "decoder": "unet" if decoder else None})


def trained(network):
    """The network with every tensor moved away from its start."""
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.1, 1.0)
            else:
                tensor.fill_(7)
    return network


def same(a, b):
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def saved(tmp_path):
    network = trained(small())
    save_network(network, tmp_path / "run" / "encoder", recipe="some", step=3)
    return network, tmp_path / "run"


def test_every_way_to_name_it_gives_the_network_back(saved):
    network, run = saved
    for path in (run, str(run), run / "encoder", run / "encoder" / "model.safetensors"):
        again = load_network(path)
        assert again.describe() == network.describe() and same(again.state_dict(), network.state_dict())
        assert same(load_encoder(path).state_dict(), network.encoder.state_dict())


def test_the_file_alone_is_enough(saved, tmp_path):
    network, run = saved
    alone = (run / "encoder" / "model.safetensors").rename(tmp_path / "alone.safetensors")
    assert same(load_network(alone).state_dict(), network.state_dict())


def test_the_card_says_what_it_is(saved):
    network, run = saved
    card = json.loads((run / "encoder" / "encoder.json").read_text())
    data = (run / "encoder" / "model.safetensors").read_bytes()
    assert card["network"] == network.describe() and card["notes"] == {"recipe": "some", "step": 3}
    assert card["tensors"] == len(network.state_dict()) == len(load_file(run / "encoder" / "model.safetensors"))
    assert card["sha256"] == hashlib.sha256(data).hexdigest()


def test_memory_format_and_split_batch_norm_do_not_matter(tmp_path):
    network = trained(set_batch_norm(small(), "split", 2)).to(memory_format=torch.channels_last)
    save_network(network, tmp_path)
    assert same(load_network(tmp_path).state_dict(), network.state_dict())
    verify_export(tmp_path, network)


def test_loading_leaves_the_random_state_alone(saved):
    network, run = saved
    fresh, before = small(), torch.get_rng_state()
    load_network(run)
    load_encoder(run)
    verify_export(run, network)
    initialise(fresh, run)
    assert torch.equal(before, torch.get_rng_state())
    small()
    assert not torch.equal(before, torch.get_rng_state())  # building does draw, so the claim is worth a test


def test_a_failed_write_leaves_the_old_files(saved, monkeypatch):
    _, run = saved
    before = {path.name: path.read_bytes() for path in (run / "encoder").iterdir()}

    def full_disk(descriptor):
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(files.os, "fsync", full_disk)
    with pytest.raises(
        ScanlearnError, match=r"model.safetensors could not be written to .*: the disk is full \(.* needed"
    ):
        save_network(trained(small()), run / "encoder")
    assert {path.name: path.read_bytes() for path in (run / "encoder").iterdir()} == before


def test_a_damaged_file_is_refused(saved):
    _, run = saved
    file = run / "encoder" / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(ScanlearnError, match="checksum differs"):
        load_network(run)
    file.write_bytes(data[:-10])
    (run / "encoder" / "encoder.json").unlink()
    with pytest.raises(ScanlearnError, match="cannot be read"):
        load_network(run)


def test_what_is_no_saved_network_is_refused(tmp_path):
    with pytest.raises(ScanlearnError, match="no saved network at"):
        load_network(tmp_path)
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ScanlearnError, match="not written by scanlearn"):
        load_network(tmp_path / "other.safetensors")


@pytest.mark.parametrize("decoder", [None, "unet", "unet_blocks"])
@pytest.mark.parametrize("encoder", [UNET, {"name": "unet", "width": 2, "in_channels": 3}])
def test_a_good_export_is_verified_and_the_network_left_as_it_was(tmp_path, encoder, decoder):
    network = trained(build_network({"encoder": encoder, "decoder": decoder}))
    network.encoder.eval()
    modes = [module.training for module in network.modules()]
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    save_network(network, tmp_path)
    verify_export(tmp_path, network)
    assert [module.training for module in network.modules()] == modes
    assert same(network.state_dict(), before)


def test_an_export_that_does_not_come_back_is_found(tmp_path, monkeypatch):
    network = small()
    save_network(network, tmp_path)
    with torch.no_grad():
        next(network.parameters()).add_(1)
    with pytest.raises(ScanlearnError, match=r"does not hold the network's tensor 'encoder\.down_tr64\.ops\.0"):
        verify_export(tmp_path, network)

    # A setting that changes the outputs but no tensor, and that the description forgets.
    network = trained(small(always_batch_stats=True))
    monkeypatch.setattr(network.encoder, "describe", lambda: dict(UNET))
    save_network(network, tmp_path)
    with pytest.raises(ScanlearnError, match="gives other values in its output 0"):
        verify_export(tmp_path, network)


def test_a_network_whose_values_overflow_is_verified_by_its_tensors(tmp_path):
    network = small()
    with torch.no_grad():
        network.encoder.down_tr512.ops[1].bn1.running_var.fill_(-1)  # the root of it is no number
    save_network(network, tmp_path)
    verify_export(tmp_path, network)
    with torch.no_grad():
        network.decoder.out_tr.final_conv.bias.add_(1)
    with pytest.raises(ScanlearnError, match=r"does not hold the network's tensor 'decoder\.out_tr"):
        verify_export(tmp_path, network)


def test_initialise_takes_the_whole_network_and_says_so(saved):
    network, run = saved
    fresh = small()
    report = initialise(fresh, run)
    assert same(fresh.state_dict(), network.state_dict())
    assert not report.reinitialised and not report.dropped
    assert str(report).startswith("Loaded 56 of 56 encoder tensors and 50 of 50 decoder tensors from ")


def test_a_decoder_with_other_outputs_is_taken_but_for_its_last_layer(saved):
    network, run = saved
    fresh = build_network({"encoder": UNET, "decoder": {"name": "unet", "out_channels": 4}})
    head = {name: t.clone() for name, t in fresh.decoder.out_tr.state_dict().items()}
    report = initialise(fresh, run)
    assert same(fresh.encoder.state_dict(), network.encoder.state_dict())
    assert torch.equal(fresh.decoder.up_tr64.ops[0].conv1.weight, network.decoder.up_tr64.ops[0].conv1.weight)
    assert same(fresh.decoder.out_tr.state_dict(), head)
    expected = ["decoder.out_tr.final_conv.weight", "decoder.out_tr.final_conv.bias"]
    assert report.reinitialised == expected and report.dropped == sorted(expected)
    assert "48 of 50 decoder tensors" in str(report)
    assert "Freshly initialised (2): decoder.out_tr.final_conv.weight (another shape)" in str(report)


def test_an_unwanted_decoder_is_dropped_and_a_missing_one_left_fresh(saved, tmp_path):
    _, run = saved
    report = initialise(small(decoder=False), run)
    assert len(report.dropped) == 50 and "and 42 more" in str(report)
    save_network(small(decoder=False), tmp_path / "encoder")
    report = initialise(small(), tmp_path)
    assert len(report.reinitialised) == 50 and "0 of 50 decoder tensors" in str(report)


def test_less_than_the_whole_encoder_is_an_error_that_names_tensors_and_changes_nothing(saved):
    _, run = saved
    fresh = small(in_channels=3)
    before = {name: tensor.clone() for name, tensor in fresh.state_dict().items()}
    with pytest.raises(ScanlearnError) as error:
        initialise(fresh, run)
    assert "does not fill 1 of the 56 tensors of the encoder 'unet'" in str(error.value)
    assert "encoder.down_tr64.ops.0.conv1.weight (2x3x3x3 here, 2x1x3x3 there)" in str(error.value)
    assert str(error.value).endswith("set the encoder as in the file: in_channels 3 (file: 1).")
    assert same(fresh.state_dict(), before)


def test_settings_that_change_no_shape_are_reported(tmp_path):
    statistics = {"mean": [0.5], "std": [0.25]}
    network = trained(small(normalise=statistics))
    save_network(network, tmp_path)
    verify_export(tmp_path, network)
    assert load_encoder(tmp_path).describe() == network.encoder.describe()
    report = initialise(small(), tmp_path)
    assert f"Set otherwise than in the file: normalise None (file: {statistics})" in str(report)
    assert "otherwise" not in str(initialise(small(normalise=statistics), tmp_path))


def test_transfer_of_the_encoder_leaves_the_decoder_fresh(saved):
    network, run = saved
    fresh = small()
    untouched = {name: tensor.clone() for name, tensor in fresh.decoder.state_dict().items()}
    report = initialise(fresh, run, "encoder")
    assert same(fresh.encoder.state_dict(), network.encoder.state_dict())
    assert same(fresh.decoder.state_dict(), untouched)
    assert len(report.reinitialised) == len(untouched) and not report.dropped
    with pytest.raises(ScanlearnError, match="did you mean 'encoder'"):
        initialise(fresh, run, "encoders")
