import numpy as np
import pytest

from scanlearn.errors import ScanlearnError
from scanlearn.scans.episodes import EpisodeWalk

NAMES = ["a", "b", "c", "d"]


@pytest.fixture
def mixed():
    """Class and patient of 480 scans of 60 patients: every patient has two scans of each of four classes."""
    rows = np.arange(480)
    return rows % 4, rows // 8


def walk(codes, group, names=NAMES, **changed):
    return EpisodeWalk(codes, group, names, **{"ways": 3, "shots": 2, "queries": 5, "seed": 0, **changed})


def parts(made, e, shots=2, queries=5):
    """(support (W, k), query (W, q)) of an episode."""
    items = made.episode(e)
    ways = made.ways
    return items[: ways * shots].reshape(ways, shots), items[ways * shots :].reshape(ways, queries)


def test_an_episode_is_support_then_query_way_by_way_of_distinct_classes_and_scans(mixed):
    codes, group = mixed
    made = walk(codes, group)
    for e in range(50):
        support, query = parts(made, e)
        classes = codes[support[:, 0]]
        assert len(set(classes)) == 3
        assert (codes[support] == classes[:, None]).all() and (codes[query] == classes[:, None]).all()
        assert len(np.unique(made.episode(e))) == made.size == 21


def test_no_patient_is_in_support_and_query_across_classes_too(mixed):
    codes, group = mixed
    made = walk(codes, group)
    for e in range(100):
        support, query = parts(made, e)
        assert not np.isin(group[query], group[support]).any()
        assert all(len(np.unique(group[row])) == 2 for row in support)  # each shot is of another patient


def test_classes_and_scans_come_equally_often(mixed):
    codes, group = mixed
    made = walk(codes, group)
    seen = np.concatenate([made.episode(e) for e in range(2000)])
    classes = np.bincount(codes[seen]) / len(seen)
    assert abs(classes - 0.25).max() < 0.02
    counts = np.bincount(seen, minlength=480)
    assert counts.min() > 0.6 * counts.mean() and counts.max() < 1.5 * counts.mean()


def test_the_walk_can_be_entered_anywhere_in_batches_of_any_size(mixed):
    made = walk(*mixed)
    whole = made.items(np.arange(10 * made.size))
    assert np.array_equal(whole, np.concatenate([made.episode(e) for e in range(10)]))
    again = walk(*mixed)
    assert np.array_equal(again.items(np.arange(100, 150)), whole[100:150])
    assert np.array_equal(again.items(np.array([7, 3, 205])), whole[[7, 3, 205]])
    assert not np.array_equal(walk(*mixed, seed=1).items(np.arange(200)), whole[:200])


def test_episodes_do_not_repeat(mixed):
    made = walk(*mixed)
    assert len({tuple(made.episode(e)) for e in range(300)}) == 300


def test_a_class_that_might_not_fill_its_queries_is_refused_before_the_first_episode():
    codes, group = np.arange(60) % 3, np.arange(60)
    walk(codes, group, NAMES[:3], queries=18)  # 20 patients of each class, two in the support
    with pytest.raises(ScanlearnError, match="'a' has 20 patients with 20 training scans; an episode may leave 18 of"):
        walk(codes, group, NAMES[:3], queries=19)
    with pytest.raises(ScanlearnError, match="cannot be drawn from 3 classes"):
        walk(codes, group, NAMES[:3], ways=4)


def test_patients_of_several_classes_count_as_taken_by_the_supports_of_all():
    rows = np.arange(120)
    codes, group = rows % 3, rows // 3  # 40 patients, each with one scan of each class
    walk(codes, group, NAMES[:3], queries=34)  # six are in the supports
    with pytest.raises(ScanlearnError, match="may leave 34 of these for 35"):
        walk(codes, group, NAMES[:3], queries=35)
    drawn = [walk(codes, group, NAMES[:3], queries=34).episode(e) for e in range(20)]
    assert all(len(np.unique(items)) == 108 for items in drawn)
