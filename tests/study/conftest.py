"""Small runs by the real code, on data whose names are as hostile and as telling as names can be."""

import csv
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from runs import genesis_recipe, moco_recipe, volume_store

from scanlearn.engine.pretrain import pretrain
from scanlearn.scans.prepare import prepare
from scanlearn.tasks.finetune import finetune
from study.names import CLASSES, COLUMN, PATIENTS, RUN


@pytest.fixture(scope="session")
def people(tmp_path_factory):
    """Three PNG scans with masks of each of 16 people; the second class is bright; one file is broken."""
    folder = tmp_path_factory.mktemp("Hospital-of-Secrets")
    generator = np.random.default_rng(0)
    with (folder / "table.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "patient", "mask", COLUMN])
        for i in range(48):
            patient, code = PATIENTS[i // 3], i // 3 % 2
            image = generator.integers(0, 120, (24, 24)) + 60 * code
            image[6:14, 8:18] += 70
            mask = np.zeros((24, 24), np.uint8)
            mask[6:14, 8:18] = 1
            for kind, array in (("scan", image), ("mask", mask)):
                Image.fromarray(array.astype(np.uint8)).save(folder / f"{patient}_{kind}_{i % 3}.png")
            table.writerow([f"{patient}_scan_{i % 3}.png", patient, f"{patient}_mask_{i % 3}.png", CLASSES[code]])
        (folder / "Garcia-1950_broken.png").write_bytes(b"nothing")
        table.writerow(["Garcia-1950_broken.png", "Garcia-1950", "", CLASSES[0]])
    return prepare(folder / "table.csv", tmp_path_factory.mktemp("stores") / "people", target=COLUMN, workers=1)


@pytest.fixture(scope="session")
def runs(people, tmp_path_factory):
    """Folders of a pre-training run, of a classifier and of a segmenter that began from it, side by side."""
    folder = tmp_path_factory.mktemp("runs")
    first = folder / RUN
    pretrain(people, moco_recipe(steps=4, monitor={"every": 2, "scans": 30}), first)
    settings = {"steps": 2, "batch_size": 4, "precision": "32-true", "log_every": 1}
    options = {"init": first, "settings": settings}
    finetune(people, "classify", out=folder / "classify", target=COLUMN, labels=8, **options)
    finetune(people, "segment", out=folder / "segment", labels=6, **options)
    return SimpleNamespace(folder=folder, pretrain=first, classify=folder / "classify", segment=folder / "segment")


@pytest.fixture(scope="session")
def volumes(tmp_path_factory):
    """A store of volumes and a run that restored cubes of them."""
    folder = tmp_path_factory.mktemp("volumes")
    store = volume_store(folder)
    pretrain(store, genesis_recipe(steps=2, monitor={"every": 1, "scans": 8}), folder / "genesis")
    return SimpleNamespace(store=store, run=folder / "genesis")
