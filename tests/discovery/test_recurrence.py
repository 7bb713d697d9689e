import numpy as np
import pytest

from discovery.stores import volume_store
from scanlearn.discovery.recurrence import compare, recurrence, recurrence_line, sample


def test_figures_of_a_matrix_by_hand():
    word, patient = np.array([0, 0, 1, 1]), np.array([1, 2, 2, 3])
    similarity = np.array([[1, 0.6, 0.1, 0.7], [0.6, 1, 0.9, 0.2], [0.1, 0.9, 1, 0.5], [0.7, 0.2, 0.5, 1.0]])
    found = compare(similarity, word, patient)
    assert found["within"] == pytest.approx((0.6 + 0.5) / 2)
    assert found["between"] == pytest.approx((0.1 + 0.7 + 0.2) / 3, abs=1e-4)  # 0.9 is one patient twice
    assert found["own"] == pytest.approx(2 / 4)  # 0 -> 3 and 3 -> 0 are of the other word; 1 -> 0 and 2 -> 3 are not
    assert found["chance"] == pytest.approx((1 / 3 + 1 / 2 + 1 / 2 + 1 / 3) / 4, abs=1e-4)


def test_one_word_or_one_patient_gives_no_figures():
    assert compare(np.ones((2, 2)), np.array([0, 0]), np.array([1, 2]))["between"] is None
    assert set(compare(np.ones((2, 2)), np.array([0, 1]), np.array([1, 1])).values()) == {None}
    assert "-" in recurrence_line(dict.fromkeys(("within", "between", "own", "chance")))


def table(store, count, rng=None):
    """A word for each of four corners of every scan; with ``rng`` at random places instead."""
    lines = []
    for word, corner in enumerate([(0, 0, 0), (1, 1, 0), (0, 1, 1), (1, 0, 1)]):
        for rank, row in enumerate(range(count)):
            slack = np.array(store.shape(row)) - 10
            start = np.array(corner) * slack if rng is None else rng.integers(0, slack + 1)
            lines.append((word, row, rank, start))
    columns = {name: np.array([line[i] for line in lines]) for i, name in enumerate(("word", "row", "rank", "start"))}
    none = np.zeros(len(lines), int)
    return columns | {"part": none, "scale": none, "side": np.full((len(lines), 3), 10)}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return volume_store(tmp_path_factory.mktemp("recurrence"), parts=("train",) * 9)


def test_the_same_place_of_the_same_anatomy_recurs_and_random_places_do_not(store):
    planted = recurrence(store, table(store, 9), (10, 10, 10))
    assert planted["within"] > 0.6 > 0.3 > planted["between"] and planted["own"] > 0.95
    assert (planted["words"], planted["crops"], planted["size"]) == (4, 36, [10, 10, 10])
    assert min(planted["by_word"]["within"]) > 0.5 and planted["by_word"]["word"] == [0, 1, 2, 3]
    chance = recurrence(store, table(store, 9, np.random.default_rng(0)), (10, 10, 10))
    assert abs(chance["within"] - chance["between"]) < 0.15 and chance["own"] < 0.5


def test_correlations_are_those_of_numpy(store):
    columns = {name: values[[0, 10]] for name, values in table(store, 9).items()} | {"word": np.array([0, 0])}
    crops = [
        store.read([row], [(s, s + 10)])[0].ravel() for row, s in zip(columns["row"], columns["start"], strict=True)
    ]
    windows = [[float(bound[0]) for bound in store.window([row])] for row in columns["row"]]
    unit = [np.clip((crop - low) / (high - low), 0, 1) for crop, (low, high) in zip(crops, windows, strict=True)]
    found = recurrence(store, columns, (10, 10, 10))
    assert found["within"] == pytest.approx(np.corrcoef(*unit)[0, 1], abs=1e-3)


def test_the_sample_is_even_over_words_and_ranks_and_holds_training_crops_at_base_scale():
    word, rank, scale, part = (a.ravel() for a in np.meshgrid(range(60), range(30), range(3), range(2), indexing="ij"))
    at = sample({"word": word, "rank": rank, "scale": scale, "part": part})
    assert (scale[at] == 0).all() and (part[at] == 0).all() and len(at) == 400
    words, counts = np.unique(word[at], return_counts=True)
    assert (len(words), words[0], words[-1]) == (40, 0, 59) and (counts == 10).all()
    assert sorted(rank[at][word[at] == 0])[:2] == [0, 3] and rank[at].max() == 29
