import numpy as np
import pytest
import torch

from scanlearn.catalog.table import Catalog
from scanlearn.errors import ScanlearnError
from scanlearn.scans.loader import Loader
from scanlearn.scans.sampling import BLOCK, SharedWalk, Shares, Walk, shares_of


def catalog(lidc=88, deeplesion=12, blank=0):
    words = ["lidc"] * lidc + ["deeplesion"] * deeplesion + [""] * blank
    return Catalog.from_columns({"scan_id": [f"s{n}" for n in range(len(words))], "dataset": words})


def drawn(shares, count, seed=3, start=0):
    return SharedWalk(shares, seed).items(np.arange(start, start + count))


def test_each_group_gets_its_share_whatever_its_size():
    rows, shares = shares_of(catalog(), np.arange(100), {"dataset": {"lidc": 1, "deeplesion": 1}})
    items = drawn(shares, 4 * BLOCK)
    assert (items < 88).sum() == (items >= 88).sum() == 2 * BLOCK and np.array_equal(rows, np.arange(100))
    _, shares = shares_of(catalog(), np.arange(100), {"dataset": {"lidc": 3, "deeplesion": 1}})
    assert (drawn(shares, BLOCK) < 88).sum() == 3 * BLOCK // 4


def test_within_a_group_every_scan_comes_equally_often_in_passes_of_a_new_order():
    shares = Shares(np.array([0, 1, 0, 1, 1, 0, 0]), (1.0, 2.0))
    items = drawn(shares, 3 * BLOCK)
    for members in ([0, 2, 5, 6], [1, 3, 4]):
        counts = np.bincount(items, minlength=7)[members]
        assert counts.max() - counts.min() <= 1
    # The steps of a group's own walk are taken, each once, block by block.
    quota, walk = shares.quotas()[1], SharedWalk(shares, 3).walks[1]
    expected = np.array([1, 3, 4])[walk.items(np.arange(quota))]
    assert sorted(items[:BLOCK][np.isin(items[:BLOCK], [1, 3, 4])]) == sorted(expected)


def test_a_walk_by_shares_depends_on_seed_and_number_alone():
    shares = Shares(np.arange(50) % 3, (1.0, 5.0, 2.0))
    whole = drawn(shares, 3 * BLOCK)
    assert np.array_equal(whole[5000:5100], drawn(shares, 100, start=5000))
    assert not np.array_equal(whole, drawn(shares, 3 * BLOCK, seed=4))
    short = whole[:400]
    runs = np.diff(np.flatnonzero(np.diff(np.isin(short, np.flatnonzero(shares.group == 1)))))
    assert runs.max() < 40  # the groups are mixed and do not come one after the other


@pytest.mark.parametrize("weights", [(1, 1, 1), (1e-9, 1), (3, 1, 4, 1, 5), (1,), (0.0, 2.0), (1,) + (1e-9,) * 900])
def test_quotas_fill_a_block_and_keep_the_smallest_weight(weights):
    quotas = Shares(np.arange(len(weights)), tuple(map(float, weights))).quotas()
    assert quotas.sum() == BLOCK and ((quotas > 0) == (np.array(weights) > 0)).all()
    if len(weights) < 10:
        assert np.abs(quotas - np.array(weights) / sum(weights) * BLOCK).max() < len(weights)


def test_a_weight_of_nothing_leaves_the_rows_out():
    rows, shares = shares_of(catalog(), np.arange(0, 100, 2), {"dataset": {"lidc": 0, "deeplesion": 1}})
    assert rows.tolist() == list(range(88, 100, 2)) and set(shares.group) == {0}
    assert shares_of(catalog(), np.arange(5), None)[1] is None


@pytest.mark.parametrize(
    "sampling, message",
    [
        ({"dataset": {"lidk": 1, "deeplesion": 1}}, "'lidk'.*lidc"),
        ({"datasett": {"lidc": 1}}, "datasett"),
        ({"dataset": {"lidc": 1}}, "no weight to 'deeplesion'"),
        ({"dataset": {"lidc": 1, "deeplesion": -1}}, "0 or more"),
        ({"dataset": {"lidc": 1, "deeplesion": float("nan")}}, "0 or more"),
        ({"dataset": {"lidc": 0, "deeplesion": 0}}, "no scan to train on"),
        ({"dataset": {}}, "a weight for each"),
        ({}, "one column"),
        ({"patient_id": {"P1": 1}}, "a column of groups such as dataset or modality, not patient_id"),
        ({"dataset": {"lidc": 1}, "modality": {"CT": 1}}, "one column"),
    ],
)
def test_sampling_that_does_not_fit_is_told_in_one_sentence(sampling, message):
    with pytest.raises(ScanlearnError, match=message):
        shares_of(catalog(), np.arange(100), sampling)


def test_words_without_a_scan_to_train_on_and_scans_without_a_word_are_told():
    with pytest.raises(ScanlearnError, match="deeplesion has no scan"):
        shares_of(catalog(), np.arange(80), {"dataset": {"lidc": 1, "deeplesion": 1}})
    with pytest.raises(ScanlearnError, match="scans without a word"):
        shares_of(catalog(blank=3), np.arange(103), {"dataset": {"lidc": 1, "deeplesion": 1}})


def test_workers_ranks_and_a_later_start_change_nothing_in_what_is_drawn_by_shares(slices):
    rows = np.array([1, 4, 5, 9, 13])
    shares = Shares(np.array([0, 0, 0, 0, 1]), (1.0, 1.0))

    def walk(**settings):
        settings = {"batch_size": 8, "size": None, "seed": 3, "stop": 6, "shares": shares} | settings
        return [batch["row"] for batch in Loader(slices, rows, **settings)]

    whole = walk()
    ranks = [walk(rank=rank, world_size=2) for rank in range(2)]
    for one, first, second, later in zip(whole, *ranks, [*whole[:2], *walk(start=2)], strict=True):
        assert torch.equal(one, torch.cat([first, second])) and torch.equal(one, later)
    assert all(torch.equal(one, other) for one, other in zip(whole, walk(workers=2), strict=True))
    share = (torch.cat(whole) == 13).float().mean()
    assert 0.25 < share < 0.75  # a fifth of the scans, half of the samples


def test_the_plain_walk_is_every_entry_once_a_pass():
    items = Walk(5, 3).items(np.arange(20)).reshape(4, 5)
    assert (
        all(sorted(one) == list(range(5)) for one in items.tolist()) and len({tuple(one) for one in items.tolist()}) > 1
    )
