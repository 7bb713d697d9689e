import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from runs import image_store

from catalog.layouts.trees import chestxray14, rsna_pneumonia
from scanlearn.catalog.containment import datasets_of, known_names, shared_images, sources_of
from scanlearn.catalog.table import Catalog
from scanlearn.engine.leaks import keep_apart, not_seen, seen_files
from scanlearn.engine.record import read_record, write_record
from scanlearn.engine.run_folder import RunFolder
from scanlearn.engine.sides import compare, side_of
from scanlearn.errors import ScanlearnError
from scanlearn.scans.fingerprints import kept_alike
from scanlearn.scans.prepare import prepare
from scanlearn.scans.sources import FileSource
from scanlearn.scans.store import open_store
from scans.test_fingerprints import half, jpeg75, radiograph


def write(folder, name, image):
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(folder / name)


def two_folders(tmp_path):
    """Radiographs of patients a0..a5 in ours; theirs has a0 again, and copies of the others' under other names."""
    for n in range(6):
        write(tmp_path / f"ours/a{n}", "x.png", radiograph(n))
    write(tmp_path / "theirs/a0", "another.png", radiograph(50))
    for name, image in (
        ("b1", radiograph(1)),
        ("b2", jpeg75(radiograph(2))),
        ("b3", half(radiograph(3))),
        ("b4", radiograph(4)[:, ::-1]),
        ("b5", radiograph(51)),
    ):
        write(tmp_path / f"theirs/{name}", "y.png", image)
    return tmp_path / "ours", tmp_path / "theirs"


def between(found, a, b):
    return next(one for one in found if (one.a, one.b) == (a, b))


@pytest.mark.parametrize("stores", [False, True])
def test_a_shared_patient_and_copies_equal_reencoded_halved_or_mirrored_are_found(tmp_path, stores):
    folders = two_folders(tmp_path)
    if stores:
        sizes = {"ours": (96, 96), "theirs": (80, 64)}
        folders = [
            prepare(folder, tmp_path / f"s/{folder.name}", patient="folder", size=sizes[folder.name], workers=0).path
            for folder in folders
        ]
        found, _ = compare([side_of(folder) for folder in folders])
        assert between(found, "ours", "theirs").patients == 1
    else:
        found, _ = compare([side_of(folder) for folder in folders])
    one = between(found, "ours", "theirs")
    assert (one.files, one.copies, one.mirrored) == (1, 3, 1) and not one.clean
    apart = [one for one in found if (one.a, one.b) != ("ours", "theirs")]
    assert apart and all(other.clean for other in apart)


def test_a_table_of_checks_names_no_patient_and_no_file(tmp_path, capsys):
    from scanlearn.cli import main

    ours, theirs = two_folders(tmp_path)
    page = tmp_path / "page.html"
    assert main(["catalog", "check", str(ours), str(theirs), "--out", str(page), "--patient", "folder"]) == 0
    said = capsys.readouterr()
    line = next(line for line in said.out.splitlines() if line.split()[:2] == ["ours", "theirs"])
    assert line.split()[2:] == ["1", "1", "3", "1"]
    words = said.out + said.err + re.sub(r'src="data:[^"]*"', "", page.read_text())
    assert not any(re.search(rf"\b{kind}{n}\b", words) for kind in "ab" for n in range(6))
    assert not any(name in words for name in ("x.png", "y.png", "another.png"))
    assert main(["catalog", "describe", str(ours), str(theirs)]) == 2


def test_an_nih_image_inside_rsna_and_their_kinship_are_found(tmp_path):
    rsna = rsna_pneumonia.make(tmp_path / "rsna")
    file = next(path for path in sorted((rsna / "stage_2_train_images").iterdir()))
    pixels = dcmread(file).pixel_array
    nih = tmp_path / "nih"
    chestxray14.make(nih)
    Image.fromarray(pixels).save(next(iter(sorted(nih.rglob("00000013_005.png")))))
    found, _ = compare([side_of(nih), side_of(rsna)])
    one = between(found, "nih", "rsna")
    assert one.copies == 1 and one.patients == 3  # 1, 13 and 30805 are in both
    assert one.told == ("images of rsna_pneumonia were taken from chestxray14.",)


def test_containments_are_followed_through_and_known_by_the_names_of_folders():
    assert {"brats2018", "brats2021", "brats2023_gli"} <= sources_of("brats2017")
    assert list(shared_images(["rsna_pneumonia"], ["siim_pneumothorax"])) == [
        "images of rsna_pneumonia and of siim_pneumothorax were taken from chestxray14."
    ]
    assert list(shared_images(["luna16"], ["lidc"])) == ["images of luna16 were taken from lidc."]
    assert len(list(shared_images(["msd_brain"], ["brats2020"]))) == 1
    assert list(shared_images(["mura"], ["chexpert"])) == []
    assert known_names(["MS-CXR", "my scans", "chestxray14"]) == {"ms_cxr", "chestxray14"}


# ---------------------------------------------------------------- before a training


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return image_store(tmp_path_factory.mktemp("data"))


def with_radiographs(folder, seeds, **options):
    for n in seeds:
        write(folder / f"in/p{n}", "x.png", radiograph(n) if n < 100 else jpeg75(radiograph(n - 100)))
    return prepare(folder / "in", folder / "store", patient="folder", size=(64, 64), workers=0, **options)


def test_parts_that_look_alike_are_said_and_recorded_and_those_that_do_not_are_told_as_looked_for(tmp_path, capsys):
    store = with_radiographs(tmp_path, [1, 2, 3, 101])
    equal = store.catalog.array("sha256").to_pylist()
    assert len(set(equal)) == 4
    (a, b), *others = kept_alike(store).tolist()
    assert not others
    rest = [n for n in range(4) if n not in (a, b)]
    parts = {"train": np.array([a, rest[0]]), "test": np.array([b, rest[1]])}
    told = keep_apart(store, parts)
    assert "1 pairs of scans of different patients look alike, one in 'train' and one in 'test'." in told.done
    assert "look alike" in capsys.readouterr().err
    clean = keep_apart(store, {"train": np.array([a, b]), "test": np.array(rest)})
    assert not any("look alike" in text for text in clean.done) and clean.open == []


def test_what_could_not_be_checked_stands_in_the_record(store, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(store.path, old, ignore=shutil.ignore_patterns("looks.arrow", "alike.arrow"))
    told = keep_apart(open_store(old), {"pre-training": np.arange(6)})
    assert len(told.open) == 1 and "were not looked for" in told.open[0]
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    write_record(run, open_store(old), {"pre-training": np.arange(6)}, 0, {"done": told.done, "open": told.open})
    record = read_record(run)
    assert record.open == tuple(told.open) and record.prints("pre-training") is None
    text = (run.path / "record.json").read_text()
    assert not any(patient in text for patient in set(store.catalog.patients.tolist()))


def a_run(path, store, rows, init="none"):
    run = RunFolder(path)
    run.path.mkdir(parents=True)
    run.environment.write_text(json.dumps({"init": init}))
    write_record(run, store, {"pre-training": np.asarray(rows)}, 0)
    return run.path


def test_test_patients_of_a_run_before_the_run_are_refused_too(store, tmp_path):
    a_run(tmp_path / "first", store, store.splits["test"][:1])
    clean = a_run(tmp_path / "second", store, store.splits["train"], init="first")
    with pytest.raises(
        ScanlearnError, match="1 patients and 1 files of the test part were in the pre-training of first"
    ):
        not_seen(clean, store)
    lost = a_run(tmp_path / "third", store, store.splits["train"], init="gone")
    told = not_seen(lost, store)
    assert any("gone" in text for text in told.open) and any("third" in text for text in told.done)
    assert not_seen("none", store).done == []


def test_copies_in_the_pretraining_of_another_store_are_said(tmp_path):
    before = with_radiographs(tmp_path / "a", range(5))
    after = with_radiographs(tmp_path / "b", [100, 101, 102, 103, 104, 20, 21])
    run = a_run(tmp_path / "run", before, np.arange(len(before)))
    everything = type(after)(after.path)
    everything.__dict__["splits"] = {"test": np.arange(len(after))}
    told = not_seen(run, everything)
    assert any(
        text.startswith("5 scans of the test part look like one in the pre-training of run") for text in told.done
    )


def test_files_that_a_run_was_trained_on_are_said_of_scans_in_no_store(tmp_path):
    before = with_radiographs(tmp_path / "a", range(4))
    run = a_run(tmp_path / "run", before, np.arange(len(before)))
    for n in (1, 2, 30):
        write(tmp_path / f"new/q{n}", "y.png", radiograph(n))
    write(tmp_path / "named/p3", "z.png", radiograph(40))
    told = seen_files(run, FileSource(Catalog.from_source(tmp_path / "new", patient="folder")))
    assert told.done[0].startswith("2 of the files were in the pre-training of run") and len(told.open) == 1
    told = seen_files(run, FileSource(Catalog.from_source(tmp_path / "named", patient="folder")))
    assert told.done[0] == "1 of the patients have a name that occurs in the pre-training of run."
    assert not any("p3" in text or "q1" in text for text in (*told.done, *told.open))


def test_a_store_of_a_layout_knows_its_data_set(tmp_path):
    tree = rsna_pneumonia.make(tmp_path / "rsna")
    store = prepare(tree, tmp_path / "store", size=(32, 32), workers=0)
    assert datasets_of(store.catalog, store.info["settings"]["origin"]) == {"rsna_pneumonia"}
    run = a_run(tmp_path / "run", store, store.splits["train"])
    assert read_record(RunFolder(run)).datasets == {"rsna_pneumonia"}
