"""SIIM-ACR Pneumothorax (Kaggle 2019): chest radiographs as DICOM, pneumothorax outlined by run lengths in a table.

Masks stay in the table and are read from it when needed (``catalog.mask_cells``): an image with ``-1`` has an empty
one. The images were taken from ChestX-ray14, but which they are there is not public, so nobody can group them by
patient. The lists in use for training, validation and test share images with each other and are not offered.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from scanlearn.catalog.dicom import read_headers
from scanlearn.catalog.files import DICOM_SUFFIXES
from scanlearn.catalog.labels import NOTHING
from scanlearn.catalog.layouts.layout import Layout, Rows, register
from scanlearn.catalog.layouts.radiographs import files_by_tail, table_of, with_files
from scanlearn.catalog.layouts.tools import must_have
from scanlearn.catalog.mask_cells import run_lengths

TITLE = "SIIM-ACR Pneumothorax"
PAGE = "https://www.kaggle.com/c/siim-acr-pneumothorax-segmentation"
TABLES = "stage_2_train.csv|train-rle.csv|*/stage_2_train.csv|*/train-rle.csv"
SHAPE = (1024, 1024)  # pixels of every image
EMPTY = "-1"


def _read(root: Path) -> Rows:
    path = must_have(root, TABLES, TITLE, PAGE)
    table = table_of(path, ["ImageId", "EncodedPixels"], TITLE, PAGE)
    marked: dict[str, bool] = defaultdict(bool)
    for name, runs in zip(table["ImageId"].to_pylist(), table["EncodedPixels"].to_pylist(), strict=True):
        marked[name] |= runs not in ("", EMPTY)
    images, place = [*marked], path.relative_to(root).as_posix()
    rows = Rows(
        {
            "findings": ["Pneumothorax" if marked[image] else NOTHING for image in images],
            "mask_path": [run_lengths(place, image, SHAPE) for image in images],
        },
        patients_known=False,
        mask_names={1: "pneumothorax"},
    )
    rows = with_files(rows, images, files_by_tail(root, suffixes=DICOM_SUFFIXES), root, TITLE, PAGE)
    headers = read_headers([f"{root}/{file}" for file in rows.columns["paths"]])
    rows.columns["view"] = [header.view if header else "" for header in headers]
    rows.columns["modality"] = [header.modality if header else "" for header in headers]
    return rows


register(
    Layout(
        name="siim_pneumothorax",
        title=TITLE,
        licence="rules of the Kaggle competition; the images are those of the NIH Clinical Center",
        citation="Society for Imaging Informatics in Medicine: SIIM-ACR Pneumothorax Segmentation. Kaggle 2019",
        page=PAGE,
        marks=("stage_2_train.csv|train-rle.csv|dicom-images-train|dicom-images-test",),
        read=_read,
        counts={"images": 12_047, "Pneumothorax": 2_669, NOTHING: 9_378, "masks": 12_047},
        contained_in=("chestxray14",),
    )
)
