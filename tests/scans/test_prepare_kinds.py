"""Every kind of data set from its files through a store to a mask that ``predict`` would write."""

import nibabel as nib
import numpy as np
import pytest

from scanlearn.catalog.table import Catalog
from scanlearn.errors import Interrupted
from scanlearn.scans.conform import Grid, conform
from scanlearn.scans.prepare import prepare
from scanlearn.scans.read import read_scan, write_mask_like
from scanlearn.scans.sources import FileSource
from scans.made_kinds import KINDS, SHAPE

SPACING = (0.7, 0.9, 2.0)


@pytest.fixture(scope="module", params=KINDS)
def made(request, tmp_path_factory):
    root = tmp_path_factory.mktemp(request.param) / "data"
    root.mkdir()
    return KINDS[request.param](root)


@pytest.fixture(scope="module")
def store(made):
    return prepare(made.source, made.source.with_name("store"), workers=0, identifiers="kept")


@pytest.fixture(scope="module")
def resampled(made):
    return prepare(made.source, made.source.with_name("even"), spacing=SPACING, workers=0, identifiers="kept")


def scans(store, made):
    """(row, truth) of every scan of the data set."""
    names = store.catalog.column("scan_id")
    assert sorted(names) == sorted(made.truths)
    return [(row, made.truths[name]) for row, name in enumerate(names)]


def nearest(affine, shape, truth):
    """The truth's voxel next to each voxel of a grid, through RAS: (indices (3, *shape), largest way along any axis)."""
    back = np.linalg.inv(truth.affine) @ affine
    exact = np.tensordot(back[:3, :3], np.indices(shape), axes=1) + back[:3, 3].reshape(3, 1, 1, 1)
    found = np.clip(np.rint(exact), 0, np.array(truth.mask.shape).reshape(3, 1, 1, 1) - 1).astype(int)
    return found, np.abs(exact - found).max(axis=0)


def test_every_voxel_lies_where_another_library_says_and_so_does_its_mask(store, made):
    for row, truth in scans(store, made):
        assert np.allclose(sorted(store.spacing(row)), sorted(np.linalg.norm(truth.affine[:3, :3], axis=0)), rtol=1e-5)
        voxels, mask = store.read([row])[0] * store.factor(row), store.read_masks([row])[0]
        if made.located:
            (i, j, k), apart = nearest(store.affine(row), store.shape(row), truth)
            assert apart.max() < 1e-3 and mask.size == truth.mask.size
            assert np.array_equal(voxels, truth.voxels[:, i, j, k]) and np.array_equal(mask, truth.mask[i, j, k])
        else:  # the file knows how large its voxels are, not where they lie
            assert np.array_equal(voxels, truth.voxels) and np.array_equal(mask, truth.mask)
        assert set(np.unique(mask)) == {0, 1, 2}


def test_on_another_grid_scan_and_mask_lie_where_they_did(resampled, made):
    for row, truth in scans(resampled, made):
        shape, spacing = np.array(resampled.shape(row)), np.array(resampled.spacing(row))
        assert np.allclose(spacing, SPACING, rtol=0.12)  # whole voxels fill the scan
        if not made.located:
            assert np.allclose(shape * spacing, np.array(SHAPE) * np.diag(truth.affine)[:3], rtol=1e-5)
            continue
        (i, j, k), apart = nearest(resampled.affine(row), tuple(shape), truth)
        assert apart.max() < 0.501
        mask, voxels = resampled.read_masks([row])[0], resampled.read([row])[0][0] * resampled.factor(row)
        assert np.array_equal((mask - truth.mask[i, j, k])[apart < 0.49], np.zeros((apart < 0.49).sum()))
        assert np.corrcoef(voxels.ravel(), truth.voxels[0, i, j, k].ravel())[0, 1] > 0.95


def test_what_predict_reads_is_what_was_trained_on_and_what_it_writes_overlays(resampled, made, tmp_path):
    catalog = Catalog.from_source(made.source)
    names, grid, source = catalog.column("scan_id"), Grid.of(resampled.info["settings"]), FileSource(catalog)
    for row, truth in scans(resampled, made):
        at = names.index(resampled.catalog.column("scan_id")[row])
        item = conform(source, at, grid, catalog.column("modality")[at], 0, names[at])
        assert np.array_equal(item.array * item.factor, resampled.read([row])[0] * resampled.factor(row))
        found = item.placement.undo(resampled.read_masks([row])[0][None], nearest=True)[0]
        written = nib.load(write_mask_like(found, read_scan(catalog.column("paths")[at]), tmp_path / f"{row}.nii.gz"))
        mask, expected = np.asanyarray(written.dataobj), truth.mask
        if made.located:
            (i, j, k), apart = nearest(written.affine, mask.shape, truth)
            assert apart.max() < 1e-3
            expected = truth.mask[i, j, k]
        assert (mask == expected).mean() > 0.95
        overlap = np.count_nonzero((mask > 0) & (expected > 0))
        assert 2 * overlap > 0.85 * (np.count_nonzero(mask) + np.count_nonzero(expected))


@pytest.mark.parametrize("kind", ["nnunet", "decathlon"])
def test_the_classes_of_masks_have_the_names_of_the_data_set(kind, tmp_path, capsys):
    (tmp_path / "data").mkdir()
    made = KINDS[kind](tmp_path / "data")
    assert prepare(made.source, tmp_path / "store", workers=0).mask_classes == ["Anterior", "Posterior"]
    assert "3 with masks of Anterior, Posterior." in capsys.readouterr().err
    picked = Catalog.from_source(made.source).take([0, 2])
    picked.save(tmp_path / "two.parquet")
    assert prepare(tmp_path / "two.parquet", tmp_path / "two", workers=0).mask_classes == ["Anterior", "Posterior"]


@pytest.mark.parametrize(
    ("label", "classes"),
    [('"7": "Posterior"', ["Anterior", "2"]), ('"2": "background"', ["Anterior", "background 2"])],
)
def test_a_value_without_a_name_of_its_own_keeps_its_number(tmp_path, label, classes):
    (tmp_path / "data").mkdir()
    made = KINDS["decathlon"](tmp_path / "data")
    path = made.source / "dataset.json"
    path.write_text(path.read_text().replace('"2": "Posterior"', label))
    assert prepare(made.source, tmp_path / "store", workers=0).mask_classes == classes


def test_in_a_mixed_tree_everything_is_read_left_out_by_name_or_noted(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    made = KINDS["mixed_dicom"](tmp_path / "data")
    store = prepare(made.source, tmp_path / "store", workers=0)
    said = capsys.readouterr().err
    assert len(store) == 3 and store.masked.all() and store.info["intensity"]["modalities"] == {"CT": 3}
    for kind in ("structured report 1", "segmentation 1", "screenshot or secondary capture 1", "localiser 1"):
        assert kind in said
    assert store.catalog.patients_known
    assert [entry["reason"] for entry in store.info["quarantine"]] == [
        "holds no image, or is cut off in its header: it gives neither rows nor columns."
    ]
    turned, tilt = store.info["notes"]
    assert "another grid of voxels" in turned["note"] and turned["scans"] == 3
    assert "tilted gantry" in tilt["note"] and tilt["scans"] == 1
    assert tilt["note"] in said and "window: genesis for CT" in said


def test_notes_of_scans_that_were_done_before_a_kill_are_told_after_it(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    made = KINDS["mixed_dicom"](tmp_path / "data")
    whole = prepare(made.source, tmp_path / "whole", workers=0)

    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("scanlearn.scans.build.finish", stopped)
        with pytest.raises(Interrupted, match="Stopped"):
            prepare(made.source, tmp_path / "store", workers=0)
    assert prepare(made.source, tmp_path / "store", workers=0).info["notes"] == whole.info["notes"] != []
