import csv

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
    (written,) = (tmp_path / "out").glob("*.nii.gz")
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


def test_probabilities_of_a_folder_are_a_table_and_bad_files_are_named(tmp_path, capsys):
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
    predict(tmp_path / "run", new, tmp_path / "out")
    rows = list(csv.DictReader((tmp_path / "out" / "predictions.csv").open()))
    said = {row["scan_id"]: float(row["bright"]) for row in rows}
    assert len(said) == 2 and said["a"] < 0.5 < said["b"]
    err = capsys.readouterr().err
    assert "broken.png" in err and "1 left out" in err


def test_a_run_without_a_task_is_refused(tmp_path):
    with pytest.raises(ScanlearnError, match="no fine-tuned run"):
        predict(tmp_path, tmp_path, tmp_path / "out")


def test_a_single_file_is_a_catalogue_of_one(tmp_path):
    write_pictures(tmp_path, 2)
    assert len(Catalog.from_source(tmp_path / "0.png")) == 1
