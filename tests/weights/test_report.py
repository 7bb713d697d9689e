import pytest
import torch

from scanlearn.errors import ScanlearnError
from scanlearn.networks.network import build_network
from scanlearn.weights.report import load_tensors


def small():
    return build_network({"encoder": {"name": "unet", "width": 2, "spatial_dims": 2}})


def test_published_names_lead_into_a_network():
    source, network = small(), small()
    names = network.published_names()
    published = {name: tensor.clone() for name, tensor in source.published_state_dict().items()}
    report = load_tensors(network, {names[name]: tensor for name, tensor in published.items()}, "a file")
    assert len(report.loaded) == 56
    assert all(torch.equal(published[name], tensor) for name, tensor in network.published_state_dict().items())


def test_old_files_may_lack_the_counters_of_batches_and_the_report_says_so():
    network = small()
    tensors = {name: t.clone() for name, t in small().state_dict().items() if not name.endswith("tracked")}
    report = load_tensors(network, tensors, "a file")
    assert len(report.reinitialised) == 8 and "48 of 56 encoder tensors" in str(report)


def test_a_missing_tensor_is_an_error():
    tensors = small().state_dict()
    del tensors["encoder.down_tr64.ops.1.bn1.running_var"]
    with pytest.raises(ScanlearnError, match=r"down_tr64\.ops\.1\.bn1\.running_var \(4 here, nothing there\)"):
        load_tensors(small(), tensors, "a file")


def test_half_precision_files_are_read_into_the_precision_of_the_network():
    network = small()
    load_tensors(network, {name: t.half() for name, t in small().state_dict().items()}, "a file")
    assert {p.dtype for p in network.parameters()} == {torch.float32}
