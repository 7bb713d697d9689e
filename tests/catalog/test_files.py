import re

import pytest

from scanlearn.catalog.files import list_files, list_images, scan_ids, stem_of, suffix_of


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("a.png", ".png"), ("b/c.NII.GZ", ".nii.gz"), ("x.y.nrrd", ".nrrd"), ("a.gz", ""), ("IM0001", ""), ("a.txt", "")],
)
def test_suffixes_of_scans(name, suffix):
    assert suffix_of(name) == suffix
    assert stem_of(name) == name[: len(name) - len(suffix)]


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


def test_hidden_files_are_left_out_and_links_are_followed_once(tmp_path):
    for name in ["b/x.png", "a.png", "._a.png", ".git/y.png", "__MACOSX/z.png", "notes.txt"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    outside = tmp_path.parent / (tmp_path.name + "_outside")
    outside.mkdir()
    (outside / "far.png").touch()
    (tmp_path / "link").symlink_to(outside)
    assert list_files(tmp_path) == ["a.png", "b/x.png", "link/far.png", "notes.txt"]
    assert list_images(tmp_path) == ["a.png", "b/x.png", "link/far.png"]
