"""Shenzhen Hospital (NLM): 662 frontal chest radiographs, 326 normal and 336 with tuberculosis.

The digit before ".png" is the label. Masks of the lungs are others' work, for 566 of the images: files ``*_mask.png``
anywhere below the root are taken. Whether two images are of one patient nobody says.
"""

from __future__ import annotations

from pathlib import Path

from scanlearn.catalog.layouts.layout import Layout, Rows, register
from scanlearn.catalog.layouts.nlm import columns_of_names, knows_by, readings
from scanlearn.catalog.layouts.radiographs import files_by_tail

TITLE = "Shenzhen Hospital"
PAGE = "https://data.lhncbc.nlm.nih.gov/public/Tuberculosis-Chest-X-ray-Datasets/Shenzhen-Hospital-CXR-Set/"
PREFIX = "CHNCXR_"
MASKED = 566


def _read(root: Path) -> Rows:
    columns = columns_of_names(root, PREFIX, TITLE, PAGE)
    files = files_by_tail(root)
    stems = [path.rpartition("/")[2].removesuffix(".png") for path in columns["paths"]]
    columns["mask_path"] = [files.get(f"{stem}_mask", "") for stem in stems]
    masked = sum(map(bool, columns["mask_path"]))
    notes = [f"{masked:,} images have a mask of their lungs, which is not of the owners ({MASKED:,} were published)."]
    said, of_readings = readings(root, columns["paths"])
    return Rows(
        {**columns, **said},
        patients_known=False,
        notes=[*(notes if masked else []), *of_readings],
        mask_names={1: "lung"} if masked else {},
    )


register(
    Layout(
        name="shenzhen",
        title=TITLE,
        licence="free use; name the NLM and Shenzhen No.3 Hospital and cite the paper",
        citation="Jaeger S et al.: Two public chest X-ray datasets. Quant Imaging Med Surg 2014;4(6):475-477",
        page=PAGE,
        marks=("CXR_png|ClinicalReadings",),
        knows=knows_by(PREFIX),
        read=_read,
        counts={"images": 662, "none": 326, "Tuberculosis": 336},
    )
)
