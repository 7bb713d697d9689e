"""Disks that are full, read-only or know no locks: one sentence, nothing half-written, and --resume goes on exactly."""

import errno
import os
import resource
import subprocess
from pathlib import Path

import pytest
import torch
from runs import image_store, moco_recipe
from safetensors.torch import load_file

from scanlearn import files
from scanlearn.engine import run_folder, train
from scanlearn.engine.checkpoint import checkpoints, damage, save_checkpoint
from scanlearn.engine.device import start_fabric
from scanlearn.engine.pretrain import pretrain
from scanlearn.engine.run_folder import MetricLog, RunFolder
from scanlearn.errors import ScanlearnError
from scanlearn.files import WriteError, replacing, write_atomic


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return image_store(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def unbroken(store, tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken") / "run"
    pretrain(store, moco_recipe(), out, seed=3)
    return out


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 4 MB of its own; ``mount -t tmpfs`` needs rights that not every machine gives."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], capture_output=True)
    if made.returncode:
        pytest.skip(f"no right to mount a small disk: {made.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def fill(disk, leave):
    """Take all but ``leave`` bytes of the disk."""
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    (disk / "other").write_bytes(bytes(max(free - leave, 0)))


def nothing_half_written(run):
    return [path.name for path in run.rglob(".*") if path.name != ".lock"] == []


def ends_as(run, unbroken):
    ours, theirs = (load_file(path / "encoder" / "model.safetensors") for path in (run, unbroken))
    steps = [line["step"] for line in RunFolder(run).read_metrics("train")]
    return all(torch.equal(ours[name], theirs[name]) for name in theirs) and steps == [2, 4, 6, 8, 10, 12]


@pytest.mark.parametrize("where, kept", [("The checkpoint of step 6", 3), ("model.safetensors", 12)])
def test_a_disk_that_fills_up_while_training_ends_in_one_sentence_and_resume_goes_on(
    store, unbroken, small_disk, monkeypatch, where, kept
):
    name = "save_network" if kept == 12 else "save_checkpoint"
    write = getattr(train, name)

    def fills_up(*values, **named):
        if (named["step"] if kept == 12 else values[2]) == max(kept, 6):
            fill(small_disk, 4096)
        return write(*values, **named)

    monkeypatch.setattr(train, name, fills_up)
    run = small_disk / "run"
    with pytest.raises(ScanlearnError) as told:
        pretrain(store, moco_recipe(), run, seed=3)
    said = str(told.value)
    assert said.startswith(where) and "the disk is full (" in said and " needed, " in said and "\n" not in said
    assert f"the checkpoint of step {kept} is whole: make room for " in said
    assert said.endswith(" and go on with the same command and --resume.")
    assert [damage(path) for path in checkpoints(run / "checkpoints")] == [None] * (1 if kept == 3 else 2)
    assert nothing_half_written(run)
    monkeypatch.undo()
    (small_disk / "other").unlink()
    pretrain(store, moco_recipe(), run, seed=3, resume=True)
    assert ends_as(run, unbroken)


@pytest.mark.parametrize("leave", [0, 8_000, 40_000])
def test_a_disk_that_is_full_at_the_start_leaves_no_run_and_the_same_command_starts_it(
    store, unbroken, small_disk, leave
):
    run = small_disk / "run"
    run.mkdir()
    fill(small_disk, leave)
    with pytest.raises(WriteError, match=r"the disk is full .*; make room and run the same command again\.$"):
        pretrain(store, moco_recipe(), run, seed=3)
    assert nothing_half_written(run) and not (run / "recipe.yaml").exists()
    (small_disk / "other").unlink()
    pretrain(store, moco_recipe(), run, seed=3)
    assert ends_as(run, unbroken)


def test_a_quota_and_a_limit_of_file_sizes_are_told_apart_from_a_full_disk(tmp_path):
    for number, words in {errno.EDQUOT: "disk quota is used up", errno.EFBIG: "larger than the system allows"}.items():
        assert words in str(WriteError("The checkpoint", tmp_path, OSError(number, ""), 12_345_678))
    assert "(12.3 MB needed)" in str(WriteError("The checkpoint", tmp_path, OSError(errno.EDQUOT, ""), 12_345_678))


def test_a_checkpoint_beyond_the_limit_of_file_sizes_leaves_nothing_behind(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)  # as batch systems set it
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(WriteError) as told:
            save_checkpoint(start_fabric("32-true"), tmp_path, 6, {"weights": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "The checkpoint of step 6 could not be written" in str(told.value)
    assert "the file would be larger than the system allows (400.0 kB needed)" in str(told.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_can_only_be_read_is_refused_before_any_work(store, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(
        WriteError, match=r"A run could not be written to .*: it can only be read; choose another --out\."
    ):
        pretrain(store, moco_recipe(), small_disk / "run")
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    (small_disk / "run" / "checkpoints").mkdir(parents=True)
    (small_disk / "run" / ".lock").touch()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(WriteError, match="it can only be read"):
        pretrain(store, moco_recipe(), small_disk / "run")


def test_a_file_system_without_locks_is_said_and_used(tmp_path, monkeypatch, capsys):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(files.fcntl, "flock", no_locks)
    run = RunFolder(tmp_path / "run")
    run.create(resume=False)
    assert "knows no locks: see to it that no second process writes there" in capsys.readouterr().err


def test_the_lock_is_given_back_after_an_error(store, tmp_path):
    with pytest.raises(ScanlearnError, match="not finite") as kept:  # a notebook keeps the error, and all it holds
        pretrain(store, moco_recipe(optimizer={"name": "sgd", "lr": 1e30}), tmp_path / "run")
    assert kept is not None
    RunFolder(tmp_path / "run").acquire()


def test_settings_that_cannot_be_built_leave_no_run(store, tmp_path):
    with pytest.raises(ScanlearnError, match=r"objectives\.momentum_contrast of the recipe cannot be used"):
        pretrain(store, moco_recipe(objectives={"momentum_contrast": {"queue_size": "many"}}), tmp_path / "run")
    pretrain(store, moco_recipe(steps=1), tmp_path / "run")


def test_two_writers_of_one_file_are_told(tmp_path):
    with replacing(tmp_path / "features.npz"):
        with pytest.raises(ScanlearnError, match="Another process is writing"):
            write_atomic(tmp_path / "features.npz", b"mine")


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    write_atomic(tmp_path / "results.json", "old")
    with pytest.raises(KeyboardInterrupt):
        with replacing(tmp_path / "results.json") as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
    assert (tmp_path / "results.json").read_text() == "old"


def test_a_line_for_which_there_is_no_room_leaves_nothing_of_itself(tmp_path, monkeypatch):
    run = RunFolder(tmp_path)
    monkeypatch.setattr(run_folder, "_summary_writer", lambda *_: None)
    log = MetricLog(run, 0)
    log.write(1, "train", {"loss": 0.5})

    class Full:
        written = 0

        def write(self, data):
            if self.written:
                raise OSError(errno.ENOSPC, "no space left on device")
            with run.metrics.open("ab") as file:
                self.written = file.write(data[:10])
            return self.written

    log._file = Full()
    with pytest.raises(WriteError, match=r"metrics\.jsonl could not be written"):
        log.write(2, "train", {"loss": 0.25})
    assert Path(run.metrics).read_bytes().endswith(b"0.5}\n") and len(run.read_metrics()) == 1
