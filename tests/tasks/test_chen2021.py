"""Chen et al. 2021 from the files of its data sets to results, on small trees of their exact form."""

import numpy as np
import pytest

from catalog.layouts.trees import covid_ct, deeplesion, lidc, medseg
from catalog.layouts.trees.parts import ct, write_nifti
from scanlearn.engine.pretrain import pretrain
from scanlearn.engine.recipe import load_recipe
from scanlearn.engine.record import read_record
from scanlearn.engine.run_folder import RunFolder
from scanlearn.errors import ScanlearnError
from scanlearn.scans.prepare import prepare
from scanlearn.scans.slices import Slicing
from scanlearn.tasks.fewshot.episodes import load_episodes
from scanlearn.tasks.fewshot.run import class_column, fewshot

TINY = {
    "steps": 2,
    "batch_size": 8,
    "network.batch_norm_groups": 2,
    "network.encoder": {"name": "unet", "width": 2},
    "objectives.momentum_contrast.queue_size": 8,
    "objectives.momentum_contrast.hidden": 4,
    "monitor.every": -1,
}
SHAPE = (24, 20, medseg.DEPTH)
LESION = Slicing(label="covid", values=(1, 2))


@pytest.fixture(scope="module")
def chest(tmp_path_factory):
    """Key slices of DeepLesion and slices of LIDC-IDRI in one store."""
    folder = tmp_path_factory.mktemp("chest")
    deeplesion.make(folder / "DeepLesion")
    lidc.make(folder / "lidc")
    also = [folder / "lidc"]
    return prepare(
        folder / "DeepLesion", folder / "store", also=also, slices="axial", size=32, window="lung", workers=0
    )


@pytest.fixture(scope="module")
def run(chest, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "chen2021"
    pretrain(
        chest, "chen2021_covid_ct_small", out, settings=TINY | {"sampling": {"dataset": {"deeplesion": 1, "lidc": 1}}}
    )
    return out


def test_both_collections_are_in_hounsfield_units_in_the_lung_window(chest):
    data_sets = np.array(chest.catalog.column("dataset"))
    assert set(data_sets) == {"deeplesion", "lidc"}
    assert chest.info["intensity"]["window"] == {"CT": "lung"}
    low, high = chest.window(np.arange(len(chest)))
    assert set(low) == {-1350} and set(high) == {150}
    key_slices = np.stack(chest.read(np.flatnonzero(data_sets == "deeplesion")))
    assert key_slices.min() == deeplesion.AIR  # 32768 is taken off
    slices = [cell for cell, name in zip(chest.catalog.column("slice"), data_sets, strict=True) if name == "lidc"]
    assert len(slices) == 2 * lidc.SLICES and "" not in slices  # no radiograph, no localiser
    assert len(set(chest.catalog.column("patient_id"))) == len(
        set(np.char.add(data_sets, chest.catalog.column("patient_id")))
    )


def test_the_pre_training_draws_from_both_and_leaves_the_official_test_patients_out(chest, run):
    record = read_record(RunFolder(run))
    seen = record.rows("pre-training")
    assert set(np.array(chest.catalog.column("dataset"))[seen]) == {"deeplesion", "lidc"}
    assert not set(seen) & set(chest.splits["test"])


def test_a_store_without_a_data_set_that_the_recipe_names_is_told(tmp_path):
    covid_ct.make(tmp_path / "COVID-CT")
    store = prepare(tmp_path / "COVID-CT", tmp_path / "store", size=32, workers=0)
    with pytest.raises(ScanlearnError, match="deeplesion"):
        pretrain(store, "chen2021_covid_ct", tmp_path / "run")


def test_few_shot_on_covid_ct_in_both_modes_with_covid_as_positive(run, tmp_path):
    covid_ct.make(tmp_path / "COVID-CT", strangers=True)
    store = prepare(tmp_path / "COVID-CT", tmp_path / "store", size=32, target="diagnosis", workers=0)
    assert store.channels == 1 and len(store) == 12  # RGBA, JPEG called PNG; the strangers are no part of it
    how = {"target": "diagnosis", "classes": ["NonCOVID", "COVID"], "shots": [1], "episodes": 5, "bootstrap": 20}
    official = fewshot(run, store, out=tmp_path / "official", mode="official", **how)
    again = fewshot(run, store, out=tmp_path / "resample", part="all", queries=1, **how)
    for found, mode in ((official, "official"), (again, "resample")):
        assert found["classes"] == ["NonCOVID", "COVID"] and found["settings"]["mode"] == mode
        assert set(found["results"]) == {"chen2021", "random", "pixels"}
    drawn = load_episodes(tmp_path / "official/episodes.json", store, class_column(store, "diagnosis", how["classes"]))
    patients, parts = np.array(store.catalog.column("patient_id")), store.splits
    support, query = np.unique(drawn.support), np.unique(drawn.query[drawn.query >= 0])
    assert np.isin(support, parts["train"]).all() and np.array_equal(query, parts["test"])
    assert not set(patients[support]) & set(patients[query])


def test_few_shot_on_slices_of_the_nine_volumes_never_asks_about_a_patient_of_the_support(run, tmp_path):
    medseg.make(tmp_path / "medseg")
    for number in range(3, 10):  # nine volumes, as published
        write_nifti(tmp_path / "medseg/rp_im" / f"{number}.nii.gz", ct(number, SHAPE))
        write_nifti(tmp_path / "medseg/rp_msk" / f"{number}.nii.gz", medseg.mask(((1,), ()), SHAPE))
    store = prepare(
        tmp_path / "medseg", tmp_path / "store", slices=LESION, target="covid", size=32, window="lung", workers=0
    )
    assert len(set(store.catalog.column("patient_id"))) == 9 and {"present", "absent"} == set(
        store.catalog.column("covid")
    )
    how = {"target": "covid", "classes": ["absent", "present"], "part": "all", "queries": 3, "shots": [1, 2]}
    found = fewshot(run, store, out=tmp_path / "out", episodes=6, bootstrap=20, **how)
    assert found["results"]["chen2021"]["prototypes"]["2"]["auc"]["mean"] >= 0
    drawn = load_episodes(tmp_path / "out/episodes.json", store, class_column(store, "covid", how["classes"]))
    patients = np.array(store.catalog.column("patient_id"))
    for support, query in zip(drawn.support, drawn.query, strict=True):
        assert not set(patients[support.ravel()]) & set(patients[query[query >= 0]])


def test_effusion_alone_counts_as_covid_only_where_it_is_asked_for(tmp_path):
    medseg.make(tmp_path / "medseg")
    cells = {}
    for values in ((1, 2), (1, 2, 3)):
        slicing = Slicing(label="covid", values=values)
        out = tmp_path / f"store{len(values)}"
        cells[values] = prepare(tmp_path / "medseg", out, slices=slicing, size=32, workers=0).catalog.column("covid")
    expected = {
        values: [
            any(v in values for v in of_slice) for of in medseg.MASKS.values() for of_slice in (of + ((),) * 16)[:16]
        ]
        for values in cells
    }
    for values, found in cells.items():
        assert [cell == "present" for cell in found] == expected[values]


def test_the_recipes_are_the_papers_and_differ_from_moco_v2():
    recipe, plain, v2 = (load_recipe(name) for name in ("chen2021_covid_ct", "chen2021", "moco_v2"))
    assert recipe.sampling == {"dataset": {"deeplesion": 1.0, "lidc": 1.0}} and plain.sampling is None
    for name in ("objectives", "views", "optimizer", "schedule", "batch_size", "epochs"):
        assert getattr(recipe, name) == getattr(plain, name), name
    small = load_recipe("chen2021_covid_ct_small")
    for one in (recipe, small):
        contrast = one.objectives["momentum_contrast"]
        assert (contrast["head"], contrast["temperature"]) == ("mlp", 0.07)
        assert (one.schedule.name, one.schedule.milestones) == ("step", [0.6, 0.8])
    assert v2.objectives["momentum_contrast"]["temperature"] == 0.2 and v2.schedule.name == "cosine"
    assert small.sampling is None
