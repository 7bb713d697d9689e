"""Damaged, lying and foreign files: one FileError that quotes nothing from them, and no memory for what they claim."""

import tracemalloc
import zlib

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, SegmentationStorage

from scanlearn.catalog import dicom_file
from scanlearn.catalog.dicom import read_header
from scanlearn.errors import FileError
from scanlearn.scans import dicom as dicom_module
from scanlearn.scans.dicom import read_dicom, read_dicom_header
from scans.dicoms import COLUMNS, ROWS, SECRETS, along_z, dicom, multi_frame, noise, save


def reason(path, **options):
    with pytest.raises(FileError) as error:
        read_dicom([path], **options)
    assert str(path) not in error.value.reason and error.value.path == str(path)
    assert not any(secret in error.value.reason for secret in SECRETS.values())
    return error.value.reason


@pytest.mark.parametrize(
    "pixels, tags, limit, said",
    [
        (noise(2, 2), {"Rows": 65535, "Columns": 65535}, None, "announces 8 GiB of voxels, more than the limit of 4"),
        (noise(2, 2), {"Rows": 6000, "Columns": 6000}, None, "is cut off: 8 of 72000000 bytes of pixels are there."),
        (noise(2, 2), {"Rows": 0}, None, "says it holds 1 frames of 0 x 2 pixels."),
        (noise(2, 2), {"Rows": 0, "Columns": 0}, None, "holds no image, or is cut off in its header"),
        (noise(2, 2), {"NumberOfFrames": 0}, None, "says it holds 0 frames of 2 x 2 pixels."),
        (noise(2, 2), {"NumberOfFrames": 2**31 - 1}, None, "holds 2147483647 frames with no positions (a film?)"),
        (noise(2, 2), {"SamplesPerPixel": 4}, None, "has 4 samples for each pixel"),
        (noise(2, 2), {"BitsAllocated": 24, "BitsStored": 24}, None, "says that it stores 24 of 24 bits"),
        (noise(2, 2), {"BitsStored": 17}, None, "says that it stores 17 of 16 bits"),
        (noise(2, 2), {"PixelData": b""}, None, "has a header but no pixels"),
        (noise(50, 50), {}, 4999, "announces"),
    ],
)
def test_headers_that_lie_are_refused_before_anything_is_decoded(tmp_path, pixels, tags, limit, said):
    path = save(dicom(pixels, **SECRETS, **tags), tmp_path / "s.dcm")
    tracemalloc.start()
    found = reason(path, limit_bytes=limit)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.startswith(said) and peak < 20e6


def test_a_series_is_held_to_the_limit_as_a_whole(tmp_path):
    file = multi_frame(noise(10, 20, 20), along_z(10))
    path = save(file, tmp_path / "m.dcm")
    assert read_dicom([path], limit_bytes=8000)[0].size == 4000
    assert reason(path, limit_bytes=7999).startswith("announces")


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.999])
def test_truncated_files_are_named(tmp_path, share):
    whole = save(dicom(noise(40, 40), **SECRETS), tmp_path / "s.dcm").read_bytes()
    path = tmp_path / "cut.dcm"
    path.write_bytes(whole[: int(len(whole) * share)])
    assert reason(path)


@pytest.mark.parametrize(
    "content, said",
    [
        (b"", "is empty."),
        (b"no DICOM at all, but some text that goes on and on " * 10, ""),
        (bytes(128) + b"DICM", ""),
        (bytes(1000), ""),
        (b"\xff" * 1000, ""),
    ],
)
def test_what_is_no_dicom_is_refused(tmp_path, content, said):
    path = tmp_path / "s.dcm"
    path.write_bytes(content)
    assert reason(path).startswith(said or "holds no DICOM image")
    assert read_header(path) is None


def test_a_length_that_lies_allocates_nothing(tmp_path):
    """A text of 4 GB in a file of 1 kB."""
    path = save(dicom(noise(ROWS, COLUMNS)), tmp_path / "s.dcm")
    data = path.read_bytes()
    # Modality (0008,0060), rewritten as a text of unlimited length
    at = data.index(b"\x08\x00\x60\x00CS")
    path.write_bytes(data[:at] + b"\x08\x00\x60\x00UT\0\0\xf0\xff\xff\xff" + data[at + 8 :])
    tracemalloc.start()
    reason(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


@pytest.mark.parametrize("depth", [50, 3000])
def test_nested_sequences_do_not_overflow(tmp_path, depth):
    inner = b"\xfe\xff\x0d\xe0" + bytes(4) + b"\xfe\xff\xdd\xe0" + bytes(4)
    start = b"\x40\x00\x30\xa7SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    path = save(dicom(noise(ROWS, COLUMNS)), tmp_path / "s.dcm")
    data = path.read_bytes()
    at = data.index(b"\xe0\x7f\x10\x00")
    path.write_bytes(data[:at] + start * depth + inner * depth + data[at:])
    if depth == 50:
        assert read_dicom([path])[0].shape == (1, ROWS, COLUMNS)
    else:
        assert reason(path) == "nests its sequences too deep to be read."
        assert read_header(path) is None


def deflated(path, content, pixels):
    """A deflated file whose pixels are said to be ``pixels`` and whose data set is ``content``."""
    file = dicom(pixels)
    file.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data = save(file, path).read_bytes()
    at = data.index(b"1.2.840.10008.1.2.1.99") + len("1.2.840.10008.1.2.1.99")
    path.write_bytes(data[:at] + content(zlib.decompress(data[at:], -15)))
    return path


def deflate(data):
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    return squeeze.compress(data) + squeeze.flush()


def test_a_deflated_bomb_is_not_inflated(tmp_path, monkeypatch):
    monkeypatch.setattr(dicom_file, "HEADER_BYTES", 2**20)
    path = deflated(tmp_path / "s.dcm", lambda data: deflate(data + bytes(50 * 2**20)), noise(ROWS, COLUMNS))
    assert path.stat().st_size < 100_000
    tracemalloc.start()
    assert reason(path, limit_bytes=2**20) == "inflates to more than 0.00195 GiB."
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * 2**20


def test_a_deflated_header_is_read_without_inflating_the_pixels(tmp_path, monkeypatch):
    monkeypatch.setattr(dicom_file, "HEADER_BYTES", 2**16)
    path = deflated(tmp_path / "s.dcm", deflate, noise(500, 500))
    assert read_dicom_header([path]) == ((500, 500), "CT")
    assert read_header(path).plane.rows == 500


def test_damaged_deflation_is_named(tmp_path):
    def damage(data):
        data = bytearray(deflate(data))
        data[20:60] = b"\xff" * 40
        return bytes(data)

    assert "inflate" in reason(deflated(tmp_path / "s.dcm", damage, noise(50, 50)))


@pytest.mark.parametrize(
    "keyword, value, said",
    [
        ("RescaleSlope", b"abc ", "has a value of RescaleSlope that is no number."),
        ("RescaleIntercept", b"nan ", "has a value of RescaleIntercept that is no number."),
        ("ImagePositionPatient", b"1\\2 ", "has a value of ImagePositionPatient that is no number."),
        ("NumberOfFrames", b"1A", "has a value of NumberOfFrames that is no number."),
        ("ImageOrientationPatient", b"1\\0\\0\\1\\0\\0 ", "whose directions are not at right angles."),
    ],
)
def test_values_that_are_no_numbers_are_named_by_their_tag_alone(tmp_path, keyword, value, said):
    file = dicom(noise(ROWS, COLUMNS), ImagePositionPatient=[1, 2, 3], ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    file.NumberOfFrames, file.RescaleSlope = 1, 1
    vr = file[keyword].VR
    file[keyword].VR, file[keyword]._value = "UN", value
    path = save(file, tmp_path / "s.dcm")
    data = path.read_bytes()  # the value as it is, under its own VR
    tag = file[keyword].tag
    head = tag.group.to_bytes(2, "little") + tag.element.to_bytes(2, "little")
    at = data.index(head + b"UN")
    body = head + vr.encode() + len(value).to_bytes(2, "little") + value
    path.write_bytes(data[:at] + body + data[at + 12 + len(value) :])
    assert reason(path).endswith(said)


def test_a_file_that_vanishes_or_shrinks_between_header_and_pixels_is_named(tmp_path, monkeypatch):
    path = save(dicom(noise(ROWS, COLUMNS)), tmp_path / "s.dcm")
    headers = dicom_module.read_frames(path)
    monkeypatch.setattr(dicom_module, "read_frames", lambda path: headers)
    save(dicom(noise(ROWS - 1, COLUMNS)), path)
    assert reason(path) == "changed while it was read."
    path.unlink()
    assert reason(path) == "cannot be read (No such file or directory)."


def test_a_path_given_twice_is_one_file(tmp_path):
    path = save(dicom(noise(ROWS, COLUMNS)), tmp_path / "s.dcm")
    assert read_dicom([path, path])[0].shape == (1, ROWS, COLUMNS)


def test_a_spacing_of_zero_counts_as_unknown(tmp_path):
    path = save(dicom(noise(ROWS, COLUMNS), PixelSpacing=[0, 0]), tmp_path / "s.dcm")
    assert np.allclose(np.linalg.norm(read_dicom([path])[1][:3, :3], axis=0), 1)


@pytest.mark.parametrize(
    "tags, said",
    [
        ({"SOPClassUID": SegmentationStorage}, "is no scan: segmentation."),
        ({"Modality": "RTDOSE"}, "is no scan: radiotherapy dose."),
        ({"Modality": "SR"}, "is no scan: structured report."),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]}, "is no scan: mosaic of slices."),
    ],
)
def test_objects_that_are_no_scans_are_named_by_their_kind(tmp_path, tags, said):
    assert reason(save(dicom(noise(ROWS, COLUMNS), **SECRETS, **tags), tmp_path / "s.dcm")) == said


def test_a_localiser_or_a_screenshot_is_read_if_somebody_asks_for_it(tmp_path):
    for kind in (["ORIGINAL", "PRIMARY", "LOCALIZER"], ["DERIVED", "SECONDARY", "SCREEN SAVE"]):
        path = save(dicom(noise(ROWS, COLUMNS), ImageType=kind), tmp_path / "s.dcm")
        assert read_dicom([path])[0].shape == (1, ROWS, COLUMNS)


def test_nothing_is_printed_whatever_pydicom_warns_of(tmp_path, capfd, recwarn):
    file = dicom(noise(ROWS, COLUMNS), **SECRETS)
    inner = Dataset()
    inner.add_new("PatientID", "LO", "SECRET-4711")
    file.OtherPatientIDsSequence = Sequence([inner])
    file.PixelData += bytes(64)  # pydicom warns of padding
    path = save(file, tmp_path / "s.dcm")
    data = path.read_bytes().replace(b"19501231", b"1950AB31")  # and of dates
    path.write_bytes(data)
    read_dicom([path])
    read_header(path)
    out, err = capfd.readouterr()
    assert out == err == "" and len(recwarn) == 0


def test_private_and_unknown_values_are_skipped(tmp_path):
    file = dicom(noise(ROWS, COLUMNS))
    file.private_block(0x0029, "SECRET MAKER", create=True).add_new(0x10, "UN", b"\x01\x02\x03" * 999 + b"\0")
    file.add_new(0x00291099, "OB", b"\0" * 10)
    assert np.array_equal(read_dicom([save(file, tmp_path / "s.dcm")])[0][0], noise(ROWS, COLUMNS))


@pytest.mark.parametrize("seed", range(60))
def test_flipped_bytes_are_read_or_named(tmp_path, seed):
    draw = np.random.default_rng(seed)
    file = multi_frame(noise(3, 8, 8), along_z(3), **SECRETS) if seed % 2 else dicom(noise(8, 8), **SECRETS)
    data = bytearray(save(file, tmp_path / "s.dcm").read_bytes())
    for at in draw.integers(132, len(data), 1 + seed % 8):
        data[at] = draw.integers(256)
    path = tmp_path / "fuzzed.dcm"
    path.write_bytes(data)
    read_header(path)
    try:
        read_dicom([path])
    except FileError as error:
        assert not any(secret in error.reason for secret in SECRETS.values())
