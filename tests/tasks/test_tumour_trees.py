"""BraTS, the Decathlon and LiTS in their own layouts, from files to a tested run and masks on each case's own grid."""

import json

import nibabel as nib
import numpy as np
import pyarrow.parquet as pq
import pytest

from catalog.layouts.trees import brats, lits
from catalog.layouts.trees.parts import write_nifti
from scanlearn.errors import ScanlearnError
from scanlearn.scans.prepare import prepare
from scanlearn.study.predicted_page import predicted_page
from scanlearn.tasks import predict as predicting
from scanlearn.tasks.finetune import finetune
from scanlearn.tasks.predict import predict
from scanlearn.tasks.trained import load_trained

CASES, SHAPE = 8, (18, 17, 12)
SMALL = {"steps": 2, "batch_size": 2, "size": [16, 16, 16], "precision": "32-true", "log_every": 1}
SMALL |= {"network.encoder": {"name": "segres", "width": 8, "blocks": [1, 1, 1, 1]}}
SPACING = (-1.0, -1.0, 1.0)
TREES = {  # what the masks say: core, oedema, enhancing
    "brats2018": (1, 2, 4),
    "brats2020": (1, 2, 4),
    "brats2023_gli": (1, 2, 3),
    "msd_brain": (2, 1, 3),
}


def tumour(number, values):
    """A mask of three structures in one another, and four sequences in which they are bright."""
    mask = np.zeros(SHAPE, np.uint8)
    for size, value in zip((5, 3, 2), (values[1], values[0], values[2]), strict=True):
        mask[8 - size : 8 + size, 8 - size : 8 + size, 6 - size : 6 + size] = value
    rng = np.random.default_rng(number)
    images = [(rng.integers(1, 200, SHAPE) + 300 * (mask > 0) + 200 * k).astype(np.int16) for k in range(4)]
    return mask, images


def tree(folder, name):
    """Eight cases in the layout of a release, with the misnamed mask of 2020."""
    values = TREES[name]
    root = folder / ("Task01_BrainTumour" if name == "msd_brain" else brats.RELEASES[name][0])
    listed = []
    for number in range(1, CASES + 1):
        mask, images = tumour(number, values)
        if name == "msd_brain":
            file = f"BRATS_{number:03d}.nii.gz"
            write_nifti(root / "imagesTr" / file, np.stack(images, axis=-1), SPACING)
            write_nifti(root / "labelsTr" / file, mask, SPACING)
            listed.append({"image": f"./imagesTr/{file}", "label": f"./labelsTr/{file}"})
            continue
        _, (endings, seg), suffix, _, _ = brats.RELEASES[name]
        case = {
            "brats2018": f"HGG/Brats18_2013_{number}_1",
            "brats2020": f"BraTS20_Training_{354 + number}",
            "brats2023_gli": f"BraTS-GLI-{number:05d}-000",
        }[name]
        stem = case.rpartition("/")[2]
        for ending, image in zip(endings, images, strict=True):
            write_nifti(root / case / f"{stem}{ending}{suffix}", image, SPACING)
        called = "W39_1998.09.19_Segm" if stem == "BraTS20_Training_355" else f"{stem}{seg}"
        write_nifti(root / case / f"{called}{suffix}", mask, SPACING)
    if name == "msd_brain":
        channels = {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}
        content = {"name": "BRATS", "modality": channels, "labels": {"0": "background"}, "training": listed, "test": []}
        (root / "dataset.json").write_text(json.dumps({**content, "numTraining": CASES}))
    return root


@pytest.fixture(params=TREES)
def prepared(request, tmp_path, monkeypatch):
    monkeypatch.setenv("SCANLEARN_PRIVATE", str(tmp_path / "private"))
    root = tree(tmp_path / "data", request.param)
    return request.param, root, prepare(root, tmp_path / "store", workers=0)


def test_the_preset_trains_is_tested_and_predicts_on_every_layout_as_it_is(prepared, tmp_path, monkeypatch):
    name, root, store = prepared
    core, _, enhancing = TREES[name]
    assert store.info["mask_values"] == sorted(TREES[name]) and len(store) == CASES
    run = tmp_path / "run"
    results = finetune(store, "segment", out=run, labels=3, recipe="encdec", settings=SMALL)
    assert list(results["test"]["classes"]) == ["whole", "core", "enhancing"]
    assert {"dice", "hd95", "sensitivity", "specificity"} <= results["test"]["macro"].keys()
    number = store.info["mask_values"].index  # of a class, from 0
    regions = load_trained(run).facts["regions"]
    assert regions["core"] == sorted(number(value) + 1 for value in (core, enhancing))
    assert regions["enhancing"] == [number(enhancing) + 1] and regions["whole"] == [1, 2, 3]

    def all_enhancing(network, image, facts):
        return np.full(image.shape[1:], number(enhancing) + 1, np.uint8)

    monkeypatch.setattr(predicting, "segment_image", all_enhancing)
    predict(run, root, tmp_path / "out", masks=True)
    for file in (tmp_path / "out").glob("*.nii.gz"):
        written = nib.load(file)
        assert written.shape == SHAPE and np.allclose(np.diag(written.affine)[:3], SPACING)
        assert np.unique(np.asarray(written.dataobj)).tolist() == [enhancing]
    table = pq.read_table(tmp_path / "out" / "cases.parquet").to_pydict()
    assert len(table["row"]) == CASES and table["sensitivity_enhancing"] == [1.0] * CASES
    mask, _ = tumour(1, TREES[name])
    share = (mask == enhancing).mean()
    np.testing.assert_allclose(table["dice_enhancing"], 2 * share / (1 + share))
    page = predicted_page(tmp_path / "out").read_text()
    assert page.count('loading="lazy"') == CASES and "BraTS" not in page and "BRATS" not in page


@pytest.mark.parametrize("name", ["brats2018", "brats2023_gli"])
def test_regions_of_another_year_end_in_a_sentence_before_the_training(tmp_path, monkeypatch, name):
    monkeypatch.setenv("SCANLEARN_PRIVATE", str(tmp_path / "private"))
    store = prepare(tree(tmp_path / "data", name), tmp_path / "store", workers=0)
    wrong, lacking = ({"enhancing": [4]}, "4") if name == "brats2023_gli" else ({"enhancing": [3]}, "3")
    have = f"they have 1 necrotic core, 2 oedema, {TREES[name][2]} enhancing tumour"
    with pytest.raises(ScanlearnError, match=f"'enhancing' names '{lacking}', which the masks do not have: {have}"):
        settings = {**SMALL, "objectives.segment.regions": wrong}
        finetune(store, "segment", out=tmp_path / "run", recipe="encdec", settings=settings)
    right = {"enhancing": [TREES[name][2]]}
    settings = {**SMALL, "steps": 1, "objectives.segment.regions": right}
    finetune(store, "segment", out=tmp_path / "run", labels=2, recipe="encdec", settings=settings)
    # What the run keeps leads to the same regions when it is given as a recipe.
    again = tmp_path / "run" / "recipe.yaml"
    finetune(store, "segment", out=tmp_path / "again", labels=2, recipe=again, settings={"size": [16, 16, 16]})
    assert load_trained(tmp_path / "again").facts["regions"] == {"enhancing": [3]}


def test_the_names_of_2024_are_none_of_the_preset(tmp_path, monkeypatch):
    monkeypatch.setenv("SCANLEARN_PRIVATE", str(tmp_path / "private"))
    store = prepare(brats.make(tmp_path / "data", "brats2024_gli"), tmp_path / "store", workers=0)
    with pytest.raises(ScanlearnError, match=r"'oedema'.*they have 1 non-enhancing core, 2 surrounding FLAIR"):
        finetune(store, "segment", out=tmp_path / "run", recipe="encdec", settings=SMALL)


def test_lits_with_its_wrong_headers_trains_and_its_masks_lie_on_the_images(tmp_path, monkeypatch):
    monkeypatch.setenv("SCANLEARN_PRIVATE", str(tmp_path / "private"))
    store = prepare(lits.make(tmp_path / "data"), tmp_path / "store", workers=0)
    regions = {"liver": [1, 2], "tumour": [2]}
    settings = {**SMALL, "objectives.segment.regions": regions}
    results = finetune(store, "segment", out=tmp_path / "run", recipe="encdec_small", settings=settings)
    assert list(results["test"]["classes"]) == ["liver", "tumour"]
    predict(tmp_path / "run", tmp_path / "data" / "Training Batch 2" / "volume-53.nii", tmp_path / "out")
    (written,) = (tmp_path / "out").glob("*.nii.gz")
    assert nib.load(written).shape == lits.SHAPE
