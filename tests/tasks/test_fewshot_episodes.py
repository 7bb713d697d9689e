import json
from types import SimpleNamespace

import numpy as np
import pytest

from scanlearn.catalog.table import Catalog
from scanlearn.errors import ScanlearnError
from scanlearn.tasks.fewshot.episodes import load_episodes
from scanlearn.tasks.fewshot.sampling import draw_episodes


class Paper(SimpleNamespace):
    """What episodes ask of a store, without a scan: a catalogue, parts and a key."""

    def __len__(self):
        return len(self.catalog)


def paper(patient, label, sha256=None, parts=None):
    count = len(patient)
    columns = {
        "scan_id": [f"scan{i:04}" for i in range(count)],
        "patient_id": [f"Quirkhaven{p}" for p in patient],
        "label": [str(c) for c in label],
        "sha256": sha256 or [""] * count,
    }
    catalog = Catalog.from_columns(columns)
    parts = parts or {"train": [], "val": [], "test": np.arange(count)}
    made = Paper(catalog=catalog, splits={k: np.asarray(v, np.int64) for k, v in parts.items()}, info={"key": "k1"})
    return made, catalog.labels("label", "class")


@pytest.fixture
def mixed():
    """60 patients with two images of each of three classes: every patient is of every class."""
    rows = np.arange(360)
    return paper(rows // 6, rows % 3)


def draw(store, column, **options):
    return draw_episodes(store, "label", column, **{"shots": [1, 5], "queries": 7, "episodes": 20, **options})


def patients(store, rows):
    return [store.catalog.column("patient_id")[row] for row in np.ravel(rows) if row >= 0]


@pytest.mark.parametrize("ways", [2, 3])
def test_no_patient_is_in_both_support_and_query_even_of_different_classes(mixed, ways):
    store, column = mixed
    drawn = draw(store, column, ways=ways)
    for e in range(len(drawn)):
        assert not set(patients(store, drawn.support[e])) & set(patients(store, drawn.query[e]))
        for rows in (drawn.support[e], drawn.query[e]):
            assert (column.codes[rows] == drawn.classes[e][:, None]).all()
            assert len(np.unique(rows)) == rows.size


def test_patients_who_share_a_file_count_as_one():
    # Patients 0..39 in pairs with the same file: of a pair at most one side may be asked about or learned from.
    rows = np.arange(40)
    store, column = paper(rows, rows // 2 % 2, sha256=[f"{p // 2:064x}" for p in rows])
    drawn = draw(store, column, shots=[4], queries=5)
    for e in range(len(drawn)):
        assert not set(drawn.support[e].ravel() // 2) & set(drawn.query[e].ravel() // 2)


def test_images_come_from_as_many_patients_as_there_are():
    store, column = paper(np.arange(120) // 3, np.arange(120) // 3 % 2)  # 20 patients of each class, 3 images each
    drawn = draw(store, column, shots=[10], queries=15)
    for e in range(len(drawn)):
        for w in range(2):
            assert len(set(patients(store, drawn.support[e, w]))) == 10
            asked = patients(store, drawn.query[e, w])
            assert len(set(asked)) == 10 and sorted(map(asked.count, set(asked))) == [1] * 5 + [2] * 5
    twice = draw(store, column, shots=[10], queries=15, per_patient=2)
    assert all(len(set(patients(store, rows))) == 5 for rows in twice.support.reshape(-1, 10))


def test_few_shots_are_the_start_of_many_and_few_episodes_the_first_of_many(mixed):
    many, few = draw(*mixed), draw(*mixed, shots=[2], episodes=4)
    assert np.array_equal(many.support[:4, :, :2], few.support) and np.array_equal(many.classes[:4], few.classes)
    assert len(np.unique(many.support, axis=0)) == 20
    assert not np.array_equal(draw(*mixed, seed=1).support, many.support)


def test_other_names_of_the_patients_give_the_same_episodes():
    a, b = (draw(*paper(names, np.arange(80) % 2)) for names in (np.arange(80) // 2, 900 - np.arange(80) // 2))
    assert np.array_equal(a.support, b.support) and np.array_equal(a.query, b.query)


def test_every_class_takes_part_where_there_are_more_than_ways(mixed):
    drawn = draw(*mixed, ways=2, episodes=40)
    assert {tuple(c) for c in drawn.classes} == {(0, 1), (0, 2), (1, 2)}


def test_officially_the_support_is_of_the_train_part_and_all_of_the_test_part_is_asked():
    rows = np.arange(120)
    parts = {"train": rows[:80], "val": rows[80:90], "test": rows[90:]}
    store, column = paper(rows, rows % 2, parts=parts)
    drawn = draw(store, column, mode="official")
    assert drawn.support.max() < 80
    assert all(np.array_equal(np.sort(query.ravel()), rows[90:]) for query in drawn.query)


def test_too_few_patients_are_refused_with_the_class_and_their_number():
    store, column = paper([*range(30), *range(30, 34)], [0] * 30 + [1] * 4)
    with pytest.raises(ScanlearnError, match="'1' has 4 patients in the test part, which give 4 of 5 shots"):
        draw(store, column)
    with pytest.raises(ScanlearnError, match="'1' has 0 scans in the test part for queries"):
        draw(store, column, shots=[4])
    drawn = draw(store, column, shots=[2])
    assert ((drawn.query >= 0).sum(2) == [7, 2]).all()
    with pytest.raises(ScanlearnError, match="'1' has 2 scans"):
        draw(store, column, shots=[2], strict=True)
    with pytest.raises(ScanlearnError, match="too few for 3 ways"):
        draw(store, column, ways=3)


@pytest.mark.parametrize("mode", ["resample", "official"])
def test_episodes_come_back_from_their_file_which_names_nobody(tmp_path, mode):
    rows = np.arange(60)
    store, column = paper(rows, rows % 2, parts={"train": rows[:40], "val": [], "test": rows[40:]})
    drawn = draw(store, column, mode=mode, shots=[3], part="train", queries=20)
    drawn.save(tmp_path / "episodes.json")
    back = load_episodes(tmp_path / "episodes.json", store, column)
    for name in ("classes", "support", "query"):
        assert np.array_equal(getattr(back, name), getattr(drawn, name))
    assert back.settings == drawn.settings
    text = (tmp_path / "episodes.json").read_text()
    assert "Quirkhaven" not in text and "scan0" not in text


def test_a_file_for_another_store_or_one_that_was_changed_is_refused(tmp_path, mixed):
    store, column = mixed
    file = tmp_path / "episodes.json"
    draw(store, column).save(file)
    data = json.loads(file.read_text())

    def refused(sentence, change):
        changed = json.loads(json.dumps(data))
        change(changed)
        file.write_text(json.dumps(changed))
        with pytest.raises(ScanlearnError, match=sentence):
            load_episodes(file, store, column)

    first = data["episodes"][0]
    own = first["support"][0][0]
    leak = own + 3 if own % 6 < 3 else own - 3  # the same patient's other image of this class
    refused("another store", lambda d: d.update(store="k2"))
    refused("version 9", lambda d: d.update(version=9))
    refused("is damaged", lambda d: d["episodes"][0].pop("query"))
    refused("is damaged", lambda d: d["episodes"][0]["support"].pop())
    refused("is damaged", lambda d: d["episodes"][0]["query"][0].append(0.5))
    refused("the store has not", lambda d: d["episodes"][0]["query"][0].append(10**6))
    refused("other classes", lambda d: d["episodes"][0]["query"][0].append(own // 3 * 3 + (own + 1) % 3))
    refused("both its support and its query", lambda d: d["episodes"][0]["query"][0].append(leak))
    refused("tells", lambda d: d.update(names=["a", "b", "c"]))
