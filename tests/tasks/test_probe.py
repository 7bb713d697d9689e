import json

import numpy as np
import pytest
from runs import image_store

from engine.test_leaks import a_run
from scanlearn.cli import main
from scanlearn.engine.run_folder import RunFolder
from scanlearn.errors import ScanlearnError
from scanlearn.networks.network import build_network
from scanlearn.tasks.probe import probe
from scanlearn.weights.encoder import save_network


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(store, run that was trained on its train part, run that was trained on all of it)."""
    folder = tmp_path_factory.mktemp("probe")
    store = image_store(folder, count=90)
    network = build_network({"encoder": {"name": "resnet18", "spatial_dims": 2, "width": 4}})
    runs = []
    for name, rows in (("clean", store.splits["train"]), ("greedy", np.arange(len(store)))):
        run = a_run(folder / name, store, rows)
        save_network(network, RunFolder(run).encoder, input_size=[24, 24])
        runs.append(run)
    return store, *runs


def test_a_test_part_that_was_trained_on_is_not_probed(trained):
    store, clean, greedy = trained
    with pytest.raises(ScanlearnError, match="of the test part were in the pre-training of greedy"):
        probe(greedy, store, part="test")
    done = probe(clean, store, part="test")["checked"]["done"]
    assert "The test part was compared with the pre-training of clean by identical files and patients." in done


def test_probing_what_was_trained_on_is_told_and_names_nobody(trained, capsys):
    store, clean, _ = trained
    count = store.catalog.count_patients(store.splits["train"])
    assert main(["probe", str(clean), str(store.path), "--target", "label"]) == 0
    out = capsys.readouterr().out
    assert f"{count} patients and {len(store.splits['train'])} files of the train part were in the pre-training" in out
    assert not any(patient in out for patient in set(store.catalog.patients.tolist()))
    told = json.dumps(probe(clean, store, part="all", target="label")["checked"])
    assert "files of the store were in the pre-training of clean: what it knows of them says nothing of others" in told


def test_weights_without_a_record_are_told_as_not_checked(trained, tmp_path):
    store, clean, _ = trained
    file = RunFolder(clean).encoder
    (tmp_path / "copy").mkdir()
    for path in file.iterdir():
        (tmp_path / "copy" / path.name).write_bytes(path.read_bytes())
    told = probe(tmp_path / "copy", store, part="test", target="label")["checked"]["open"]
    assert any("has no record of what it was trained on" in text for text in told)
