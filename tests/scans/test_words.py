import json

import numpy as np
import pyarrow as pa
import pytest
import torch

from scanlearn.catalog.mapped import write_mapped
from scanlearn.errors import ScanlearnError
from scanlearn.scans.loader import Loader
from scanlearn.scans.resample import resample
from scanlearn.scans.words import copy_words, open_words, write_words
from word_tables import word_columns, word_table

SIZE = (12, 12, 12)


@pytest.fixture
def words(volumes, tmp_path):
    return word_table(volumes, tmp_path / "words", SIZE, words=4, scales=2)


def loader(store, patches, **settings):
    settings = {"batch_size": 4, "size": SIZE, "seed": 3, "stop": 6} | settings
    return list(Loader(store, patches.rows, patches=patches, **settings))


def test_a_table_comes_back_as_it_was_written(volumes, words):
    columns = word_columns(volumes, SIZE, words=4, scales=2)
    for name, values in columns.items():
        assert np.array_equal(getattr(words, name), values), name
    assert (words.count, words.size, words.store) == (4, SIZE, volumes.info["key"])
    assert words.settings == {"made": "for a test"} and len(words) == len(columns["word"])


def test_patches_are_those_of_one_part_and_scale(volumes, words):
    train, base, val = words.patches(), words.patches(scale=0), words.patches("val")
    assert set(train.rows) == set(volumes.splits["train"]) and set(val.rows) == set(volumes.splits["val"])
    assert len(train) == 2 * len(base) and (base.sides == 12).all()
    assert all(values.dtype == np.int64 for values in (base.rows, base.starts, base.sides, base.words))


def test_batches_hold_the_boxes_of_the_table_and_their_words(volumes, words):
    patches = words.patches(scale=0)
    for batch in loader(volumes, patches):
        for row, word, image in zip(batch["row"].tolist(), batch["word"].tolist(), batch["image"], strict=True):
            start = patches.starts[(patches.rows == row) & (patches.words == word)][0]
            cut = volumes.read([row], [(start, start + 12)])[0]
            assert np.array_equal(image.numpy(), cut) and image.numpy().dtype == volumes.dtype


def test_a_pass_visits_every_crop_once(volumes, words):
    patches = words.patches(scale=0)
    seen = loader(volumes, patches, batch_size=len(patches), stop=1)[0]
    assert sorted(zip(seen["row"].tolist(), seen["word"].tolist(), strict=True)) == sorted(
        zip(patches.rows.tolist(), patches.words.tolist(), strict=True)
    )


def test_crops_of_another_size_are_clipped_to_the_window_and_resampled(volumes, words):
    patches = words.patches(scale=1)
    batch = loader(volumes, patches, stop=1)[0]
    assert batch["image"].dtype == torch.float32 and batch["image"].shape == (4, 1, *SIZE)
    for row, word, image in zip(batch["row"].tolist(), batch["word"].tolist(), batch["image"], strict=True):
        at = np.flatnonzero((patches.rows == row) & (patches.words == word))[0]
        box = (patches.starts[at], patches.starts[at] + patches.sides[at])
        (low,), (high,) = volumes.window([row])
        cut = np.clip(volumes.read([row], [box])[0].astype(np.float32), low, high)
        assert torch.allclose(image, resample(torch.from_numpy(cut)[None], SIZE)[0])


def test_ranks_workers_and_late_entries_change_nothing(volumes, words):
    patches = words.patches()
    whole = loader(volumes, patches)
    parts = [loader(volumes, patches, rank=rank, world_size=2) for rank in range(2)]
    again = loader(volumes, patches, workers=2)
    late = loader(volumes, patches, start=3)
    for name in ("image", "word", "row"):
        assert torch.equal(whole[2][name], torch.cat([part[2][name] for part in parts]))
        assert torch.equal(whole[4][name], again[4][name]) and torch.equal(whole[4][name], late[1][name])


def test_a_loader_refuses_what_does_not_go_with_patches(volumes, words):
    patches = words.patches()
    with pytest.raises(ScanlearnError, match="need the size"):
        loader(volumes, patches, size=None)
    with pytest.raises(ScanlearnError, match="leave foreground out"):
        loader(volumes, patches, foreground=0.5)
    with pytest.raises(ScanlearnError, match="same scans"):
        list(Loader(volumes, patches.rows[::-1], patches=patches, batch_size=4, size=SIZE, seed=0, stop=1))


def test_words_of_another_store_are_refused(volumes, slices, words):
    with pytest.raises(ScanlearnError, match="another store"):
        open_words(words.folder, slices)


def test_words_that_show_the_test_part_are_refused(volumes, tmp_path):
    columns = word_columns(volumes, SIZE)
    columns["row"][0] = volumes.splits["test"][0]
    write_words(tmp_path, store=volumes.info["key"], size=SIZE, settings={}, **columns)
    with pytest.raises(ScanlearnError, match="outside of the train part"):
        open_words(tmp_path, volumes)


def test_a_copy_is_the_same_table(volumes, words, tmp_path):
    copy_words(words, tmp_path / "copy")
    assert open_words(tmp_path / "copy", volumes).same_as(words)
    other = word_table(volumes, tmp_path / "other", SIZE, words=4, scales=2, seed=1)
    assert not other.same_as(words)


def test_no_table_is_said_with_the_command_that_makes_one(tmp_path):
    with pytest.raises(ScanlearnError, match="scanlearn discover STORE"):
        open_words(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"), [("size", [0, 4, 4]), ("size", 5), ("words", -1), ("crops", 3), ("settings", []), ("store", 7)]
)
def test_forged_facts_are_refused(words, name, value):
    file = words.folder / "words.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), name: value}))
    with pytest.raises(ScanlearnError, match="damaged"):
        open_words(words.folder)


@pytest.mark.parametrize(
    ("name", "value"), [("word", 9), ("word", -1), ("row", -2), ("side", 0), ("part", 7), ("start", 1 << 30)]
)
def test_forged_columns_are_refused(volumes, tmp_path, name, value):
    columns = word_columns(volumes, SIZE)
    write_words(tmp_path, store=volumes.info["key"], size=SIZE, settings={}, **columns)
    columns[name].reshape(-1)[1] = value
    facts = (tmp_path / "words.json").read_text()
    write_words(tmp_path, store=volumes.info["key"], size=SIZE, settings={}, **columns)
    (tmp_path / "words.json").write_text(facts)
    with pytest.raises(ScanlearnError, match="damaged"):
        open_words(tmp_path)


def test_a_cut_or_foreign_file_is_refused(words):
    file = words.folder / "words.arrow"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ScanlearnError, match="damaged"):
        open_words(words.folder)
    write_mapped(file, {"word": pa.array(np.zeros(len(words), np.int32))})
    with pytest.raises(ScanlearnError, match="lacks the column"):
        open_words(words.folder)
