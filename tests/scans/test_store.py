import json
import pickle

import numpy as np
import pytest

from scanlearn.errors import ScanlearnError
from scanlearn.scans.foreground import VOXELS_PER_CLASS, Foreground, sample_voxels
from scanlearn.scans.store import open_store


def naive_box(array, start, stop, fill):
    """Voxel by voxel: what lies outside holds ``fill``."""
    out = np.full([b - a for a, b in zip(start, stop, strict=True)], fill, array.dtype)
    for at in np.ndindex(out.shape):
        index = tuple(a + i for a, i in zip(start, at, strict=True))
        if all(0 <= i < s for i, s in zip(index, array.shape, strict=True)):
            out[at] = array[index]
    return out


@pytest.mark.parametrize(
    ("start", "stop"), [((3, 2, 1), (9, 8, 7)), ((-4, 10, 5), (6, 30, 40)), ((90, 0, 0), (95, 5, 5))]
)
def test_a_box_of_a_volume_is_padded_with_the_low_end_of_its_window(volumes, start, stop):
    whole, masks = volumes.read([3])[0], volumes.read_masks([3])[0]
    got = volumes.read([3], [(start, stop)])[0]
    assert got.dtype == volumes.dtype
    assert np.array_equal(got[0], naive_box(whole[0], start, stop, -1000))
    assert np.array_equal(volumes.read_masks([3], [(start, stop)])[0], naive_box(masks, start, stop, 0))


@pytest.mark.parametrize(("start", "stop"), [((3, 2), (9, 8)), ((-4, 10), (6, 30))])
def test_a_box_of_a_slice_is_cut_and_padded(slices, start, stop):
    rows = [5, 0, 5]
    whole, masks = slices.read(rows), slices.read_masks(rows)
    for n, got in enumerate(slices.read(rows, [(start, stop)] * 3)):
        assert np.array_equal(got[0], naive_box(whole[n][0], start, stop, 0))
    for n, got in enumerate(slices.read_masks(rows, [(start, stop)] * 3)):
        assert np.array_equal(got, naive_box(masks[n], start, stop, 0))


def test_nothing_asked_gives_nothing(slices):
    assert slices.read([]) == [] and slices.read_masks([]) == []


def test_a_pickled_store_opens_its_own_arrays(volumes):
    volumes.read([0])
    copy = pickle.loads(pickle.dumps(volumes))
    assert copy._open == {} and np.array_equal(copy.read([2])[0], volumes.read([2])[0])


def test_a_store_is_opened_by_its_url(slices, volumes):
    for store in (slices, volumes):
        remote = open_store(f"file://{store.path}")
        assert len(remote) == len(store) and remote.catalog.table.equals(store.catalog.table)
        assert np.array_equal(remote.read([1])[0], store.read([1])[0])
    with pytest.raises(ScanlearnError, match="is no prepared store"):
        open_store(f"file://{slices.path}/images")


def test_what_is_no_store_or_of_another_version_is_refused(tmp_path):
    with pytest.raises(ScanlearnError, match="is no prepared store; make one"):
        open_store(tmp_path)
    (tmp_path / "store.json").write_text(json.dumps({"version": 99}))
    with pytest.raises(ScanlearnError, match="version 99"):
        open_store(tmp_path)


def test_sampled_voxels_are_of_their_class_and_do_not_repeat():
    mask = np.random.default_rng(0).integers(0, 4, (12, 11, 10), dtype=np.uint8)
    mask[mask == 3] = 0
    mask[2, 3, 4] = 3
    sampled = sample_voxels(mask, 0, "scan")
    assert list(sampled) == [1, 2, 3] and sampled[3].tolist() == [[2, 3, 4]]
    for value, voxels in sampled.items():
        assert len(voxels) <= VOXELS_PER_CLASS and len(np.unique(voxels, axis=0)) == len(voxels)
        assert (mask[tuple(voxels.T)] == value).all()
    assert all(
        np.array_equal(a, b) for a, b in zip(sampled.values(), sample_voxels(mask, 0, "scan").values(), strict=True)
    )


def test_foreground_picks_evenly_among_the_classes_present(tmp_path):
    many, one = np.zeros((9, 9), np.uint8), np.zeros((9, 9), np.uint8)
    many[:6], many[8, 8], one[4, 5] = 1, 2, 3
    sampled = [sample_voxels(m, 0, "s") for m in (many, np.zeros_like(many), one)]
    Foreground.gather(sampled, 2).save(tmp_path / "f.npz")
    foreground = Foreground.load(tmp_path / "f.npz")
    rows = np.repeat([0, 1, 2], 2000)
    draws = np.random.default_rng(0).random((2, len(rows)), np.float32)
    found, voxels = foreground.pick(rows, *draws)
    assert found.tolist() == [True] * 2000 + [False] * 2000 + [True] * 2000
    assert (voxels[4000:] == (4, 5)).all()
    rare = (voxels[:2000] == (8, 8)).all(axis=1)
    assert 0.45 < rare.mean() < 0.55 and (many[tuple(voxels[:2000][~rare].T)] == 1).all()
