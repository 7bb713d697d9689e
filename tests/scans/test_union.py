"""Several sources in one store."""

import numpy as np
import pytest
from PIL import Image

from scanlearn.errors import ScanlearnError
from scanlearn.scans.loader import Loader
from scanlearn.scans.prepare import prepare
from scanlearn.scans.sampling import shares_of
from scanlearn.scans.slices import Slicing
from scans.made_scans import smooth


@pytest.fixture
def photos(tmp_path):
    """Four images of four patients."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for n in range(4):
        Image.fromarray(smooth((24, 20), 40 + n).astype(np.uint8)).save(folder / f"s{n:02d}.png")
    (folder / "t.csv").write_text("image,patient\n" + "".join(f"s{n:02d}.png,q{n}\n" for n in range(4)))
    return folder


def test_two_sources_become_one_store_that_is_drawn_from_by_weights(slices_folder, photos, tmp_path):
    store = prepare(slices_folder, tmp_path / "store", also=[photos], workers=0)
    data_sets = np.array(store.catalog.column("dataset"))
    assert len(store) == 18 and (data_sets == "photos").sum() == 4  # names of several data sets are kept
    rows, shares = shares_of(store.catalog, np.arange(18), {"dataset": {"photos": 3, data_sets[0]: 1}})
    drawn = [batch["row"] for batch in Loader(store, rows, batch_size=64, size=None, seed=1, stop=8, shares=shares)]
    assert (data_sets[np.concatenate(drawn)] == "photos").mean() == pytest.approx(0.75, abs=0.06)
    again = prepare(slices_folder, tmp_path / "store", also=[photos], workers=0)
    assert again.info["key"] == store.info["key"]
    with pytest.raises(ScanlearnError, match="other scans or settings"):
        prepare(slices_folder, tmp_path / "store", workers=0)


def test_volumes_and_images_can_be_in_one_store_of_slices(volumes_folder, photos, tmp_path):
    slicing = Slicing(every=4, label="lesion", values=(2,))
    store = prepare(volumes_folder, tmp_path / "store", also=[photos], slices=slicing, size=24, workers=0)
    lesion, data_sets = store.catalog.column("lesion"), store.catalog.column("dataset")
    assert {cell for cell, name in zip(lesion, data_sets, strict=True) if name == "photos"} == {""}
    assert {"present", "absent"} <= set(lesion)


def test_arrays_are_refused_beside_other_sources(photos, tmp_path):
    np.savez(tmp_path / "a.npz", image=np.zeros((3, 8, 8), np.uint8), patient=np.arange(3))
    with pytest.raises(ScanlearnError, match="prepare it apart"):
        prepare(photos, tmp_path / "store", also=[tmp_path / "a.npz"], workers=0)
