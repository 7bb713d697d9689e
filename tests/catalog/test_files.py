import re

import pyarrow as pa
import pytest

from scanlearn.catalog import files
from scanlearn.catalog.files import folders_of, is_dicom, may_be_dicom, stem_of, stems_of, suffix_of


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("a.png", ".png"),
        ("b/c.NII.GZ", ".nii.gz"),
        ("x.y.nrrd", ".nrrd"),
        ("a.TIF", ".tif"),
        ("p/a.ome.zarr", ".zarr"),
        ("a.gz", ""),
        ("IM0001", ""),
        ("a.txt", ""),
    ],
)
def test_suffixes_of_scans(name, suffix):
    assert suffix_of(name) == suffix
    assert stem_of(name) == name[: len(name) - len(suffix)] == stems_of(pa.array([name]))[0].as_py()


def scan_ids(paths):
    return files.scan_ids(pa.array(paths, pa.string())).to_pylist()


def test_scan_ids_come_from_the_path():
    assert scan_ids(["images/0006.png", "p 1/ü/ct.nii.gz", "IM.0001"]) == ["images_0006", "p_1_ct", "IM.0001"]


def test_scan_ids_that_would_be_equal_get_a_hash_whatever_the_order():
    paths = ["a/b_c.png", "a_b/c.png", "A_B_C.png", "a_b_c.jpg", "other.png"]
    ids = scan_ids(paths)
    assert ids[-1] == "other"
    assert len({name.lower() for name in ids}) == len(paths)
    assert scan_ids(paths[::-1]) == ids[::-1]


def test_scan_ids_are_safe_file_names():
    paths = ["../x.png", "-r.png", ".hidden.png", "a:b*c?.png", "患者.png", "x" * 300 + ".nii.gz", "end..png"]
    for name in scan_ids(paths):
        assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name) and not name.endswith(".") and len(name) <= 129


def test_scan_ids_carry_no_dicom_uid():
    uid = "1.3.12.2.1107.5.1.4.60064.300000"
    (name,) = scan_ids([f"study/{uid}/CT.{uid}.dcm"])
    assert "1107" not in name and re.fullmatch(r"study_u[0-9a-f]{12}_CT\.u[0-9a-f]{12}", name)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.DCM", b"", True),
        ("IM0001", bytes(128) + b"DICM", True),
        ("1.2.840.7", bytes(128) + b"DICM", True),
        ("README", b"text", False),
        ("DICOMDIR", bytes(128) + b"DICM", False),
        ("a.txt", bytes(128) + b"DICM", False),
        ("nowhere", None, False),
    ],
)
def test_dicom_is_told_by_suffix_or_by_its_first_bytes(tmp_path, name, content, expected):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert is_dicom(tmp_path / name) is expected


def test_whole_columns_of_paths_are_told_as_single_paths_are():
    paths = ["a.DCM", "b/IM0001", "1.2.840.7", "c.nii.gz", "c.gz", "d.zarr", "e.txt", "/x.png", ".png", "d.e/f"]
    assert may_be_dicom(pa.array(paths)).to_pylist() == [suffix_of(path) in ("", ".dcm") for path in paths]
    assert folders_of(pa.array(paths)).to_pylist() == [path.rpartition("/")[0] for path in paths]
    assert stems_of(pa.array(paths)).to_pylist() == [stem_of(path) for path in paths]
