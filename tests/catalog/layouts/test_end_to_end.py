"""From the files of a data set, in their exact form, over a store to a pre-trained network and its features."""

import numpy as np
import pytest
from runs import genesis_recipe, moco_recipe

from catalog.layouts.trees import covid_ct, deeplesion, medseg, rsna_pneumonia
from scanlearn.catalog.boxes import boxes_of
from scanlearn.engine.pretrain import pretrain
from scanlearn.scans.prepare import prepare
from scanlearn.tasks.embed import embed

pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR AS")


@pytest.fixture(autouse=True, scope="module")
def _private(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCANLEARN_PRIVATE", str(tmp_path_factory.mktemp("private")))
        yield


@pytest.fixture(scope="module")
def covid(tmp_path_factory):
    """(store, run): COVID-CT prepared and learnt from."""
    folder = tmp_path_factory.mktemp("covid")
    store = prepare(covid_ct.make(folder / "data"), folder / "store", size=32, workers=0)
    small = moco_recipe(batch_size=4, steps=2, monitor={"every": -1})
    pretrain(store, small, folder / "run", seed=1)
    return store, folder / "run"


def test_covid_ct_is_learnt_from_in_its_official_split(covid, tmp_path):
    store, run = covid
    assert len(store) == 12 and store.channels == 1  # JPEG called PNG, with and without alpha
    assert {name: len(rows) for name, rows in store.splits.items()} == {"train": 6, "val": 2, "test": 4}
    assert store.info["settings"]["origin"]["split"] == "official" and store.info["settings"]["origin"]["official"]
    assert store.catalog.labels("diagnosis").classes == ["COVID", "NonCOVID"]
    check(embed(run, store, tmp_path / "features.npz"), 12)


def test_deeplesion_is_windowed_from_its_offset_and_keeps_its_boxes(covid, tmp_path):
    store = prepare(deeplesion.make(tmp_path / "data"), tmp_path / "store", window="lung", workers=0)
    assert {*store.info["intensity"]["modalities"]} == {"CT"} and not store.info["notes"]
    assert {*np.unique(store.read([0])[0])} == {deeplesion.AIR, *np.unique(store.read([0])[0][..., 24, 24])}
    assert store.window([0])[0][0] == -1350
    assert len(boxes_of(store.catalog)[0]) == 7
    check(embed(covid[1], store, tmp_path / "features.npz"), 6)


def test_rsna_keeps_patients_boxes_and_classes(covid, tmp_path):
    store = prepare(rsna_pneumonia.make(tmp_path / "data"), tmp_path / "store", workers=0)
    assert store.catalog.count_patients(np.arange(6)) == 5 and store.catalog.patients_known
    assert sorted(store.catalog.labels("class").classes) == ["Lung Opacity", "No Lung Opacity / Not Normal", "Normal"]
    assert len(boxes_of(store.catalog)[0]) == 3
    check(embed(covid[1], store, tmp_path / "features.npz"), 6)


def test_medseg_volumes_and_their_masks_are_learnt_from(tmp_path):
    store = prepare(medseg.make(tmp_path / "data"), tmp_path / "store", workers=0)
    assert store.mask_classes == ["ground glass", "consolidation", "pleural effusion"] and store.masked.all()
    pretrain(store, genesis_recipe(batch_size=1, steps=1), tmp_path / "run", seed=1)
    check(embed(tmp_path / "run", store, tmp_path / "features.npz"), 3)


def check(features, count):
    assert len(features) == count and np.isfinite(features).all() and features.std() > 0
