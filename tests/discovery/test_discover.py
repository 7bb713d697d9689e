import json

import numpy as np
import pytest

from discovery.stores import image_store, volume_store
from scanlearn.cli import main
from scanlearn.discovery import discover as module
from scanlearn.discovery.discover import discover
from scanlearn.errors import ScanlearnError
from scanlearn.files import InUse, lock
from scanlearn.scans.store import Store
from scanlearn.scans.words import open_words

QUICK = {"classes": 4, "neighbours": 5, "neighbours_val": 2, "size": [10, 10, 8]}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Eight training, three validation and two test patients with two scans each."""
    return volume_store(tmp_path_factory.mktemp("discover"), scans=2)


@pytest.fixture(scope="module")
def values(store):
    return np.random.default_rng(0).random((len(store), 6)).astype(np.float32)


@pytest.fixture(scope="module")
def words(store, values, tmp_path_factory):
    return discover(store, tmp_path_factory.mktemp("words") / "words", descriptors=values, **QUICK)


def patients(store, rows):
    return store.catalog.codes("patient_id")[np.asarray(rows)].tolist()


# ---------------------------------------------------------------- the table


def test_the_table_has_every_crop_of_every_word(store, words):
    assert words.count == 4 and words.size == (10, 10, 8) and len(words) == 4 * (5 * 3 + 2)
    for word in range(4):
        for scale in range(3):
            at = (words.word == word) & (words.part == 0) & (words.scale == scale)
            assert sorted(words.rank[at]) == [0, 1, 2, 3, 4]
        at = (words.word == word) & (words.part == 1)
        assert sorted(words.rank[at]) == [1, 2] and (words.scale[at] == 0).all()  # no reference, base scale alone
    assert open_words(words.folder, store).same_as(words)


def test_words_take_the_nearest_scan_of_each_patient_from_their_own_part(store, words):
    for part, name in enumerate(("train", "val")):
        assert np.isin(words.row[words.part == part], store.splits[name]).all()
    for word in range(4):
        for part in range(2):
            rows = words.row[(words.word == word) & (words.part == part) & (words.scale == 0)]
            assert len(set(patients(store, rows))) == len(rows)
    references = words.row[(words.rank == 0) & (words.scale == 0)]
    assert len(set(patients(store, references))) == 4 and not words.distance[words.rank == 0].any()


def test_distances_are_those_of_the_descriptors(words, values):
    for word in range(4):
        reference = words.row[(words.word == word) & (words.rank == 0)][0]
        at = words.word == word
        far = np.linalg.norm(values[words.row[at]] - values[reference], axis=1)
        np.testing.assert_allclose(words.distance[at], far, atol=1e-6)
        train = at & (words.part == 0) & (words.scale == 0)
        assert (np.diff(words.distance[train][np.argsort(words.rank[train])]) >= 0).all()


def test_crops_lie_inside_their_scans_and_share_the_centre(store, words):
    shapes = store.shapes(words.row)
    assert (words.start >= 0).all() and (words.start + words.side <= shapes).all()
    base = words.scale == 0
    assert (words.side[base] == (10, 10, 8)).all()
    centre = (words.start + words.side / 2) / shapes
    for word in range(4):
        of_word = centre[base & (words.word == word)]
        assert np.ptp(of_word, axis=0).max() < 0.1
    assert (words.side[~base][:, 2] == 8).all() and len(set(words.side[~base][:, 0].tolist())) > 2


def test_the_planted_anatomy_recurs(words):
    found = words.settings["recurrence"]
    assert found["within"] > 0.5 and found["within"] > found["between"] + 0.3 and found["own"] > 2 * found["chance"]


def test_settings_hold_everything_that_was_told_and_neither_paths_nor_names(store, words):
    settings = words.settings
    assert {key: settings[key] for key in ("neighbours", "neighbours_val", "classes", "seed", "extra_crops")} == {
        "neighbours": 5,
        "neighbours_val": 2,
        "classes": 4,
        "seed": 0,
        "extra_crops": 2,
    }
    assert settings["patients"] == {"train": 8, "val": 3} and settings["scans"] == {"train": 16, "val": 6}
    text = json.dumps(settings)
    assert "/" not in text and not any(name in text for name in store.catalog.column("scan_id"))
    assert len(settings["points"]) == 4 and settings["tissue"]["name"] == "general"


def test_the_test_part_is_never_read(store, values, tmp_path, monkeypatch):
    seen = set()
    read = Store.read
    monkeypatch.setattr(Store, "read", lambda self, rows, *args: (seen.update(rows), read(self, rows, *args))[1])
    discover(store, tmp_path / "words", settings={"steps": 1, "batch_size": 2, "network.encoder.width": 1}, **QUICK)
    assert seen and not seen & set(store.splits["test"].tolist())


def test_the_seed_alone_decides(store, values, words, tmp_path):
    again = discover(store, tmp_path / "again", descriptors=values, **QUICK)
    other = discover(store, tmp_path / "other", descriptors=values, seed=1, **QUICK)
    for file in ("words.arrow", "words.json"):
        assert (again.folder / file).read_bytes() == (words.folder / file).read_bytes()
    assert (other.folder / "words.arrow").read_bytes() != (words.folder / "words.arrow").read_bytes()


# ---------------------------------------------------------------- ways


def test_one_shared_reference(store, values, tmp_path):
    words = discover(store, tmp_path / "w", descriptors=values, reference="shared", **QUICK)
    assert len(set(words.row[words.rank == 0].tolist())) == 1


def test_the_same_voxel_in_every_scan_and_small_scans_padded_or_passed_over(store, values, tmp_path):
    how = {**QUICK, "coordinate_space": "voxel", "size": [18, 18, 14], "neighbours": 2, "seed": 2}
    padded = discover(store, tmp_path / "pad", descriptors=values, **how)
    base = padded.scale == 0
    assert len(np.unique(padded.start[base], axis=0)) == len(np.unique(padded.start[base & (padded.rank == 0)], axis=0))
    skipped = discover(store, tmp_path / "skip", descriptors=values, small="skip", **{**how, "neighbours_val": 1})
    base = skipped.scale == 0
    inside = (skipped.start[base] + skipped.side[base] <= store.shapes(skipped.row[base])).all(axis=1)
    assert inside.all()
    with pytest.raises(ScanlearnError, match="8 neighbours are wanted, but only"):
        discover(store, tmp_path / "few", descriptors=values, small="skip", **{**how, "neighbours": 8})


def test_images_whose_rows_are_units(tmp_path):
    store = image_store(tmp_path)
    count = len(store.splits["train"])
    values = np.random.default_rng(0).random((len(store), 3))
    words = discover(
        store, tmp_path / "w", descriptors=values, per_patient=None, neighbours=count, classes=count, size=0.4
    )
    assert words.settings["neighbours"] == count and words.size == (16, 16)
    assert sorted(words.row[words.rank == 0].tolist()[::3]) == sorted(store.splits["train"].tolist())


def test_axes_that_point_different_ways_are_said(store, values, tmp_path, monkeypatch, capsys):
    turned = np.diag([1.0, -1.0, 1.0, 1.0])
    affine = Store.affine
    monkeypatch.setattr(Store, "affine", lambda self, row: affine(self, row) @ (turned if row % 2 else np.eye(4)))
    discover(store, tmp_path / "w", descriptors=values, **QUICK)
    assert "axes point 2 different ways" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"neighbours": 9}, "9 neighbours are wanted and the train part has 8"),
        ({"neighbours_val": 4}, "4 neighbours are wanted and the val part has 3"),
        ({"classes": 9}, "9 words need 9 reference patients"),
        ({"size": [30, 30, 30]}, "No scan has room for a crop of 30x30x30"),
        ({"tissue": "lung"}, "is for CT in the window -1000..1000 HU"),
        ({"small": "crop"}, "no way with small scans 'crop'"),
        ({"reference": "one"}, "There is no reference 'one'"),
        ({"coordinate_space": "mn"}, "did you mean 'mm'"),
        ({"extra_crops": -1}, "--extra-crops must be from 0 to 254"),
        ({"tries": 0}, "--tries must be from 1"),
        ({"encoder": "runs/x"}, "give one"),
        ({"descriptors": np.zeros((3, 2))}, r"one line for each of the 26 scans of the store, not of shape \(3, 2\)"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(store, values, tmp_path, changes, sentence):
    with pytest.raises(ScanlearnError, match=sentence):
        discover(store, tmp_path / "w", **{"descriptors": values, **QUICK, **changes})
    assert not (tmp_path / "w" / "words.json").exists()


# ---------------------------------------------------------------- the folder


def test_finished_words_are_kept_and_others_are_not_written_over(store, tmp_path, capsys, monkeypatch):
    how = {"settings": {"steps": 1, "batch_size": 2, "network.encoder.width": 1}}
    first = discover(store, tmp_path / "w", **how, **QUICK)
    before = (first.folder / "words.json").stat().st_mtime_ns
    assert discover(store, tmp_path / "w", **how, **QUICK).same_as(first)
    assert (first.folder / "words.json").stat().st_mtime_ns == before and "already" in capsys.readouterr().err
    with pytest.raises(ScanlearnError, match="holds words of another discovery already: choose another --out"):
        discover(store, tmp_path / "w", **how, **{**QUICK, "classes": 3})
    assert {path.name for path in first.folder.iterdir()} == {"words.arrow", "words.json", "autoencoder"}
    assert not (first.folder / "autoencoder" / "checkpoints").exists()


def test_two_processes_do_not_write_one_folder(store, values, tmp_path):
    (tmp_path / "w").mkdir()
    with (tmp_path / "w" / ".lock").open("ab") as held:
        lock(held, tmp_path)
        with pytest.raises(InUse):
            discover(store, tmp_path / "w", descriptors=values, **QUICK)


def test_an_error_in_the_end_leaves_no_table(store, values, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "recurrence", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        discover(store, tmp_path / "w", descriptors=values, **QUICK)
    assert not (tmp_path / "w" / "words.json").exists()


def test_the_command_line_discovers_and_says_what_comes_next(store, tmp_path, capsys):
    (tmp_path / "tiny.yaml").write_text(
        "base: autoencoder_3d_small\nname: tiny\nsteps: 1\nbatch_size: 2\nnetwork: {encoder: {width: 1}}\n"
    )
    out = str(tmp_path / "w")
    arguments = [
        "discover",
        store.location,
        "--out",
        out,
        "--classes",
        "3",
        "--neighbours",
        "0.5",
        "--size",
        "10",
        "10",
        "8",
    ]
    assert main([*arguments, "--autoencoder", str(tmp_path / "tiny.yaml"), "--per-patient", "1"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "3 words of 4 + 2 scans" in said and "Does it recur?" in said
    assert f"scanlearn pretrain {store.location} --recipe semantic_genesis_3d_small --words {out}" in said
    assert open_words(out, store).settings["neighbours"] == 4
