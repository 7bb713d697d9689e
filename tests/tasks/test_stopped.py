"""Fine-tuning that is stopped while it writes: what was done is kept, and the sentence tells the way on."""

import errno
import json

import pytest
from runs import image_store, moco_recipe

from scanlearn.engine.pretrain import pretrain
from scanlearn.engine.run_folder import RunFolder
from scanlearn.errors import ScanlearnError
from scanlearn.files import WriteError
from scanlearn.tasks import finetune as module
from scanlearn.tasks import frozen
from scanlearn.tasks.finetune import finetune
from scanlearn.tasks.trained import load_trained

FAST = {"steps": 4, "batch_size": 8, "precision": "32-true", "log_every": 2}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    store = image_store(folder, count=90)
    pretrain(store, moco_recipe(steps=2, monitor={"every": -1}), folder / "moco")
    return folder


def run(images, out, **options):
    return finetune(
        images / "store", "classify", init=images / "moco", out=out, target="label", settings=dict(FAST), **options
    )


def full(path, *_):
    raise WriteError(path.name, path.parent, OSError(errno.ENOSPC, ""), 1000)


def test_a_full_disk_at_the_results_keeps_the_training_and_resume_tests_again(images, tmp_path, monkeypatch):
    whole = run(images, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_json", full)
        with pytest.raises(WriteError, match=r"results\.json .* step 4 is whole: make room and go on .* --resume\.$"):
            run(images, tmp_path / "run")
    again = run(images, tmp_path / "run", resume=True)
    assert json.dumps(again) == json.dumps(whole)  # as text, where nan is itself
    RunFolder(tmp_path / "run").acquire()  # and the lock is free


def test_frozen_fine_tuning_that_was_stopped_is_simply_done_again(images, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(frozen, "write_json", full)
        with pytest.raises(WriteError, match="run the same command again"):
            run(images, tmp_path / "run", mode="frozen")
    results = run(images, tmp_path / "run", mode="frozen")
    assert json.loads((tmp_path / "run" / "results.json").read_text())["labelled_scans"] == results["labelled_scans"]
    with pytest.raises(ScanlearnError, match="already holds a run"):
        run(images, tmp_path / "run", mode="frozen")


def test_nothing_is_written_beside_another_process(images, tmp_path):
    other = RunFolder(tmp_path / "run")
    other.acquire()
    for mode in ("full", "frozen"):
        with pytest.raises(ScanlearnError, match="Another process is writing"):
            run(images, tmp_path / "run", mode=mode)


def test_a_head_or_a_task_that_was_changed_by_hand_is_refused(images, tmp_path):
    run(images, tmp_path / "run")
    folder = tmp_path / "run" / "encoder"
    load_trained(tmp_path / "run")
    facts, head = (folder / "task.json").read_text(), (folder / "head.safetensors").read_bytes()
    for text in (
        "[]",
        "{}",
        facts.replace('"classes"', '"klasses"'),
        facts.replace('"0",', '"0", "1", "2",'),
        facts[:40],
    ):
        (folder / "task.json").write_text(text)
        with pytest.raises(ScanlearnError, match=r"fine-tune again|is no readable JSON|where a mapping should be"):
            load_trained(tmp_path / "run")
    (folder / "task.json").write_text(facts)
    (folder / "head.safetensors").write_bytes(head[:-3])
    with pytest.raises(ScanlearnError, match="cannot be read: fine-tune again"):
        load_trained(tmp_path / "run")
