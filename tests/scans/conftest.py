"""Small data sets on disk and the stores made from them."""

import csv

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from scanlearn.scans.prepare import prepare
from scans.made_scans import smooth


@pytest.fixture(scope="session")
def slices_folder(tmp_path_factory):
    """14 PNG images of 7 patients with masks and labels: 24 x 20, two classes."""
    folder = tmp_path_factory.mktemp("slices")
    (folder / "images").mkdir()
    (folder / "masks").mkdir()
    with (folder / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "mask", "patient", "finding"])
        for n in range(14):
            image = smooth((24, 20), n).astype(np.uint8)
            mask = np.zeros((24, 20), np.uint8)
            mask[n : n + 5, 3:9] = 255
            Image.fromarray(image).save(folder / f"images/s{n:02d}.png")
            Image.fromarray(mask).save(folder / f"masks/s{n:02d}.png")
            table.writerow([f"images/s{n:02d}.png", f"masks/s{n:02d}.png", f"p{n // 2}", ["no", "yes"][n // 2 % 2]])
    return folder


@pytest.fixture(scope="session")
def slices(slices_folder, tmp_path_factory):
    return prepare(slices_folder, tmp_path_factory.mktemp("stores") / "slices", target="finding", workers=2)


@pytest.fixture(scope="session")
def volumes_folder(tmp_path_factory):
    """Five CT volumes of different shapes with masks of the classes 2 and 7, as imagesTr and labelsTr."""
    folder = tmp_path_factory.mktemp("volumes")
    (folder / "imagesTr").mkdir()
    (folder / "labelsTr").mkdir()
    for n in range(5):
        shape = (38 + n, 21, 9 + 5 * n)
        hu = (smooth(shape, n, 2000) - 1000).astype(np.int16)
        hu[0, 0, 0] = -1000
        mask = np.zeros(shape, np.uint8)
        mask[5:12, 4:9, 2:6] = 2
        mask[20 + n, 10, 7] = 7
        affine = np.diag([-0.8, 0.8, 2.0 + n, 1.0])
        affine[:3, 3] = [30, -20, 10 * n]
        nib.save(nib.Nifti1Image(hu, affine), folder / f"imagesTr/v{n}.nii.gz")
        nib.save(nib.Nifti1Image(mask, affine), folder / f"labelsTr/v{n}.nii.gz")
    return folder


@pytest.fixture(scope="session")
def volumes(volumes_folder, tmp_path_factory):
    return prepare(volumes_folder, tmp_path_factory.mktemp("stores") / "volumes", workers=2)
