import json
import os
import random
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from scanlearn.errors import ScanlearnError
from scanlearn.scans.store import open_store
from scanlearn.study import work as working
from scanlearn.study.grid import build_grid
from scanlearn.study.plan import load_plan
from scanlearn.study.run import study
from scanlearn.study.work import claimed, failure_of, result_of, tasks_of
from study.studies import MOCO, image_study, volume_study
from word_tables import word_table

SMALL = {"labels": [8], "seeds": 2}


def cells_of(out):
    """What a study found, without what may differ from run to run (dates, speeds)."""
    facts = json.loads((out / "study.json").read_text())
    return {name: facts[name] for name in ("cells", "means", "comparisons", "worth", "missing", "failed")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    words = image_study(folder)
    study(words, folder / "out")
    return SimpleNamespace(folder=folder, words=words, out=folder / "out")


def test_every_cell_is_run_once_and_tested_on_the_same_scans(whole):
    facts = json.loads((whole.out / "study.json").read_text())
    assert len(facts["cells"]) == 3 * 2 * 3 and not facts["missing"] and not facts["failed"]
    assert {(c["method"], c["labels"], c["seed"]) for c in facts["cells"]} == {
        (m, n, s) for m in ("scratch", "moco", "moco_frozen") for n in (8, "all") for s in range(3)
    }
    assert len(list((whole.out / "pretrained").glob("*/encoder"))) == 1  # shared by moco and moco_frozen
    assert not list(whole.out.glob("cells/*/checkpoints"))


def test_methods_learn_from_the_same_labelled_scans(whole):
    rows = {}
    for cell in (whole.out / "cells").glob("*-8-seed*/predictions.parquet"):
        record = json.loads((cell.parent / "record.json").read_text())
        rows.setdefault(cell.parent.name.rpartition("-seed")[2], set()).add((cell.parent / "record.arrow").read_bytes())
        assert record["parts"]["fine-tuning"]["scans"] == 8
    assert rows and all(len(found) == 1 for found in rows.values())  # one choice for each seed, whatever the method


def test_a_method_can_learn_from_words(tmp_path):
    words = volume_study(tmp_path, seeds=1)
    word_table(open_store(tmp_path / "store"), tmp_path / "words", (16, 16, 16))
    genesis = words["methods"]["genesis"]
    genesis["pretraining"] = {**genesis["pretraining"], "patches": "words"}
    study({**words, "words": str(tmp_path / "words")}, tmp_path / "out")
    facts = json.loads((tmp_path / "out" / "study.json").read_text())
    assert len(facts["cells"]) == 2 and not facts["failed"]
    card = json.loads((tmp_path / "out/pretrained/genesis-seed0/encoder/encoder.json").read_text())
    assert card["notes"]["words"] == 3


def test_a_finished_cell_is_never_run_again(whole, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("a finished task was run again")

    monkeypatch.setattr(working, "finetune", refuse)
    monkeypatch.setattr(working, "pretrain", refuse)
    before = cells_of(whole.out)
    study(whole.words, whole.out)
    assert cells_of(whole.out) == before


def test_another_question_in_the_same_folder_is_refused_but_more_seeds_are_not(whole):
    with pytest.raises(ScanlearnError, match="holds a study with another finetuning"):
        study({**whole.words, "finetuning": {"steps": 5}}, whole.out)
    changed = {**whole.words["methods"], "moco": {"recipe": "moco_v2_small", "pretraining": {**MOCO, "steps": 3}}}
    with pytest.raises(ScanlearnError, match=r"another methods\.moco"):
        study({**whole.words, "methods": changed}, whole.out)


def test_a_failed_cell_is_named_and_the_rest_goes_on(tmp_path, monkeypatch):
    real = working.finetune

    def fails_once(*arguments, **options):
        if options["seed"] == 1 and options["init"] == "none":
            raise RuntimeError("out of memory")
        return real(*arguments, **options)

    monkeypatch.setattr(working, "finetune", fails_once)
    words = image_study(tmp_path, **SMALL)
    study(words, tmp_path / "out")
    found = cells_of(tmp_path / "out")
    assert found["missing"] == ["scratch-8-seed1"]
    assert found["failed"] == [{"task": "scratch-8-seed1", "error": "RuntimeError: out of memory"}]
    assert len(found["cells"]) == 5
    monkeypatch.setattr(working, "finetune", real)
    study(words, tmp_path / "out")  # what failed is tried again
    assert not cells_of(tmp_path / "out")["failed"] and len(cells_of(tmp_path / "out")["cells"]) == 6


def test_the_cells_of_a_failed_pretraining_are_left_out_and_the_others_computed(tmp_path):
    methods = {
        "scratch": None,
        "moco": {"recipe": "moco_v2_small", "pretraining": MOCO},
        "broken": {
            "recipe": "moco_v2_small",
            "pretraining": {**MOCO, "objectives.momentum_contrast.temperature": -1.0},
        },
    }
    out = tmp_path / "out"
    study(image_study(tmp_path, methods=methods, **SMALL), out)
    found = cells_of(out)
    broken = [f for f in found["failed"] if f["task"].startswith("broken")]
    assert len(broken) == 3 and len({f["error"] for f in broken}) == 1
    assert {c["method"] for c in found["cells"]} == {"scratch", "moco"}


def test_a_task_that_another_process_holds_is_passed_over(whole):
    with claimed(whole.folder / "some.lock") as first, claimed(whole.folder / "some.lock") as second:
        assert first and not second
    with claimed(whole.folder / "some.lock") as again:
        assert again


def test_jobs_side_by_side_find_what_one_process_finds(whole, tmp_path):
    study(whole.words, tmp_path / "out", jobs=2)
    assert cells_of(tmp_path / "out") == cells_of(whole.out)


def test_killed_at_random_moments_it_ends_with_the_same_tables(whole, tmp_path):
    out, moments = tmp_path / "out", random.Random(0)
    out.mkdir()
    load_plan(whole.words).save(out / "study.yaml")
    command = [sys.executable, "-m", "scanlearn.study.worker", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for _ in range(2):
        worker = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while not list(out.glob("pretrained/*/recipe.yaml")) and time.monotonic() < deadline and worker.poll() is None:
            time.sleep(0.05)
        time.sleep(moments.uniform(0.2, 2.5))
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    study(whole.words, out)
    assert cells_of(out) == cells_of(whole.out)


def test_a_study_of_which_nothing_ended_says_why(tmp_path):
    plan = load_plan(image_study(tmp_path, **SMALL))
    grid = build_grid(plan, open_store(plan.store))
    assert all(result_of(tmp_path, task) is None and failure_of(tmp_path, task) is None for task in tasks_of(grid))


def test_slurm_arrays_find_what_one_process_finds(whole, tmp_path):
    pytest.importorskip("submitit", reason="submitit is not installed (pip install 'scanlearn[slurm]')")
    words = image_study(whole.folder, **SMALL)
    study(words, tmp_path / "here")
    study(words, tmp_path / "out", slurm={"cluster": "debug"})  # submitit's own stand-in: each job in this process
    assert cells_of(tmp_path / "out") == cells_of(tmp_path / "here")
