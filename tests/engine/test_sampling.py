"""Training on groups of scans with weights; what is drawn is tested in tests/scans/test_sampling.py."""

import os
import signal

import pytest
from runs import image_store, moco_recipe
from test_resume import assert_equal_bit_for_bit, final_state

from scanlearn.engine.learner import Learner
from scanlearn.engine.pretrain import pretrain
from scanlearn.engine.record import read_record
from scanlearn.engine.run_folder import RunFolder
from scanlearn.errors import ScanlearnError


def recipe(zero=1, **changes):
    return moco_recipe(sampling={"label": {"0": zero, "1": 3}}, monitor={"every": -1}, steps=6, **changes)


def test_a_run_with_weights_that_was_stopped_ends_with_the_weights_of_the_unbroken_one(tmp_path, monkeypatch):
    store = image_store(tmp_path)
    pretrain(store, recipe(), tmp_path / "unbroken", seed=3)
    pretrain(store, moco_recipe(monitor={"every": -1}, steps=6), tmp_path / "plain", seed=3)
    expected, plain = (final_state(tmp_path / name) for name in ("unbroken", "plain"))
    with pytest.raises(AssertionError):
        assert_equal_bit_for_bit(expected, plain)
    update, count = Learner.after_update, iter(range(1, 100))

    def signalled(self):
        update(self)
        if next(count) == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Learner, "after_update", signalled)
    assert pretrain(store, recipe(), tmp_path / "run", seed=3).stopped
    pretrain(store, recipe(), tmp_path / "run", seed=3, resume=True)
    assert_equal_bit_for_bit(expected, final_state(tmp_path / "run"))


def test_a_group_of_weight_0_is_neither_seen_nor_recorded_as_seen(tmp_path, capsys):
    store = image_store(tmp_path)
    train = store.splits["train"]
    ones = train[store.catalog.labels("label").codes[train] == 1]
    pretrain(store, recipe(zero=0, epochs=2, batch_size=4), tmp_path / "run", seed=3)
    assert f"{len(ones)} scans of" in capsys.readouterr().err
    record = read_record(RunFolder(tmp_path / "run"))
    assert record.rows("pre-training").tolist() == ones.tolist()


def test_a_name_the_store_lacks_and_crops_of_words_are_refused_before_anything_is_written(tmp_path):
    store = image_store(tmp_path)
    with pytest.raises(ScanlearnError, match=r"word in the column .dataset."):
        pretrain(store, moco_recipe(sampling={"dataset": {"lidc": 1}}), tmp_path / "run")
    with pytest.raises(ScanlearnError, match="Crops of words are drawn equally often"):
        pretrain(store, recipe(patches="words"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
