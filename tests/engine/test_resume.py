import os
import signal

import pytest
import torch
from runs import RECIPES, image_store, moco_recipe
from safetensors.torch import load_file

from scanlearn.engine.checkpoint import checkpoints
from scanlearn.engine.pretrain import pretrain
from scanlearn.engine.run_folder import RunFolder
from scanlearn.errors import ScanlearnError


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """Of each method: its store and the end of a run that nobody killed."""
    made = {}

    def of(method):
        if method not in made:
            folder = tmp_path_factory.mktemp(method)
            recipe, store = RECIPES[method]
            store(folder)
            pretrain(folder / "store", recipe(), folder / "unbroken", seed=3)
            made[method] = folder / "store", final_state(folder / "unbroken")
        return made[method]

    return of


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


def assert_equal_optimizers(*runs):
    """The optimiser's state, and so that of an opponent's, in the last checkpoints of two runs; returns one."""
    ours, theirs = (
        torch.load(checkpoints(RunFolder(run).checkpoints)[-1], weights_only=True)["optimizer"] for run in runs
    )
    assert [group["lr"] for group in ours["param_groups"]] == [group["lr"] for group in theirs["param_groups"]]
    assert ours["state"].keys() == theirs["state"].keys()
    for number, values in ours["state"].items():
        assert all(
            torch.equal(torch.as_tensor(v), torch.as_tensor(theirs["state"][number][k])) for k, v in values.items()
        )
    return ours


DEATHS = [
    ("step", 7, 0),
    ("step", 7, 2),
    ("checkpoint", 6, 0),
    ("prune", 9, 0),
    ("export", 0, 0),
    ("export", 1, 0),
    ("log", 0, 0),
]


@pytest.mark.parametrize("where, step, workers", DEATHS)
@pytest.mark.parametrize("method", ["moco", "genesis"])
def test_a_killed_and_resumed_run_ends_with_the_weights_of_the_unbroken_one(
    tmp_path, train, unbroken, method, where, step, workers
):
    store, expected = unbroken(method)
    out = tmp_path / "killed"
    status, said = train(method, store, out, workers=workers, where=where, step=step)
    assert status == -signal.SIGKILL, said[-2000:]
    begun = (out / "recipe.yaml").exists()  # killed before there was a run, the same command starts it
    assert begun == ((where, step) != ("export", 0))
    status, said = train(method, store, out, workers=workers, resume=begun)
    assert status == 0, said[-2000:]
    if where in ("step", "checkpoint"):
        assert f"Resuming {out} at step {6 if where == 'step' else 3} of 12" in said
    assert_equal_bit_for_bit(expected, final_state(out))
    steps = [line["step"] for line in RunFolder(out).read_metrics("train")]
    assert steps == sorted(set(steps)) and steps[-1] == 12  # each step is told once
    assert len(list((out / "checkpoints").iterdir())) == 2  # nothing half-written is left
    assert not [path for path in out.rglob(".*") if path.name != ".lock"]


def test_the_queue_and_normaliser_of_mixed_contrast_resume_exactly(tmp_path, train, unbroken):
    store, expected = unbroken("c2l")
    status, _ = train("c2l", store, tmp_path / "killed", where="step", step=7)
    assert status == -signal.SIGKILL
    status, said = train("c2l", store, tmp_path / "killed", resume=True)
    assert status == 0 and "at step 6 of 12" in said, said[-2000:]
    assert {"objectives.mixed_contrast.queue", "objectives.mixed_contrast.normaliser"} <= set(expected)
    assert_equal_bit_for_bit(expected, final_state(tmp_path / "killed"))


def moments(optimizer):
    """How many parameters Adam has moved: only the opponents' is Adam here."""
    return sum("exp_avg" in values for values in optimizer["state"].values())


def test_an_opponent_and_both_optimisers_resume_exactly(tmp_path, train, unbroken):
    # Killed between two checkpoints; spec_dira detail 24.
    store, expected = unbroken("dira")
    status, _ = train("dira", store, tmp_path / "killed", where="step", step=7)
    assert status == -signal.SIGKILL
    status, said = train("dira", store, tmp_path / "killed", resume=True)
    assert status == 0 and "at step 6 of 12" in said, said[-2000:]
    assert any("adversary.opponent" in name for name in expected) and "balance.norms" in expected
    assert_equal_bit_for_bit(expected, final_state(tmp_path / "killed"))
    optimizer = assert_equal_optimizers(store.parent / "unbroken", tmp_path / "killed")
    assert {2e-4, 1e-4} <= {group["lr"] for group in optimizer["param_groups"]}  # of the opponent, of the predictor
    assert moments(optimizer) == 10  # of five layers' weights and biases


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


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "zeros"])
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(tmp_path, capsys, unbroken, damage):
    store, expected = unbroken("moco")
    pretrain(store, moco_recipe(), tmp_path / "run", seed=3)
    newest = checkpoints(tmp_path / "run" / "checkpoints")[-1]
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1  # inside a tensor, where PyTorch looks at no checksum
    newest.write_bytes({"cut": data[:1000], "bit": data, "empty": b"", "zeros": bytes(len(data))}[damage])
    pretrain(store, moco_recipe(), tmp_path / "run", seed=3, resume=True)
    said = capsys.readouterr().err
    assert "checkpoint step_000000012.ckpt is damaged (" in said and "at step 9 of 12" in said
    assert_equal_bit_for_bit(expected, final_state(tmp_path / "run"))


def test_a_later_checkpoint_that_could_not_be_read_goes_when_the_next_one_is_safe(tmp_path, unbroken):
    store, _ = unbroken("moco")
    pretrain(store, moco_recipe(), tmp_path / "run", seed=3)
    folder = tmp_path / "run" / "checkpoints"
    (folder / "step_000000999.ckpt").write_bytes(b"damaged")
    (folder / "step_000000012.ckpt").unlink()
    pretrain(store, moco_recipe(), tmp_path / "run", seed=3, resume=True)
    assert [path.name for path in checkpoints(folder)] == ["step_000000009.ckpt", "step_000000012.ckpt"]


def test_without_one_good_checkpoint_resume_says_so(tmp_path, unbroken):
    store, _ = unbroken("moco")
    pretrain(store, moco_recipe(steps=2), tmp_path / "run", seed=3)
    for path in checkpoints(tmp_path / "run" / "checkpoints"):
        path.write_bytes(b"no")
    with pytest.raises(ScanlearnError, match=r"No checkpoint in .* can be read, .*: start the run again in another"):
        pretrain(store, moco_recipe(steps=2), tmp_path / "run", seed=3, resume=True)


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
