"""The files that ship with pydicom, odd ones and damaged ones: each ends as read or as named."""

from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest

from scanlearn.catalog.dicom import read_header, read_headers, sort_into_scans
from scanlearn.errors import FileError
from scanlearn.scans.dicom import read_dicom_header, read_dicom_scan

ROOT = Path(pydicom.__file__).parent / "data"
_OTHER = {".py", ".pyc", ".txt", ".md", ".json", ".gz", ".dump", ".icc"}
FILES = sorted(str(p) for p in ROOT.rglob("*") if p.is_file() and p.suffix not in _OTHER and p.name != "README")
# What must be read, with what: shape, dtype, smallest and largest value.
READ = {
    "CT_small.dcm": ((128, 128), "int16", -896, 1167),
    "ExplVR_BigEnd.dcm": ((60, 80), "uint8", 123, 255),
    "MR_small_bigendian.dcm": ((64, 64), "int16", 127, 2145),
    "MR_small_implicit.dcm": ((64, 64), "int16", 127, 2145),
    "MR_small_padded.dcm": ((64, 64), "int16", 127, 2145),
    "MR_small_RLE.dcm": ((64, 64), "int16", 127, 2145),
    "MR_small_jp2klossless.dcm": ((64, 64), "int16", 127, 2145),
    "MR_small_jpeg_ls_lossless.dcm": ((64, 64), "int16", 127, 2145),
    "J2K_pixelrep_mismatch.dcm": ((512, 512), "int16", -2000, 1896),
    "SC_rgb_jpeg_gdcm.dcm": ((100, 100), "uint8", 0, 255),
    "SC_rgb_small_odd_big_endian.dcm": ((3, 3), "uint8", 90, 158),
    "image_dfl.dcm": ((512, 512), "uint8", 0, 255),
    "examples_overlay.dcm": ((300, 484), "uint16", 0, 1123),
}
NAMED = {
    "MR_truncated.dcm": "is cut off: 8130 of 8192 bytes of pixels are there.",
    "JPGExtended.dcm": "is JPEG Extended of 12 bits",
    "SC_rgb_rle_2frame.dcm": "holds 2 frames with no positions",
    "examples_ybr_color.dcm": "holds 30 frames with no positions",
    "rtplan.dcm": "is no scan: radiotherapy plan.",
    "rtdose.dcm": "is no scan: radiotherapy dose.",
    "rtstruct.dcm": "is no scan: radiotherapy structure set.",
    "liver_1frame.dcm": "is no scan: segmentation.",
    "test-SR.dcm": "is no scan: structured report.",
    "waveform_ecg.dcm": "is no scan: waveform.",
    "DICOMDIR": "is no scan: directory.",
    "no_meta.dcm": "holds no DICOM image",
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(Path(path).relative_to(ROOT)))
def test_every_file_is_read_or_named(path, capfd, recwarn):
    header = read_header(path)
    try:
        scan = read_dicom_scan([Path(path)])
    except FileError as error:
        assert path not in error.reason and error.reason.endswith(".")
    else:
        assert header is not None and scan.array.ndim in (3, 4) and scan.array.dtype.isnative
        assert np.isfinite(scan.array).all() and np.isfinite(scan.affine).all()
        assert read_dicom_header([Path(path)]) == (scan.array.shape[1:], scan.modality)
    assert capfd.readouterr().out == "" and len(recwarn) == 0


def shipped(name):
    found = [path for path in FILES if Path(path).name == name]
    if not found:
        pytest.skip(f"this pydicom does not ship {name}")
    return Path(found[0])


@pytest.mark.parametrize("name", READ)
def test_what_can_be_read_is_read(name):
    pytest.importorskip("gdcm", reason="the extra 'dicom' is not installed")
    array = read_dicom_scan([shipped(name)]).array
    shape, dtype, low, high = READ[name]
    assert (array.shape, array.dtype, array.min(), array.max()) == ((1, *shape), dtype, low, high)


@pytest.mark.parametrize("name", NAMED)
def test_what_cannot_be_read_says_why(name):
    path = shipped(name)
    with pytest.raises(FileError) as error:
        read_dicom_scan([path])
    assert error.value.reason.startswith(NAMED[name])


def test_all_files_together_are_sorted_and_counted(capfd):
    headers = read_headers(FILES)
    found = sort_into_scans(FILES, headers)
    sorted_in = [index for scan in found.scans for index in scan]
    assert len(sorted_in) == len({*sorted_in}) == len(FILES) - found.left_out.total()
    outcome: Counter[str] = Counter()
    for scan in found.scans:
        try:
            read_dicom_scan([Path(FILES[index]) for index in scan])
            outcome["read"] += 1
        except FileError:
            outcome["named"] += 1
    assert outcome["read"] >= 25 and found.left_out["structured report"] >= 3 and found.left_out["localiser"] == 2
