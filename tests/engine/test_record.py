import hashlib
import json
import shutil

import numpy as np
import pyarrow as pa
import pytest
from runs import image_store

from scanlearn.catalog.table import Catalog
from scanlearn.engine.record import common, digests, read_record, write_record
from scanlearn.engine.run_folder import RunFolder
from scanlearn.errors import ScanlearnError


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return image_store(tmp_path_factory.mktemp("data"))


@pytest.fixture
def run(tmp_path):
    return RunFolder(tmp_path)


def test_a_record_tells_rows_patients_and_files_of_each_part(store, run):
    parts = {"pre-training": np.array([7, 3, 4]), "test": np.array([20, 21]), "none": np.zeros(0, np.int64)}
    write_record(run, store, parts, seed=5)
    record = read_record(run)
    assert (record.store, record.name, record.seed) == (store.info["key"], "store", 5) and record.patients_known
    assert {name: record.rows(name).tolist() for name in parts} == {n: rows.tolist() for n, rows in parts.items()}
    for name, rows in parts.items():
        assert sorted(record.patients(name).to_pylist()) == sorted(set(store.catalog.patients[rows]))
        expected = {bytes.fromhex(d) for d in store.catalog.array("sha256", rows).to_pylist()}
        assert set(record.files(name).to_pylist()) == expected
    assert record.classes == {"label": ["0", "1"]} and record.shared() == (0, 0)


def test_what_two_parts_share_is_counted(store, run):
    write_record(run, store, {"a": np.arange(0, 5), "b": np.arange(4, 9), "c": np.array([8])}, seed=0)
    # Three scans a patient: a and b share patient 1 and scan 4; b and c share patient 2 and scan 8.
    assert read_record(run).shared() == (2, 2)


def test_a_record_names_no_label_of_a_scan_and_no_file(store, run):
    write_record(run, store, {"train": np.arange(24)}, seed=0)
    assert read_record(run).table.column_names == ["row", "patient_id", "sha256", "print"]


def test_a_run_without_a_record_has_none_and_a_damaged_one_is_refused(store, run):
    assert read_record(run) is None
    write_record(run, store, {"train": np.arange(24)}, seed=0)
    facts, rows = run.path / "record.json", run.path / "record.arrow"
    text, whole = facts.read_text(), rows.read_bytes()
    for wrong in ("[]", "{}", text.replace('"scans": 24', '"scans": -1'), text.replace('"scans": 24', '"scans": 23')):
        facts.write_text(wrong)
        with pytest.raises(ScanlearnError):
            read_record(run)
    facts.write_text(text)
    for damaged in (b"", whole[:300], whole[:-5]):
        rows.write_bytes(damaged)
        with pytest.raises(ScanlearnError, match=r"record.arrow .*is damaged"):
            read_record(run)
    rows.unlink()
    with pytest.raises(ScanlearnError, match=r"There is no file record\.arrow"):
        read_record(run)


def test_digests_are_the_bytes_of_the_letters():
    words = [hashlib.sha256(bytes([n])).hexdigest() for n in range(40)]
    catalog = Catalog.from_columns({"scan_id": list(map(str, range(80))), "sha256": words * 2})
    rows = np.array([79, 0, 41])
    assert digests(catalog, rows).to_pylist() == [bytes.fromhex(words[row % 40]) for row in rows]
    with pytest.raises(ScanlearnError, match="sha256 of every scan"):
        digests(catalog.with_column("sha256", [*words, *words[:-1], ""]), rows[:1] * 0 + 79)
    assert common(digests(catalog, np.array([0, 1, 2])), digests(catalog, np.array([42, 43]))) == 1


def test_the_record_of_many_rows_is_a_fraction_of_their_catalogue(store, run, tmp_path):
    count = 200_000
    ids = pa.array([f"{n:015x}" for n in range(count)])
    table = {
        name: pa.array([""]).take(pa.array(np.zeros(count, np.int32))) for name in ("dataset", "study_id", "modality")
    }
    generator = np.random.default_rng(0)
    letters = np.frombuffer(b"0123456789abcdef", np.uint8)[generator.integers(0, 16, (count, 64), np.uint8)]
    digest = pa.FixedSizeBinaryArray.from_buffers(pa.binary(64), count, [None, pa.py_buffer(letters)])
    catalog = Catalog.from_columns(
        {"scan_id": ids, "patient_id": pa.compute.utf8_slice_codeunits(ids, 0, 14), **table}
        | {"sha256": digest.cast(pa.binary()).cast(pa.string())},
        patients_known=True,
    )
    folder = tmp_path / "large"
    shutil.copytree(store.path, folder, ignore=shutil.ignore_patterns("looks.arrow", "alike.arrow"))
    catalog.save_mapped(folder / "catalog.arrow")
    (folder / "store.json").write_text(json.dumps({**store.info, "scans": count}))
    large = type(store)(folder)
    write_record(run, large, {"pre-training": np.arange(0, 140_000), "test": np.arange(140_000, count)}, seed=0)
    assert (run.path / "record.arrow").stat().st_size < 12e6 < (folder / "catalog.arrow").stat().st_size / 1.7
    assert len(read_record(run).patients("test")) == 3_750
