"""Montgomery County (NLM): 138 frontal chest radiographs, 80 normal and 58 with tuberculosis, with masks of both lungs.

The digit before ".png" is the label. The left mask is of the patient's left lung, on the right of the image; together
they are the mask. (torchxrayvision's words, 138 normal and 80 with tuberculosis, are a mistake.) One image for each
patient.
"""

from __future__ import annotations

from pathlib import Path

from scanlearn.catalog.layouts.layout import Layout, Rows, register
from scanlearn.catalog.layouts.nlm import columns_of_names, knows_by, readings
from scanlearn.catalog.layouts.tools import files_in, must_have
from scanlearn.catalog.mask_cells import united
from scanlearn.errors import ScanlearnError

TITLE = "Montgomery County"
PAGE = "https://data.lhncbc.nlm.nih.gov/public/Tuberculosis-Chest-X-ray-Datasets/Montgomery-County-CXR-Set/"
PREFIX = "MCUCXR_"
MASKS = ("ManualMask/leftMask", "ManualMask/rightMask")


def _read(root: Path) -> Rows:
    columns = columns_of_names(root, PREFIX, TITLE, PAGE)
    must_have(root, MASKS[0], TITLE, PAGE)
    must_have(root, MASKS[1], TITLE, PAGE)
    sides = [files_in(root, [folder], (".png",)) for folder in MASKS]
    names = [path.rpartition("/")[2] for path in columns["paths"]]
    both = [all(name in side for side in sides) for name in names]
    if not any(both):
        raise ScanlearnError(
            f"No image of {TITLE} in {root} has a mask of both lungs; get {' and '.join(MASKS)} from {PAGE}."
        )
    notes = [f"{both.count(False):,} images lack the mask of a lung and count as without."] if not all(both) else []
    columns["mask_path"] = [united([side[n] for side in sides]) if b else "" for n, b in zip(names, both, strict=True)]
    columns["patient_id"] = [name.rpartition("_")[0] for name in names]
    said, of_readings = readings(root, columns["paths"])
    return Rows({**columns, **said}, notes=[*notes, *of_readings], mask_names={1: "lung"})


register(
    Layout(
        name="montgomery",
        title=TITLE,
        licence="free use; name the NLM and Montgomery County and cite the paper",
        citation="Jaeger S et al.: Two public chest X-ray datasets. Quant Imaging Med Surg 2014;4(6):475-477",
        page=PAGE,
        marks=("CXR_png|ManualMask|ClinicalReadings",),
        knows=knows_by(PREFIX),
        read=_read,
        counts={"images": 138, "patients": 138, "none": 80, "Tuberculosis": 58, "masks": 138},
    )
)
