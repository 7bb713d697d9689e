"""What happens to ``prepare``: kills, full disks, signals, files that crash, hang or vanish."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from scanlearn.catalog.pseudonyms import list_path, read_list
from scanlearn.catalog.table import Catalog
from scanlearn.errors import FileError, Interrupted, ScanlearnError
from scanlearn.scans import arrays, part, prepare, writers
from scans import killed
from scans.deadly import DeadlySource
from scans.test_prepare import contents

COUNT = 12


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """12 PNG images, 8-bit and then 16-bit, every second with a mask; the fourth is no picture."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for n in range(COUNT):
        picture = rng.random((32, 28)) * (255 if n < 6 else 60000)
        Image.fromarray(picture.astype(np.uint8 if n < 6 else np.uint16)).save(folder / f"images/s{n:02d}.png")
        if n % 2:
            Image.fromarray(np.eye(32, 28, n, np.uint8) * 255).save(folder / f"masks/s{n:02d}.png")
    (folder / "images/s03.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def cubes(tmp_path_factory):
    """12 NIfTI volumes of noise, two of them with masks."""
    folder, rng = tmp_path_factory.mktemp("cubes"), np.random.default_rng(1)
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir()
    for n in range(COUNT):
        cube = rng.integers(0, 4000, (24 + n, 20, 20), dtype=np.int16)
        nib.save(nib.Nifti1Image(cube, np.eye(4)), folder / f"imagesTr/v{n:02d}.nii")
        if n in (3, 8):
            nib.save(nib.Nifti1Image((cube > 3000).astype(np.uint8), np.eye(4)), folder / f"labelsTr/v{n:02d}.nii")
    return folder


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(arrays, "STACK_SHARD_BYTES", 1 << 12)
    monkeypatch.setattr(writers, "FLUSH_SECONDS", 0.0)


@pytest.fixture(scope="module")
def whole(pictures, cubes, tmp_path_factory):
    """The unbroken stores, file by file."""
    shard, arrays.STACK_SHARD_BYTES = arrays.STACK_SHARD_BYTES, 1 << 12
    places = {folder: tmp_path_factory.mktemp("unbroken") / "store" for folder in (pictures, cubes)}
    found = {folder: contents(prepare.prepare(folder, out, workers=0).path) for folder, out in places.items()}
    arrays.STACK_SHARD_BYTES = shard
    return found


def kill(source, out, place):
    """Run ``prepare`` in a process that kills itself at ``place``."""
    command = [sys.executable, killed.__file__, str(source), str(out), place]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


# --- kills ---


@pytest.mark.parametrize("place", [place for place in killed.PLACES if place not in ("between two stores", "in place")])
def test_a_store_of_slices_is_the_same_after_a_kill(pictures, whole, tmp_path, place):
    kill(pictures, tmp_path / "store", place)
    store = prepare.prepare(pictures, tmp_path / "store", workers=0)
    assert contents(store.path) == whole[pictures]
    assert [p.name for p in tmp_path.iterdir()] == ["store"]


@pytest.mark.parametrize("place", ["before a note", "after finishing", "in place"])
def test_a_store_of_volumes_is_the_same_after_a_kill(cubes, whole, tmp_path, capsys, place):
    kill(cubes, tmp_path / "store", place)
    store = prepare.prepare(cubes, tmp_path / "store", workers=2)
    said = {"before a note": "going on: 3 of 12 scans were already there", "after finishing": "going on: 12 of 12"}
    assert said.get(place, "nothing to do") in capsys.readouterr().err
    assert contents(store.path) == whole[cubes] and [p.name for p in tmp_path.iterdir()] == ["store"]


def test_a_kill_between_two_stores_loses_neither(pictures, cubes, whole, tmp_path):
    out = tmp_path / "store"
    prepare.prepare(pictures, out, workers=0)
    kill(cubes, out, "between two stores")
    again = prepare.prepare(cubes, out, workers=0, overwrite=True)
    assert contents(again.path) == whole[cubes] and [p.name for p in tmp_path.iterdir()] == ["store"]


def test_an_old_store_that_a_kill_took_away_is_put_back(pictures, tmp_path):
    out = tmp_path / "store"
    before = contents(prepare.prepare(pictures, out, workers=0).path)
    with part.hold(out) as held:
        held.keep = True
        out.rename(held.old)
    prepare.prepare(pictures, out, workers=0)
    assert contents(out) == before


@pytest.mark.parametrize("change", ["settings", "file"])
def test_what_was_made_of_other_files_or_settings_is_begun_again(pictures, tmp_path, capsys, change):
    source = shutil.copytree(pictures, tmp_path / "in")
    kill(source, tmp_path / "out" / "store", "after a note")
    os.utime(source / "images/s00.png", (1, 1) if change == "file" else None)
    size = 16 if change == "settings" else None
    store = prepare.prepare(source, tmp_path / "out" / "store", workers=0, size=size)
    assert "other files or settings was there; beginning again" in capsys.readouterr().err
    fresh = prepare.prepare(source, tmp_path / "fresh" / "store", workers=0, size=size)
    assert contents(store.path) == contents(fresh.path)


def test_a_store_that_was_removed_after_a_kill_is_made_again(pictures, whole, tmp_path):
    kill(pictures, tmp_path / "store", "in place")
    shutil.rmtree(tmp_path / "store")
    assert contents(prepare.prepare(pictures, tmp_path / "store", workers=0).path) == whole[pictures]


# --- one at a time, signals ---


def test_a_second_process_on_the_same_store_is_refused(pictures, tmp_path):
    with part.hold(tmp_path / "store"):
        with pytest.raises(ScanlearnError, match="Another process is writing"):
            prepare.prepare(pictures, tmp_path / "store", workers=0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_tidily_and_the_same_call_goes_on(pictures, whole, tmp_path, capsys, monkeypatch, number):
    append = writers.SliceWriter.add

    def add(self, item):
        if item.row == 5:
            os.kill(os.getpid(), number)
        append(self, item)

    with monkeypatch.context() as patch:
        patch.setattr(writers.SliceWriter, "add", add)
        patch.setattr(writers, "FLUSH_SECONDS", 60.0)  # what waits is written when the signal comes
        with pytest.raises(Interrupted, match="Stopped: 6 of 12 scans are kept, and the same command goes on"):
            prepare.prepare(pictures, tmp_path / "store", workers=2)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL and not (tmp_path / "store").exists()
    store = prepare.prepare(pictures, tmp_path / "store", workers=2)
    assert "going on: 6 of 12" in capsys.readouterr().err and contents(store.path) == whole[pictures]


# --- disks ---


@pytest.fixture
def disk(tmp_path):
    """A file system of 200 KB of its own; ``grow`` and ``protect`` change it. Needs the right to mount."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(*options):
        command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "none", str(folder)]
        return shutil.which("mount") and subprocess.run(command, capture_output=True).returncode == 0

    if not mount("size=200k"):
        pytest.skip("this user may not mount a small file system")
    yield folder, mount
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_full_disk_is_said_and_what_was_done_is_kept(cubes, whole, disk, capsys, workers):
    folder, mount = disk
    with pytest.raises(ScanlearnError, match=r"is full: free .*B and run the same command again; \d+ of 12 scans"):
        prepare.prepare(cubes, folder / "store", workers=workers)
    assert mount("remount", "size=20m")
    store = prepare.prepare(cubes, folder / "store", workers=workers)
    assert "scans were already there" in capsys.readouterr().err and contents(store.path) == whole[cubes]


def test_slices_on_a_full_disk_go_on_too(disk, tmp_path, capsys):
    folder, mount = disk
    (tmp_path / "in").mkdir()
    for n in range(20):
        noise = np.random.default_rng(n).integers(0, 255, (128, 128), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"in/n{n:02d}.png")
    with pytest.raises(ScanlearnError, match=r"is full: free .*B and run the same command again; \d+ of 20 scans"):
        prepare.prepare(tmp_path / "in", folder / "store", workers=0)
    assert mount("remount", "size=20m")
    store = prepare.prepare(tmp_path / "in", folder / "store", workers=0)
    assert "scans were already there" in capsys.readouterr().err
    assert contents(store.path) == contents(prepare.prepare(tmp_path / "in", tmp_path / "store", workers=0).path)


def test_a_disk_that_cannot_be_written_is_one_sentence_but_its_store_is_used(pictures, disk):
    folder, mount = disk
    assert mount("remount", "size=20m")
    prepare.prepare(pictures, folder / "store", workers=0)
    assert mount("remount", "ro")
    with pytest.raises(ScanlearnError, match=r"disk cannot be written \(Read-only file system\)"):
        prepare.prepare(pictures, folder / "other", workers=0)
    assert len(prepare.prepare(pictures, folder / "store", workers=0)) == 11


# --- files ---


def test_scans_that_kill_hang_or_vanish_are_left_out_and_the_rest_is_there(pictures, tmp_path, monkeypatch, capsys):
    source = shutil.copytree(pictures / "images", tmp_path / "in")
    for old, new in (("s01", "die"), ("s04", "hang"), ("s07", "vanish"), ("s03", "empty")):
        (source / f"{old}.png").rename(source / f"{old}_{new}.png")
    monkeypatch.setattr(
        prepare, "source_of", lambda path, limit_bytes=None, **_: DeadlySource(Catalog.from_source(path), limit_bytes)
    )
    store = prepare.prepare(source, tmp_path / "store", workers=2, max_scan_seconds=5, identifiers="kept")
    reasons = {Path(entry["file"]).name[4:-4]: entry["reason"] for entry in store.info["quarantine"]}
    assert (len(store) == 8 and list(reasons) == ["die", "empty", "hang", "vanish"]) or sorted(reasons) == [
        "die",
        "empty",
        "hang",
        "vanish",
    ]
    assert reasons["die"] == "ended the program that read it (signal 9)."
    assert reasons["hang"] == "was not read within 5 seconds."
    assert "1 x ended the program that read it (signal 9)." in capsys.readouterr().err


def test_strict_stops_at_the_first_bad_scan_and_the_private_list_names_its_file(pictures, tmp_path):
    for _ in range(2):
        with pytest.raises(FileError, match=r"^scan-[0-9a-f]{15}: .* Its file is listed in ") as caught:
            prepare.prepare(pictures, tmp_path / "store", workers=0, strict=True)
        assert "s03" not in str(caught.value)
        (row,) = read_list(list_path("store", "strict")).to_pylist()
        assert row["scan_id"] == caught.value.path and row["paths"][0].endswith("images/s03.png")
        assert caught.value.reason.startswith(row["reason"])
    assert not (tmp_path / "store").exists()
    with pytest.raises(FileError, match=r"images/s03\.png: "):
        prepare.prepare(pictures, tmp_path / "named", workers=0, strict=True, identifiers="kept")
    assert len(prepare.prepare(pictures, tmp_path / "store", workers=0)) == 11


def test_scans_beyond_the_limit_are_left_out(cubes, tmp_path):
    store = prepare.prepare(cubes, tmp_path / "store", workers=0, max_scan_bytes=30 * 20 * 20 * 2)
    assert len(store) == 7 and len(store.info["quarantine"]) == 5
    with pytest.raises(ScanlearnError, match="other scans or settings"):
        prepare.prepare(cubes, tmp_path / "store", workers=0)
