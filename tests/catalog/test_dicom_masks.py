"""DICOM objects beside scans: what is no image never becomes a mask or a slice, and it is said."""

import pytest

from catalog.test_dicom import write
from scanlearn.catalog.table import Catalog


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


@pytest.mark.parametrize("mask", ["images/a_seg.dcm", "masks/a.dcm", "masks/a"])
def test_a_segmentation_object_is_no_mask_and_is_counted_by_its_kind(tmp_path, capsys, mask):
    write(tmp_path / "images/a.dcm")
    write(tmp_path / mask, Modality="SEG")
    catalog = Catalog.from_source(tmp_path)
    assert catalog.column("scan_id") == ["images_a"] and catalog.column("mask_path") == [""]
    said = capsys.readouterr().err
    assert "segmentation 1" in said and "have a mask" not in said


def test_an_image_in_a_mask_folder_is_a_mask_though_it_is_dicom(tmp_path):
    write(tmp_path / "images/a.dcm")
    write(tmp_path / "masks/a.dcm")
    assert Catalog.from_source(tmp_path).column("mask_path") == [f"{tmp_path}/masks/a.dcm"]


def test_the_slices_of_a_mask_series_are_not_taken_for_masks_of_the_whole_scan(tmp_path, capsys):
    for n in range(3):
        for kind in ("images", "masks"):
            write(tmp_path / kind / f"p/{n}.dcm", position=float(n))
    catalog = Catalog.from_source(tmp_path)
    assert [len(paths) for paths in catalog.column("paths")] == [3] and catalog.column("mask_path") == [""]
    assert "The masks of 1 DICOM series are DICOM files themselves" in capsys.readouterr().err


def test_segmentation_objects_in_a_column_of_masks_are_left_out(tmp_path, capsys):
    for name in ("a.png", "b.png", "b_mask.png"):
        touch(tmp_path / name)
    write(tmp_path / "a_seg.dcm", Modality="SEG")
    (tmp_path / "t.csv").write_text("image,mask\na.png,a_seg.dcm\nb.png,b_mask.png\n")
    assert Catalog.from_source(tmp_path).column("mask_path") == ["", f"{tmp_path}/b_mask.png"]
    assert "1 masks are DICOM segmentations or the like" in capsys.readouterr().err


def test_what_a_series_folder_of_a_table_holds_besides_the_series_is_left_out_and_said(tmp_path, capsys):
    for n in range(2):
        write(tmp_path / "s" / f"{n}.dcm", position=float(n))
    write(tmp_path / "s/report.dcm", Modality="SR", Rows=None)
    (tmp_path / "s/broken.dcm").write_bytes(b"nothing")
    (tmp_path / "t.csv").write_text("image,patient\ns,p\n")
    assert Catalog.from_source(tmp_path).column("paths") == [[f"{tmp_path}/s/{n}.dcm" for n in range(2)]]
    said = capsys.readouterr().err
    assert "2 DICOM files are no scans and are left out: " in said
    assert "structured report 1" in said and "unreadable 1" in said
