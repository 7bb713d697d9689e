import csv
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scanlearn.catalog.pseudonyms import list_path
from scanlearn.catalog.splits import pick_labelled
from scanlearn.cli import main
from scanlearn.errors import ScanlearnError
from scanlearn.scans.names import names_of
from scanlearn.scans.prepare import prepare
from scanlearn.scans.store import open_store
from scans.made_scans import smooth

PLANTED = ("Muster", "Erika", "geheim", "1964-08-12", "ACC77", "MRN-", "/home", "Klinik")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """24 images with masks of 12 people whose names stand in files, folders and columns; one file is broken."""
    folder = tmp_path_factory.mktemp("Klinik-geheim")
    with (folder / "Muster.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "mask", "patient", "study", "PatientBirthDate", "mrn", "ref", "finding"])
        for n in range(24):
            who = n // 2
            image, mask = smooth((20, 18), n).astype(np.uint8), np.zeros((20, 18), np.uint8)
            mask[n % 9 : n % 9 + 8, 3:9] = 255
            Image.fromarray(image).save(folder / f"Erika_Muster{who}_{n}.png")
            Image.fromarray(mask).save(folder / f"Erika_mask{n}.png")
            names = [f"Erika_Muster{who}_{n}.png", f"Erika_mask{n}.png", f"Muster {who}", f"ACC77{n}"]
            table.writerow([*names, "1964-08-12", f"MRN-{who}", f"geheim{who}", ["no", "yes"][who % 2]])
    (folder / "Erika_Muster3_7.png").write_bytes(b"nothing")
    return folder


@pytest.fixture(scope="module")
def store(folder, tmp_path_factory):
    return prepare(folder, tmp_path_factory.mktemp("stores") / "people", target="finding", workers=0)


def everything(path):
    return b"".join(p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file())


def test_a_store_and_what_is_said_name_nobody(folder, tmp_path, capsys):
    store = prepare(folder, tmp_path / "people", target="finding", workers=0)
    said, written = "".join(capsys.readouterr()), everything(store.path)
    for word in PLANTED:
        assert word.encode() not in written, word
    for word in ("Erika", "1964", "ACC77", "MRN-"):
        assert word not in said, word
    assert store.info["identifiers"] == "hashed" and str(list_path("people", store.info["key"])) in said
    assert "PatientBirthDate, mrn, ref" in said and store.catalog.label_columns == ["finding"]


def test_the_names_lead_back_and_say_why_a_scan_is_missing(store, folder):
    table = names_of(store).to_pylist()
    assert len(table) == 24
    by_name = {row["scan_id"]: row for row in table}
    for row, name in enumerate(store.catalog.column("scan_id")):
        image = np.asarray(Image.open(by_name[name]["paths"][0]))
        assert np.array_equal(store.read([row])[0][0], image) and by_name[name]["reason"] == ""
        assert by_name[name]["patient_id"] == store.catalog.patients[row]
    (missing,) = (row for row in table if row["reason"])
    assert missing["original_patient"] == "Muster 3" and missing["paths"] == [str(folder / "Erika_Muster3_7.png")]
    assert store.info["quarantine"] == [{"scan_id": missing["scan_id"], "reason": missing["reason"]}]
    assert "Erika" not in missing["reason"]


def test_another_salt_gives_other_names_and_the_same_store(store, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("SCANLEARN_SALT", "another")
    other = prepare(folder, tmp_path / "people", target="finding", workers=0)
    assert not set(other.catalog.column("scan_id")) & set(store.catalog.column("scan_id"))
    assert other.info["key"] == store.info["key"] and len(names_of(other)) == len(names_of(store)) == 24
    assert {k: v.tolist() for k, v in other.splits.items()} == {k: v.tolist() for k, v in store.splits.items()}
    for one, two in zip(store.read(range(23)), other.read(range(23)), strict=True):
        assert np.array_equal(one, two)
    rows, draws = np.arange(23), np.random.default_rng(0).random((2, 23))
    assert np.array_equal(store.foreground.pick(rows, *draws)[1], other.foreground.pick(rows, *draws)[1])
    for target in ("finding", "mask"):
        picks = [pick_labelled(one.catalog, one.splits["train"], target, 6, 0).tolist() for one in (store, other)]
        assert picks[0] == picks[1]


def test_a_store_that_was_moved_is_still_led_back_and_a_foreign_one_is_not(store, tmp_path, monkeypatch):
    shutil.copytree(store.path, tmp_path / "renamed")
    assert names_of(open_store(tmp_path / "renamed")).equals(names_of(store))
    monkeypatch.setenv("SCANLEARN_PRIVATE", str(tmp_path / "nobody"))
    with pytest.raises(ScanlearnError, match="lies with whoever prepared the store; set SCANLEARN_PRIVATE"):
        names_of(store)


def test_kept_identifiers_stay_readable_and_no_list_is_written(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("SCANLEARN_PRIVATE", str(tmp_path / "private"))
    store = prepare(folder, tmp_path / "people", identifiers="kept", workers=0)
    assert store.catalog.patients[0] == "Muster 0" and "mrn" in store.catalog.label_columns
    assert Path(store.catalog.column("paths")[0][0]).is_file() and not (tmp_path / "private").exists()
    table = names_of(store)
    assert len(table) == 24 and table["original_scan"].to_pylist() == table["scan_id"].to_pylist()
    assert [row["paths"] for row in table.to_pylist() if row["reason"]] == [[str(folder / "Erika_Muster3_7.png")]]


def test_the_verb_prints_the_names_or_writes_them_for_their_owner(store, tmp_path, capsys):
    assert main(["names", str(store.path)]) == 0
    printed = capsys.readouterr().out
    assert main(["names", str(store.path), "--out", str(tmp_path / "names.csv")]) == 0
    assert (tmp_path / "names.csv").read_text() == printed
    assert stat.S_IMODE((tmp_path / "names.csv").stat().st_mode) == 0o600
    rows = list(csv.DictReader(printed.splitlines()))
    assert len(rows) == 24 and rows[0]["original_patient"] == "Muster 0" and rows[0]["paths"].endswith("_0.png")
