import numpy as np
import pytest
import torch
from runs import genesis_recipe

from scanlearn.catalog.table import Catalog
from scanlearn.engine.pretrain import pretrain
from scanlearn.engine.recipe import parse_recipe
from scanlearn.engine.train import Views
from scanlearn.scans.loader import Loader
from scanlearn.study import looks
from scanlearn.study.facts import read_facts
from word_tables import word_table


@pytest.mark.parametrize("kind", ["pretrain", "volumes"])
def test_the_views_are_those_of_the_first_training_step(runs, people, volumes, kind):
    run, store = (runs.pretrain, people) if kind == "pretrain" else (volumes.run, volumes.store)
    facts = read_facts(run)
    shown = looks.first_views(facts, store, 3)
    recipe = parse_recipe(facts.recipe)
    size = tuple(recipe.size) if recipe.size else None
    rows = np.asarray(store.splits["train"])
    batch = next(iter(Loader(store, rows, batch_size=recipe.batch_size, size=size, seed=0, stop=1)))
    trained = Views(recipe, store, 0, torch.device("cpu"), torch.contiguous_format)(batch)
    assert np.array_equal(shown.rows, batch["row"][:3])
    for name, view in trained.items():
        assert torch.equal(shown.views[name], view[:3])


def test_a_run_on_words_is_shown_with_its_own_crops(volumes, tmp_path):
    words = word_table(volumes.store, tmp_path / "words", (16, 16, 16))
    recipe = genesis_recipe(steps=1, patches="words", monitor={"every": -1})
    pretrain(volumes.store, recipe, tmp_path / "run", words=words.folder)
    shown = looks.first_views(read_facts(tmp_path / "run"), volumes.store, 3)
    patches = words.patches()
    for row, image in zip(shown.rows, shown.image, strict=True):
        boxes = [(patches.starts[i], patches.starts[i] + 16) for i in np.flatnonzero(patches.rows == row)]
        cuts = volumes.store.read([row] * len(boxes), boxes)
        assert any(np.allclose(image.numpy() * 255, cut, atol=0.01) for cut in cuts)


def sample(features, groups, patients):
    x = np.asarray(features, np.float64)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    return looks.Sample(np.arange(len(x)), x, groups, "finding", np.array(patients))


def test_neighbours_are_the_nearest_by_cosine_and_never_of_the_same_patient():
    generator = np.random.default_rng(0)
    found = sample(generator.normal(size=(30, 4)), ["a"] * 30, np.arange(30) // 3)
    index, cosine = looks.nearest(found, 5)
    for i in range(30):
        order = sorted(
            (j for j in range(30) if found.patients[j] != found.patients[i]),
            key=lambda j: -float(np.dot(found.features[i], found.features[j])),
        )
        assert list(index[i]) == order[:5]
        assert np.allclose(cosine[i], [np.dot(found.features[i], found.features[j]) for j in order[:5]])


def test_neighbours_that_do_not_exist_are_left_out():
    found = sample(np.eye(4), ["a"] * 4, ["p", "p", "p", "q"])
    index, _ = looks.nearest(found, 3)
    assert (index[:3, 0] == 3).all() and (index[:3, 1:] == -1).all()


def test_queries_take_the_groups_in_turn_and_no_patient_twice():
    found = sample(np.random.default_rng(1).normal(size=(40, 3)), ["a"] * 36 + ["b"] * 4, np.arange(40) // 2)
    chosen = looks.queries(found, 6)
    assert len({found.patients[i] for i in chosen}) == 6
    assert sum(found.groups[i] == "b" for i in chosen) == 2


def test_the_agreement_of_labels_is_counted_against_chance():
    found = sample(np.repeat(np.eye(2), 10, axis=0), ["a"] * 10 + ["b"] * 10, np.arange(20))
    index, _ = looks.nearest(found, 5)
    assert "100\xa0% of the five nearest" in looks._agreement(found, index)
    assert "by chance it would be 50\xa0%" in looks._agreement(found, index)


class Labelled:
    """A stand-in for a store that only has a catalogue."""

    def __init__(self, patients, **columns):
        self.catalog = Catalog.from_columns(
            {"scan_id": list(map(str, range(len(patients)))), "patient_id": patients} | columns
        )


def test_a_label_column_that_could_name_a_person_is_not_shown():
    patients = [f"p{i}" for i in range(12)]
    names, sides = [f"name {i // 2}" for i in range(12)], ["left", "right"] * 6
    assert looks.label_column(Labelled(patients, doctor=names, side=sides)) == "side"
    assert looks.label_column(Labelled(patients, doctor=names)) is None


def test_the_map_of_collapsed_features_has_no_directions_and_no_nan():
    points, shares = looks.principal_map(np.ones((5, 8)))
    assert np.isfinite(points).all() and not shares.any()
    points, shares = looks.principal_map(np.random.default_rng(0).normal(size=(50, 3)) * [5, 2, 1])
    assert points.shape == (50, 2) and shares[0] > shares[1] > 0
    assert np.abs(np.corrcoef(points.T)[0, 1]) < 1e-9


def test_scans_whose_features_are_not_finite_are_left_out_of_the_map_and_it_is_said(capsys):
    features = np.random.default_rng(0).normal(size=(9, 4))
    expected, shares = looks.principal_map(features[1:])
    features[0, 2] = np.nan
    points, same = looks.principal_map(features)
    assert np.isnan(points[0]).all() and np.array_equal(points[1:], expected) and np.array_equal(shares, same)
    assert "features of 1 of 9 scans are not finite" in capsys.readouterr().err
    points, shares = looks.principal_map(np.full((3, 4), np.inf))
    assert np.isnan(points).all() and not shares.any()


def test_scans_that_would_take_too_long_are_not_embedded(runs, people, monkeypatch):
    facts = read_facts(runs.pretrain)
    monkeypatch.setattr(looks, "SECONDS", 0.0)
    assert looks.embed_sample(facts, people, looks.trained_network(facts), None) is None
