"""Reading that dies, hangs or finds nothing: the batches are the same, or the run says what is gone and keeps its state."""

import os
import signal
import time

import pytest
import torch
from runs import genesis_recipe, image_store, volume_store

from scanlearn.engine import batches as module
from scanlearn.engine.batches import Batches, Unreadable
from scanlearn.engine.checkpoint import checkpoints
from scanlearn.engine.learner import Learner
from scanlearn.engine.pretrain import pretrain
from scanlearn.errors import ScanlearnError
from scanlearn.scans.loader import Loader, Steps
from scanlearn.scans.store import open_store


def loader_of(store, workers=0, stop=8):
    return lambda start: Loader(
        store, range(len(store)), batch_size=4, size=None, seed=1, start=start, stop=stop, workers=workers
    )


def same(a, b):
    return a["step"] == b["step"] and torch.equal(a["image"], b["image"]) and torch.equal(a["row"], b["row"])


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return image_store(tmp_path_factory.mktemp("images"))


def test_a_killed_reading_process_costs_no_batch_and_is_said_once(store, capsys):
    read = Batches(loader_of(store, workers=2), store, 0)
    expected = iter(loader_of(store)(0))
    for step in range(8):
        if step in (2, 5):
            for worker in read._reader._workers:
                os.kill(worker.pid, signal.SIGKILL)
        assert same(next(read), next(expected))
    with pytest.raises(StopIteration):
        next(read)
    read.close()
    assert capsys.readouterr().err.count("a reading process died") == 1


def test_a_process_that_dies_at_the_same_step_again_and_again_ends_in_one_sentence(store, monkeypatch):
    class Dead:
        loader = None
        died = True

        def __init__(self, loader):
            pass

        def take(self, timeout):
            raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed.")

        def close(self):
            pass

    monkeypatch.setattr(module, "_Reader", Dead)
    with pytest.raises(Unreadable, match=r"the reading processes died .* 4 times at the same step"):
        next(Batches(loader_of(store, workers=1), store, 0))


def test_a_hanging_read_is_given_up_after_the_timeout(store, monkeypatch):
    monkeypatch.setattr(Steps, "__getitem__", lambda *_: time.sleep(1.5))
    read = Batches(loader_of(store), store, 0, timeout=0.2)
    with pytest.raises(Unreadable, match=r"no batch could be read within 0\.2 seconds"):
        next(read)
    read.close()


def test_a_hanging_process_is_killed_and_reading_goes_on(store, monkeypatch, capsys):
    read = Batches(loader_of(store, workers=1), store, 0, timeout=60.0)
    expected = iter(loader_of(store)(0))
    assert same(next(read), next(expected))
    for worker in read._reader._workers:
        os.kill(worker.pid, signal.SIGSTOP)  # neither dead nor alive
    again = read._again
    monkeypatch.setattr(read, "_again", lambda *told: (setattr(read, "_timeout", 60.0), again(*told)))
    read._timeout = 0.5
    assert all(same(next(read), batch) for batch in expected)
    assert capsys.readouterr().err.count("a reading process hung") == 1
    read.close()


def test_a_read_that_fails_once_is_tried_again(store, monkeypatch, capsys):
    read, failed = Steps.__getitem__, []

    def shaky(self, step):
        if step == 3 and not failed:
            failed.append(step)
            raise OSError(5, "the network was away")
        return read(self, step)

    monkeypatch.setattr(Steps, "__getitem__", shaky)
    got = list(Batches(loader_of(store), store, 0))
    monkeypatch.undo()
    assert all(same(a, b) for a, b in zip(got, loader_of(store)(0), strict=True))
    assert "reading failed once (OSError) and then went well" in capsys.readouterr().err


@pytest.mark.parametrize("workers", [0, 1])
def test_a_scan_lost_while_training_is_named_by_its_id_and_the_state_is_kept(tmp_path, monkeypatch, workers):
    volume_store(tmp_path)
    store = open_store(tmp_path / "store", cache_bytes=0)
    update, count = Learner.after_update, iter(range(1, 100))

    def lose(self):
        update(self)
        if next(count) == 3:
            for path in (tmp_path / "store" / "volumes").rglob("*"):
                if path.is_file() and path.name != "zarr.json":
                    path.write_bytes(b"")

    monkeypatch.setattr(Learner, "after_update", lose)
    recipe = genesis_recipe(checkpoint_every=100, steps=40)
    with pytest.raises(ScanlearnError, match=r"Reading stopped at step \d+, the scan scan-[0-9a-f]+ cannot be") as told:
        pretrain(store, recipe, tmp_path / "run", workers=workers)
    kept = checkpoints(tmp_path / "run" / "checkpoints")
    assert len(kept) == 1 and f"the state after step {int(kept[0].stem[5:])} is saved" in str(told.value)
    assert "\n" not in str(told.value) and str(tmp_path / "store") not in str(told.value)
