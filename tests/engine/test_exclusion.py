import numpy as np
import pytest
from runs import moco_recipe

from engine.test_leaks import a_run, write
from scanlearn.catalog.split_file import write_split
from scanlearn.engine.exclusion import shared_rows
from scanlearn.engine.leaks import not_seen
from scanlearn.engine.pretrain import pretrain
from scanlearn.engine.record import read_record
from scanlearn.engine.run_folder import RunFolder
from scanlearn.errors import ScanlearnError
from scanlearn.scans.prepare import prepare
from scans.test_fingerprints import jpeg75, radiograph


def rows_of(store, name):
    """Rows of the store by the number of the picture that they show."""
    return {int(seed): row for row, seed in enumerate(store.catalog.column(name))}


def a_store(folder, pictures, patients, parts=None):
    """A store of radiographs by number; one above 100 is a copy as JPEG."""
    table = ["image,patient,seed" + (",split" if parts else "")]
    for i, (n, who) in enumerate(zip(pictures, patients, strict=True)):
        write(folder / "in", f"{i}.png", radiograph(n) if n < 100 else jpeg75(radiograph(n - 100)))
        table.append(f"{i}.png,{who},{n}" + (f",{parts[i]}" if parts else ""))
    (folder / "in/table.csv").write_text("\n".join(table) + "\n")
    return prepare(folder / "in", folder / "store", size=(64, 64), workers=0)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Ours: pictures 0 to 5 of patients a to f. Theirs: a in test (another picture), 1 in val, a JPEG of 2 in test, 3 in
    train."""
    folder = tmp_path_factory.mktemp("exclusion")
    ours = a_store(folder / "ours", range(6), "abcdef")
    parts = ["test", "val", "test", "train", "train"]
    return ours, a_store(folder / "theirs", [50, 1, 102, 3, 51], "avwxy", parts)


def left_out(store, places):
    found, told = shared_rows(store, places)
    at = rows_of(store, "seed")
    return [n for n in sorted(at) if found[at[n]]], told


def test_what_a_store_tests_on_is_left_out_by_patient_file_and_looks(stores):
    ours, theirs = stores
    found, (told,) = left_out(ours, [theirs.path])
    assert found == [0, 1, 2]
    assert told.startswith("3 scans are left out that store has too (the same file 1, the same patient 1,")


def test_what_a_run_was_trained_on_is_left_out_and_what_it_tests_on_stays(stores, tmp_path):
    ours, theirs = stores
    run = a_run(tmp_path / "run", theirs, theirs.splits["train"])
    assert left_out(ours, [run])[0] == [3]


def test_the_test_part_of_a_split_file_is_left_out_by_its_files(stores, tmp_path):
    ours, theirs = stores
    write_split(tmp_path / "split.json", theirs.catalog, theirs.splits)
    assert left_out(ours, [tmp_path / "split.json"])[0] == [1]


def test_pretraining_leaves_out_what_another_store_tests_on_and_keeps_it_in_its_record(tmp_path):
    ours = a_store(tmp_path / "ours", range(8), "abcdefgh", ["train"] * 6 + ["val", "test"])
    theirs = a_store(tmp_path / "theirs", [50, 1, 102, 3], "avwx", ["test", "val", "test", "train"])
    small = moco_recipe(batch_size=2, steps=1, monitor={"every": -1})
    pretrain(ours, small, tmp_path / "run", exclude=[theirs.path])
    record = read_record(RunFolder(tmp_path / "run"))
    at = rows_of(ours, "seed")
    assert sorted(record.rows("pre-training")) == sorted(at[n] for n in (3, 4, 5))
    assert any("3 scans are left out that store has too" in text for text in record.done)
    assert not any(len(not_seen(tmp_path / "run", theirs, part).open) for part in ("val", "test"))
    with pytest.raises(ScanlearnError, match="scans"):
        pretrain(ours, small, tmp_path / "run", resume=True)  # without what was left out it is another run


def test_several_places_add_up_and_nothing_left_is_refused(stores, tmp_path):
    ours, theirs = stores
    run = a_run(tmp_path / "run", theirs, theirs.splits["train"])
    found, told = left_out(ours, [run, theirs.path])
    assert found == [0, 1, 2, 3] and len(told) == 2
    everything = a_run(tmp_path / "all", ours, np.arange(len(ours)))
    with pytest.raises(ScanlearnError, match="All 6 scans of store are left out"):
        shared_rows(ours, [everything])
