import json

import numpy as np
import pytest
from PIL import Image

from scanlearn.catalog.split_file import read_split, split_hash, write_split
from scanlearn.catalog.table import Catalog
from scanlearn.cli import main
from scanlearn.errors import ScanlearnError
from scanlearn.scans.prepare import prepare


def catalog_of(*files):
    digests = [f"{file:064x}" for file in files]
    return Catalog.from_columns({"scan_id": [f"s{n}" for n in range(len(files))], "sha256": digests})


PARTS = {"train": np.array([0, 1]), "val": np.array([], np.int64), "test": np.array([2])}


def test_a_split_is_read_as_it_was_written_and_its_hash_is_that_of_its_parts(tmp_path):
    code = write_split(tmp_path / "a.json", catalog_of(7, 8, 9), PARTS, seed=3)
    again = write_split(tmp_path / "b.json", catalog_of(9, 8, 7), {"test": [0], "train": [2, 1]}, seed=4)
    parts, told = read_split(tmp_path / "a.json")
    assert code == told == again == split_hash(parts)
    assert parts == {"train": [f"{7:064x}", f"{8:064x}"], "test": [f"{9:064x}"]}
    assert code != write_split(tmp_path / "c.json", catalog_of(7, 8, 9), {"train": [0], "test": [1, 2]})
    assert json.loads((tmp_path / "a.json").read_text())["made"] == {"seed": 3}


def test_a_changed_file_another_file_and_a_split_that_leaks_are_refused(tmp_path):
    path = tmp_path / "a.json"
    write_split(path, catalog_of(7, 8, 9), PARTS)
    path.write_text(path.read_text().replace(f"{7:064x}", f"{6:064x}"))
    with pytest.raises(ScanlearnError, match="was changed since"):
        read_split(path)
    for text in ("{}", '{"kind": "scanlearn split", "parts": {"train": [1]}}', '{"parts": {"train": []}}'):
        path.write_text(text)
        with pytest.raises(ScanlearnError, match="is no split"):
            read_split(path)
    with pytest.raises(ScanlearnError, match="There is no split"):
        read_split(tmp_path / "none.json")
    with pytest.raises(ScanlearnError, match="in two parts"):
        write_split(path, catalog_of(7, 8, 7), PARTS)
    with pytest.raises(ScanlearnError, match="not hashed"):
        write_split(path, Catalog.from_columns({"scan_id": ["a", "b", "c"]}), PARTS)


def pictures(folder, numbers, name):
    """An image for each number, of a patient each, called as ``name`` says."""
    for n in numbers:
        (folder / name(n)).parent.mkdir(parents=True, exist_ok=True)
        image = np.random.default_rng(n).integers(0, 256, (16, 16), np.uint8)
        Image.fromarray(image).save(folder / name(n))
    return folder


def test_another_group_prepares_the_same_split_from_files_of_other_names(tmp_path, capsys):
    ours = pictures(tmp_path / "ours", range(12), lambda n: f"p{n}/x.png")
    store = prepare(ours, tmp_path / "store", patient="folder", workers=0, seed=5)
    assert main(["catalog", "split", str(store.path), "--out", str(tmp_path / "split.json")]) == 0
    text = (tmp_path / "split.json").read_text()
    assert not any(name in text for name in [*store.catalog.patients.tolist(), *store.catalog.column("scan_id")])
    theirs = pictures(tmp_path / "theirs", range(1, 14), lambda n: f"q{n * 5 % 14}/y.png")
    capsys.readouterr()
    other = prepare(theirs, tmp_path / "other", patient="folder", workers=0, split=str(tmp_path / "split.json"))
    said = capsys.readouterr().err
    assert "1 of " in said and "of the split are not here" in said and "2 of 13 scans are in no part" in said

    def files(of, name):
        return set(of.catalog.array("sha256", of.splits[name]).to_pylist())

    assert len(other) == 11
    assert all(files(other, name) <= files(store, name) for name in ("train", "val", "test"))
    code = read_split(tmp_path / "split.json")[1]
    assert other.info["settings"]["split_file"] == code
    with pytest.raises(ScanlearnError, match="None of the 1 scans is in the split"):
        strangers = pictures(tmp_path / "strangers", [99], lambda n: f"z{n}.png")
        prepare(strangers, tmp_path / "third", workers=0, split=str(tmp_path / "split.json"))
