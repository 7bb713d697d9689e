import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from runs import RECIPES, image_store, moco_recipe
from safetensors.torch import load_file

from scanlearn.engine.checkpoint import checkpoints
from scanlearn.engine.pretrain import pretrain
from scanlearn.engine.run_folder import RunFolder
from scanlearn.errors import ScanlearnError

HERE = Path(__file__).parent


def in_a_process(method, store, out, resume, workers=0, where="nowhere", step=0):
    """(exit status, what it said). Reading processes outlive a SIGKILL of their parent for a moment: no pipes to wait for."""
    command = [sys.executable, HERE / "killed.py", method, store, out, resume, str(workers), where, str(step)]
    said = out.with_name(f"{out.name}-{resume}.log")
    with said.open("w") as file:
        done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=file, stderr=file)
    return done.returncode, said.read_text()


def final_state(out):
    """Everything in the last checkpoint, and the exported network."""
    state = torch.load(checkpoints(RunFolder(out).checkpoints)[-1], weights_only=True)
    return {
        **state["learner"],
        **{f"export.{k}": v for k, v in load_file(out / "encoder" / "model.safetensors").items()},
    }


def assert_equal_bit_for_bit(first, second):
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


@pytest.mark.parametrize("where, step, workers", [("step", 7, 0), ("step", 7, 2), ("checkpoint", 6, 0)])
@pytest.mark.parametrize("method", ["moco", "genesis"])
def test_a_killed_and_resumed_run_ends_with_the_weights_of_the_unbroken_one(tmp_path, method, where, step, workers):
    recipe, store = RECIPES[method]
    store(tmp_path)
    pretrain(tmp_path / "store", recipe(), tmp_path / "unbroken", seed=3)
    status, said = in_a_process(method, tmp_path / "store", tmp_path / "killed", "no", workers, where, step)
    assert status == -signal.SIGKILL, said[-2000:]
    status, said = in_a_process(method, tmp_path / "store", tmp_path / "killed", "yes", workers)
    assert status == 0, said[-2000:]
    assert f"Resuming {tmp_path / 'killed'} at step {6 if where == 'step' else 3} of 12" in said
    assert_equal_bit_for_bit(final_state(tmp_path / "unbroken"), final_state(tmp_path / "killed"))
    steps = [line["step"] for line in RunFolder(tmp_path / "killed").read_metrics("train")]
    assert steps == sorted(set(steps)) and steps[-1] == 12  # each step is told once
    assert not list((tmp_path / "killed" / "checkpoints").glob("*.tmp"))


def test_sigterm_saves_at_the_step_and_resume_goes_on(tmp_path, monkeypatch):
    image_store(tmp_path)
    pretrain(tmp_path / "store", moco_recipe(), tmp_path / "unbroken", seed=3)
    from scanlearn.engine.learner import Learner

    update, count = Learner.after_update, iter(range(1, 100))

    def signalled(self):
        update(self)
        if next(count) == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Learner, "after_update", signalled)
    stopped = pretrain(tmp_path / "store", moco_recipe(), tmp_path / "run", seed=3)
    assert stopped.stopped and stopped.steps == 5
    assert [c.name for c in checkpoints(tmp_path / "run" / "checkpoints")][-1] == "step_000000005.ckpt"
    finished = pretrain(tmp_path / "store", moco_recipe(), tmp_path / "run", seed=3, resume=True)
    assert not finished.stopped and finished.steps == 12
    assert_equal_bit_for_bit(final_state(tmp_path / "unbroken"), final_state(tmp_path / "run"))


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(tmp_path, capsys):
    image_store(tmp_path)
    pretrain(tmp_path / "store", moco_recipe(), tmp_path / "run", seed=3)
    before = final_state(tmp_path / "run")
    newest = checkpoints(tmp_path / "run" / "checkpoints")[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    pretrain(tmp_path / "store", moco_recipe(), tmp_path / "run", seed=3, resume=True)
    assert "step_000000012.ckpt is damaged" in capsys.readouterr().err
    assert_equal_bit_for_bit(before, final_state(tmp_path / "run"))


def test_resuming_a_finished_run_changes_nothing(tmp_path):
    image_store(tmp_path)
    pretrain(tmp_path / "store", moco_recipe(), tmp_path / "run", seed=3)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run" / "encoder").iterdir()}
    pretrain(tmp_path / "store", moco_recipe(), tmp_path / "run", seed=3, resume=True)
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "run" / "encoder").iterdir()}


def test_resume_refuses_changed_settings_seed_or_data(tmp_path):
    store = image_store(tmp_path)
    pretrain(store, moco_recipe(), tmp_path / "run", seed=3)
    with pytest.raises(ScanlearnError, match="optimizer"):
        pretrain(store, moco_recipe(optimizer={"name": "sgd", "lr": 0.5}), tmp_path / "run", seed=3, resume=True)
    with pytest.raises(ScanlearnError, match="seed"):
        pretrain(store, moco_recipe(), tmp_path / "run", seed=4, resume=True)


def test_a_run_is_not_written_over_and_no_run_is_resumed_from_nothing(tmp_path):
    store = image_store(tmp_path)
    pretrain(store, moco_recipe(steps=1), tmp_path / "run")
    with pytest.raises(ScanlearnError, match="already holds a run"):
        pretrain(store, moco_recipe(steps=1), tmp_path / "run")
    with pytest.raises(ScanlearnError, match="holds no run to resume"):
        pretrain(store, moco_recipe(), tmp_path / "other", resume=True)


def test_two_runs_cannot_write_one_folder(tmp_path):
    store = image_store(tmp_path)
    first = RunFolder(tmp_path / "run")
    first.create(resume=False)
    with pytest.raises(ScanlearnError, match="Another process is writing"):
        pretrain(store, moco_recipe(), tmp_path / "run")
    first.release()
