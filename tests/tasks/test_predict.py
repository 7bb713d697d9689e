import csv
import json

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from runs import genesis_recipe

from scanlearn.catalog.table import Catalog
from scanlearn.engine.pretrain import pretrain
from scanlearn.errors import ScanlearnError
from scanlearn.scans.prepare import prepare
from scanlearn.tasks.finetune import finetune
from scanlearn.tasks.predict import predict
from scanlearn.tasks.way_back import names_of_predictions

FAST = {"steps": 60, "batch_size": 8, "precision": "32-true", "optimizer.lr": 0.01, "log_every": 20}


def write_balls(folder, count=12, size=24, spacing=(1.0, 1.5, 2.0)):
    """NIfTI scans of a bright ball with masks, turned and shifted in space; returns a table of them."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(size)] * 3, indexing="ij"))
    affine = np.diag([-spacing[0], spacing[1], spacing[2], 1.0])
    affine[:3, 3] = (40, -20, 7)
    rows = ["image,mask,patient"]
    for i in range(count):
        mask = ((grid - rng.uniform(8, size - 8, (3, 1, 1, 1))) ** 2).sum(0) < 25
        image = rng.random(mask.shape) * 100 + mask * 120
        for name, array in (("image", image.astype(np.float32)), ("mask", mask.astype(np.uint8))):
            nib.save(nib.Nifti1Image(array, affine), folder / f"{name}{i}.nii.gz")
        rows.append(f"image{i}.nii.gz,mask{i}.nii.gz,p{i}")
    (folder / "table.csv").write_text("\n".join(rows))
    return folder / "table.csv"


@pytest.mark.parametrize("spacing", [None, (2.0, 2.0, 2.0)])
def test_masks_lie_on_the_grid_of_the_input(tmp_path, spacing):
    table = write_balls(tmp_path)
    store = prepare(table, tmp_path / "store", spacing=spacing, workers=1)
    pretrain(store, genesis_recipe(steps=1), tmp_path / "genesis")
    finetune(store, "segment", init=tmp_path / "genesis", out=tmp_path / "run", settings=FAST)
    predict(tmp_path / "run", tmp_path / "image3.nii.gz", tmp_path / "out")
    (written,) = (tmp_path / "out").glob("scan-*.nii.gz")
    found, image, truth = (nib.load(p) for p in (written, tmp_path / "image3.nii.gz", tmp_path / "mask3.nii.gz"))
    assert found.shape == image.shape
    np.testing.assert_allclose(found.affine, image.affine)
    a, b = np.asarray(found.dataobj) > 0, np.asarray(truth.dataobj) > 0
    assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.5  # the ball is where it is, so orientation was kept


def write_pictures(folder, count=60):
    rng = np.random.default_rng(0)
    rows = ["image,finding,patient"]
    for i in range(count):
        Image.fromarray((rng.random((20, 24)) * 100 + i % 2 * 100).astype(np.uint8)).save(folder / f"{i}.png")
        rows.append(f"{i}.png,{'bright' if i % 2 else 'dark'},p{i // 2}")
    (folder / "table.csv").write_text("\n".join(rows))


def test_probabilities_of_a_folder_are_a_table_and_only_the_private_list_names_files(tmp_path, capsys):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    write_pictures(pictures)
    store = prepare(pictures / "table.csv", tmp_path / "store", size=(24, 24), target="finding", workers=1)
    settings = {**FAST, "network.encoder": {"name": "unet", "width": 2}, "size": [16, 16]}
    finetune(store, "classify", init="none", out=tmp_path / "run", target="finding", settings=settings)
    new = tmp_path / "new"
    new.mkdir()
    rng = np.random.default_rng(1)
    for name, level in (("a", 0), ("b", 100)):
        Image.fromarray((rng.random((20, 24)) * 100 + level).astype(np.uint8)).save(new / f"{name}.png")
    (new / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    capsys.readouterr()
    predict(tmp_path / "run", new, tmp_path / "out")
    rows = list(csv.DictReader((tmp_path / "out" / "predictions.csv").open()))
    found = {row["scan_id"]: float(row["bright"]) for row in rows}
    err = capsys.readouterr().err
    assert "broken.png" not in err and "left out, 1 of 3 scans:\n  1 x cannot be read" in err
    listed = names_of_predictions(tmp_path / "out").to_pylist()
    pseudonym = {row["original_scan"]: row["scan_id"] for row in listed}
    assert len(found) == 2 and found[pseudonym["a"]] < 0.5 < found[pseudonym["b"]]
    (bad,) = [row for row in listed if row["reason"]]
    assert bad["paths"] == [str(new / "broken.png")]
    (left_out,) = json.loads((tmp_path / "out" / "predictions.json").read_text())["left_out"]
    assert left_out == {"scan_id": bad["scan_id"], "reason": bad["reason"]}
    # A second batch joins the list; a folder that was moved is found all the same.
    predict(tmp_path / "run", pictures / "0.png", tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "moved")
    assert {"a", "b", "broken", "0"} == set(names_of_predictions(tmp_path / "moved")["original_scan"].to_pylist())
    predict(tmp_path / "run", new, tmp_path / "kept", identifiers="kept")
    rows = csv.DictReader((tmp_path / "kept" / "predictions.csv").open())
    assert {row["scan_id"]: float(row["bright"]) for row in rows} == {name: found[pseudonym[name]] for name in "ab"}
    with pytest.raises(ScanlearnError, match="go by the names of the scans"):
        names_of_predictions(tmp_path / "kept")


@pytest.mark.parametrize(
    "key, sentence", [("0123456789ab", "set SCANLEARN_PRIVATE to its folder"), ("../../x", "is damaged")]
)
def test_a_list_that_is_elsewhere_is_not_looked_for_everywhere(tmp_path, key, sentence):
    (tmp_path / "predictions.json").write_text(json.dumps({"identifiers": "hashed", "key": key}))
    with pytest.raises(ScanlearnError, match=sentence):
        names_of_predictions(tmp_path)


def test_a_run_without_a_task_is_refused(tmp_path):
    with pytest.raises(ScanlearnError, match="no fine-tuned run"):
        predict(tmp_path, tmp_path, tmp_path / "out")


def test_a_single_file_is_a_catalogue_of_one(tmp_path):
    write_pictures(tmp_path, 2)
    assert len(Catalog.from_source(tmp_path / "0.png")) == 1
