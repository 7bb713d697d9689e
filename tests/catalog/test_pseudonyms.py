import stat

import numpy as np
import pyarrow as pa
import pytest

from scanlearn.catalog.identifiers import sounds_telling, telling_columns
from scanlearn.catalog.pseudonyms import (
    LIST,
    list_path,
    private_folder,
    pseudonymise,
    pseudonyms,
    read_list,
    salt,
    stored_names,
    write_list,
)
from scanlearn.catalog.splits import make_splits, pick_labelled
from scanlearn.catalog.table import Catalog
from scanlearn.errors import ScanlearnError


@pytest.fixture(autouse=True)
def private(tmp_path, monkeypatch):
    monkeypatch.setenv("SCANLEARN_PRIVATE", str(tmp_path / "private"))
    return tmp_path / "private"


def people(count=60, **columns):
    """Three scans for each person, named as no store may name them."""
    who = [f"Doe-{n // 3}" for n in range(count)]
    return Catalog.from_columns(
        {
            "scan_id": [f"{name}_{n}" for n, name in enumerate(who)],
            "paths": [[f"/home/{name}/{n}.png"] for n, name in enumerate(who)],
            "patient_id": who,
            "study_id": [f"acc{n // 2}" for n in range(count)],
            "mask_path": [f"/masks/{n}.png" if n % 2 else "" for n in range(count)],
            "sha256": [f"{n:064x}" for n in range(count)],
            "dataset": ["Dr. Doe's patients"] * count,
            "finding": [("no", "yes")[n // 3 % 2] for n in range(count)],
            **columns,
        }
    )


def test_a_pseudonym_depends_on_kind_name_and_salt_alone():
    first = pseudonyms("patient", ["a", "b", "a", ""], b"salt")
    assert first[0] == first[2] != first[1] and first[3] == ""
    assert pseudonyms("patient", ["b"], b"salt") == [first[1]]
    assert first[0].removeprefix("patient-") != pseudonyms("scan", ["a"], b"salt")[0].removeprefix("scan-")
    assert first[0] != pseudonyms("patient", ["a"], b"pepper")[0]


def test_the_salt_is_made_once_for_its_owner_alone(private, monkeypatch):
    monkeypatch.delenv("SCANLEARN_SALT")
    first = salt()
    assert salt() == first and len(first) == 32
    assert stat.S_IMODE((private / "salt").stat().st_mode) == 0o600
    (private / "salt").write_bytes(b"short")
    with pytest.raises(ScanlearnError, match="is damaged"):
        salt()


def test_a_hidden_catalogue_holds_no_name_and_no_path():
    catalog = people()
    hidden, private = pseudonymise(catalog)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, hidden.table.schema) as writer:
        writer.write_table(hidden.table)
    text = sink.getvalue().to_pybytes()
    assert not any(word in text for word in (b"Doe", b"/home", b"acc1", b".png", b"Dr."))
    assert hidden.column("scan_id") == stored_names(catalog) and hidden.column("paths") == [[]] * 60
    assert hidden.column("mask_path")[:2] == ["", f"masks/{hidden.column('scan_id')[1]}"]
    assert hidden.labels("mask").labelled.tolist() == catalog.labels("mask").labelled.tolist()
    assert hidden.labels("finding").codes.tolist() == catalog.labels("finding").codes.tolist()
    assert set(hidden.column("dataset")) == {""}
    for name in ("patient_id", "study_id"):  # who belongs together is as before
        assert np.array_equal(hidden.codes(name), catalog.codes(name))
    assert private["original_scan"].to_pylist() == catalog.column("scan_id")
    assert private["paths"].to_pylist() == catalog.column("paths")
    assert private["patient_id"].to_pylist() == hidden.column("patient_id")


def test_kept_identifiers_stay_but_must_be_safe_file_names():
    assert pseudonymise(people(), "kept")[0].table.equals(people().table)
    for name in ("../x", "a/b", "", ".hidden", "a b"):
        with pytest.raises(ScanlearnError, match="1 scan ids are no safe file names"):
            pseudonymise(Catalog.from_columns({"scan_id": ["fine", name]}), "kept")
    with pytest.raises(ScanlearnError, match="did you mean 'hashed'"):
        pseudonymise(people(), "hash")


@pytest.mark.parametrize(
    "name",
    [
        *("name", "PatientName", "patient_name", "birth_date", "DOB", "mrn", "MRN_no", "AccessionNumber", "address"),
        *("SOPInstanceUID", "seriesuid", "StudyDate", "exam_date", "surname", "file name", "dateofexam", "contentDate"),
    ],
)
def test_names_that_sound_like_identifiers(name):
    assert sounds_telling(name)


@pytest.mark.parametrize(
    "name",
    [
        "finding",
        "class_name",
        "Finding Labels",
        "candidate",
        "consolidated",
        "updated",
        "fluid",
        "age",
        "renamed",
        "sex",
    ],
)
def test_names_of_labels_do_not(name):
    assert not sounds_telling(name)


def test_columns_with_a_value_for_each_patient_or_scan_are_dropped_and_labels_stay():
    person = np.arange(60) // 3
    catalog = people(
        hospital_number=[f"H{n * 7919}" for n in person],
        image_index=[f"i{n}.dcm" for n in range(60)],
        StudyDate=["2020"] * 60,
        age=person + 20,  # another one for each, but small
        volume=person * 1234.5 + 5000.25,  # a measurement has a fraction
        ward=["A", "B"] * 30,
    )
    assert set(telling_columns(catalog)) == {"hospital_number", "image_index", "StudyDate"}
    hidden, _ = pseudonymise(catalog, keep=["StudyDate"])
    assert hidden.label_columns == ["finding", "StudyDate", "age", "volume", "ward"]
    few = people(15, doctor=[f"Dr. {n // 3}" for n in range(15)])
    assert telling_columns(few) == {}  # five patients: any label may come out so


def test_splits_and_picks_do_not_depend_on_the_salt(monkeypatch):
    catalog = people(600)
    picks = []
    for words in ("one", "two"):
        monkeypatch.setenv("SCANLEARN_SALT", words)
        hidden, _ = pseudonymise(catalog)
        picks.append(pick_labelled(hidden, np.arange(600), "finding", 50, 3).tolist())
        assert hidden.column("sha256") == catalog.column("sha256")
    assert picks[0] == picks[1]
    parts = make_splits(catalog, target="finding")  # by the original ids, before they are hidden
    assert len(parts["train"]) == 420


def test_the_private_list_is_for_its_owner_alone_and_is_found_again(private):
    _, table = pseudonymise(people())
    path = list_path("chest", "0123456789abcdef")
    write_list(path, table)
    assert path == private / "names" / "chest-0123456789ab.parquet" and private_folder() == private
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == stat.S_IMODE(private.stat().st_mode) == 0o700
    assert read_list(path).equals(table) and tuple(table.column_names) == LIST
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_list_made_under_another_salt_is_not_lost(monkeypatch):
    path = list_path("chest", "0" * 64)
    tables = []
    for words in ("one", "two", "two"):
        monkeypatch.setenv("SCANLEARN_SALT", words)
        tables.append(pseudonymise(people(9))[1])
        write_list(path, tables[-1])
    assert read_list(path).equals(pa.concat_tables([tables[1], tables[0]]))


def test_a_list_that_cannot_be_written_or_read_is_one_sentence(private):
    private.parent.mkdir(exist_ok=True)
    private.write_text("a file where the folder should be")
    with pytest.raises(ScanlearnError, match="set SCANLEARN_PRIVATE to a folder of your own"):
        write_list(list_path("chest", "0" * 64), pseudonymise(people(9))[1])
    private.unlink()
    path = list_path("chest", "0" * 64)
    write_list(path, pseudonymise(people(9))[1])
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ScanlearnError, match="is damaged: put it back"):
        read_list(path)
