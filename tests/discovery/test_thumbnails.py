import pickle

import numpy as np
import pytest
import torch

from discovery.stores import volume_store
from scanlearn.discovery import thumbnails
from scanlearn.discovery.thumbnails import make_thumbnails, thumbnail
from scanlearn.scans.intensity import to_unit
from scanlearn.scans.resample import resample
from scanlearn.scans.store import Store

SIZE = (16, 8, 8)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return volume_store(tmp_path_factory.mktemp("thumbnails"))


def whole(store, row):
    """A scan read at once and resized at once."""
    low, high = (torch.from_numpy(bound) for bound in store.window([row]))
    return resample(to_unit(torch.from_numpy(store.read([row])[0])[None], low, high), SIZE)[0].numpy()


@pytest.mark.parametrize("slab", [1, 24 * 26 * 3, 24 * 26 * 7, 1 << 23])
def test_a_thumbnail_is_the_resized_scan_however_it_is_read(store, monkeypatch, slab):
    monkeypatch.setattr(thumbnails, "SLAB_VOXELS", slab)
    for row in range(3):
        made = thumbnail(store, row, SIZE)
        assert made.dtype == np.uint8 and made.shape == (1, *SIZE)
        assert np.abs(made / 255 - whole(store, row)).max() <= 0.5 / 255 + 1e-5


def test_thumbnails_are_read_as_scans_of_a_store(store, tmp_path):
    rows = np.array([0, 2, 5])
    made = make_thumbnails(store, rows, SIZE, tmp_path / "made")
    assert made.shape(5) == SIZE and made.shapes(rows).tolist() == [list(SIZE)] * 3 and made.same_shape(rows)
    assert made.catalog.column("scan_id") == store.catalog.column("scan_id") and made.info == store.info
    read = made.read([5, 0, 5])
    assert [np.array_equal(a, thumbnail(store, row, SIZE)) for a, row in zip(read, (5, 0, 5), strict=True)] == [
        True
    ] * 3
    out = np.empty((2, 1, 4, 4, 4), np.uint8)
    boxes = [((1, 2, 3), (5, 6, 7)), ((14, 6, 6), (18, 10, 10))]
    made.read([2, 2], boxes, out)
    assert np.array_equal(out[0, 0], thumbnail(store, 2, SIZE)[0, 1:5, 2:6, 3:7])
    assert np.array_equal(out[1, 0, :2, :2, :2], thumbnail(store, 2, SIZE)[0, 14:, 6:, 6:]) and not out[1, 0, 2:].any()
    low, high = made.window([5, 2])
    assert low.tolist() == [0, 0] and high.tolist() == [255, 255]
    again = pickle.loads(pickle.dumps(made))
    assert np.array_equal(again.read([2])[0], made.read([2])[0])
    with pytest.raises(IndexError, match="row 1 has no thumbnail"):
        made.read([1])


def test_a_killed_writer_goes_on_where_it_was_and_opens_each_scan_once(store, tmp_path, monkeypatch):
    rows, unbroken, file = np.arange(6), tmp_path / "unbroken", tmp_path / "made"
    make_thumbnails(store, rows, SIZE, unbroken)
    file.write_bytes(unbroken.read_bytes()[: 2 * 1024 + 300])  # cut in the middle of the third
    opened = []
    read = Store.read
    monkeypatch.setattr(Store, "read", lambda self, rows, *args: (opened.extend(rows), read(self, rows, *args))[1])
    make_thumbnails(store, rows, SIZE, file)
    assert opened == [2, 3, 4, 5] and file.read_bytes() == unbroken.read_bytes()
