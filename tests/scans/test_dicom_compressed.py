"""Compressed pixels: every transfer syntax that the extra ``dicom`` reads, and what is said without it."""

import io
import sys
import threading
import zlib

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.pixels import get_decoder
from pydicom.uid import (
    MPEG2MPML,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from scanlearn.errors import FileError
from scanlearn.scans import dicom_apart
from scanlearn.scans.dicom import read_dicom
from scanlearn.scans.dicom_codestream import frame_size
from scans.dicoms import along_z, compressed, dicom, multi_frame, noise, save, series

gdcm = pytest.importorskip("gdcm", reason="the extra 'dicom' is not installed")
SIDE = (40, 48)


def by_gdcm(source, path, syntax):
    """The file of ``source`` compressed by GDCM."""
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(source))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(syntax))))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return path


def jpeg(pixels):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=95)
    return out.getvalue()


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless])
@pytest.mark.parametrize("signed", [False, True])
def test_lossless_compression_loses_nothing(tmp_path, syntax, signed):
    pixels = (noise(*SIDE, high=4000).astype(np.int16) - 2000 * signed).astype(np.int16 if signed else np.uint16)
    plain = save(dicom(pixels, RescaleSlope=1, RescaleIntercept=-24), tmp_path / "plain.dcm")
    packed = by_gdcm(plain, tmp_path / "packed.dcm", syntax)
    assert pydicom.dcmread(packed).file_meta.TransferSyntaxUID == syntax
    assert np.array_equal(read_dicom([packed])[0][0], pixels.astype(int) - 24)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, RLELossless])
def test_compressed_frames_are_decoded_in_their_places(tmp_path, syntax):
    pixels = noise(3, *SIDE)
    file = multi_frame(pixels, along_z(3)[::-1])
    file.compress(syntax)
    assert np.array_equal(read_dicom([save(file, tmp_path / "m.dcm")])[0][0], pixels[::-1].transpose(2, 1, 0))


def test_a_decoder_that_crashes_or_hangs_is_named_and_the_next_file_read(tmp_path, monkeypatch):
    plain = save(dicom(noise(*SIDE)), tmp_path / "plain.dcm")
    packed = by_gdcm(plain, tmp_path / "packed.dcm", JPEGLosslessSV1)
    for code in (
        "import os; os.abort()",
        "import sys; print('{', end=''); sys.stdin.readline()",
        "import time; time.sleep(99)",
    ):
        monkeypatch.setattr(dicom_apart, "_local", threading.local())
        with monkeypatch.context() as patch:
            patch.setattr(dicom_apart, "COMMAND", [sys.executable, "-c", code])
            patch.setattr(dicom_apart, "LONGEST", 0.5)
            with pytest.raises(FileError, match="damaged so badly that the decoder ended"):
                read_dicom([packed])
        assert np.array_equal(read_dicom([packed])[0][0], noise(*SIDE))


def test_frames_that_nobody_waits_for_do_not_reach_the_next_file(tmp_path):
    pixels = noise(2, *SIDE)
    paths = [
        by_gdcm(save(dicom(p), tmp_path / f"p{n}.dcm"), tmp_path / f"c{n}.dcm", JPEGLSLossless)
        for n, p in enumerate(pixels)
    ]
    first = dicom_apart.frames_apart(paths[0])
    assert np.array_equal(next(first), pixels[0])
    first.close()
    assert [np.array_equal(frame, pixels[1]) for frame in dicom_apart.frames_apart(paths[1])] == [True]


def test_a_compressed_series_is_a_volume(tmp_path):
    pixels = noise(3, *SIDE)
    paths = series(tmp_path, pixels, along_z(3), RescaleIntercept=-1000)
    for path in paths[:2]:  # archives compress some files and not others
        by_gdcm(path, path, JPEGLSLossless)
    assert np.array_equal(read_dicom(paths)[0][0], pixels.transpose(2, 1, 0).astype(int) - 1000)


def test_jpeg_baseline_is_read(tmp_path):
    pixels = np.add.outer(np.arange(40), 3 * np.arange(48)).astype(np.uint8)
    file = compressed(dicom(pixels, RescaleIntercept=None), JPEGBaseline8Bit, [jpeg(pixels)])
    found = read_dicom([save(file, tmp_path / "s.dcm")])[0][0]
    assert np.abs(found.astype(int) - pixels).max() <= 4


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEG2000Lossless])
def test_some_compressed_files_are_read_without_the_extra(tmp_path, monkeypatch, syntax):
    pixels = np.add.outer(np.arange(40), 3 * np.arange(48)).astype(np.uint8)
    file = dicom(pixels, RescaleIntercept=None)
    if syntax == JPEGBaseline8Bit:
        compressed(file, syntax, [jpeg(pixels)])
    else:
        file.compress(syntax)
    decoder = get_decoder(syntax)
    monkeypatch.setattr(decoder, "_available", {"pillow": decoder._available["pillow"]})
    found = read_dicom([save(file, tmp_path / "s.dcm")])[0][0]
    assert np.abs(found.astype(int) - pixels).max() <= (4 if syntax == JPEGBaseline8Bit else 0)


def test_stored_bits_of_rle_are_cut_out(tmp_path):
    values = noise(*SIDE, high=4096)
    file = dicom((values | 0x5000).astype(np.uint16), BitsStored=12, HighBit=11)
    file.compress(RLELossless)
    assert np.array_equal(read_dicom([save(file, tmp_path / "s.dcm")])[0][0], values)


@pytest.mark.parametrize("syntax, name", [(JPEGLSLossless, "JPEG-LS Lossless"), (HTJ2KLossless, "High-Throughput")])
def test_a_missing_decoder_is_named_with_what_to_install(tmp_path, monkeypatch, syntax, name):
    monkeypatch.setattr(get_decoder(syntax), "_available", {})
    file = compressed(dicom(noise(*SIDE)), syntax, [b"\xff\xd8\xff\xd9"])
    with pytest.raises(FileError) as error:
        read_dicom([save(file, tmp_path / "s.dcm")])
    assert error.value.reason.startswith(f"is compressed as {name}")
    assert error.value.reason.endswith("to read it: pip install 'scanlearn[dicom]'.")


def test_twelve_bit_jpeg_and_video_are_named(tmp_path):
    file = dicom(noise(*SIDE), BitsStored=12, HighBit=11)
    save(compressed(file, JPEGExtended12Bit, [jpeg(noise(*SIDE, high=255, dtype=np.uint8))]), tmp_path / "s.dcm")
    with pytest.raises(FileError, match="is JPEG Extended of 12 bits, which no free decoder reads"):
        read_dicom([tmp_path / "s.dcm"])
    video = compressed(dicom(noise(*SIDE, high=255, dtype=np.uint8)), MPEG2MPML, [b"\0\0\1\xb3"])
    with pytest.raises(FileError, match=r"compressed in a way that cannot be read \(MPEG2"):
        read_dicom([save(video, tmp_path / "v.dcm")])


def test_a_compressed_frame_that_is_larger_than_the_header_says_is_not_decoded(tmp_path):
    small = noise(*SIDE, high=255, dtype=np.uint8)
    huge = bytearray(jpeg(small))
    at = huge.index(b"\xff\xc0")
    huge[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    file = compressed(dicom(small), JPEGBaseline8Bit, [bytes(huge)])
    with pytest.raises(FileError, match="says 40 x 48, but a compressed frame in it is 65535 x 65535"):
        read_dicom([save(file, tmp_path / "s.dcm")])


def test_missing_and_damaged_frames_are_named(tmp_path):
    small = noise(*SIDE, high=255, dtype=np.uint8)
    stream = jpeg(small)
    file = compressed(multi_frame(np.stack([small] * 3), along_z(3)), JPEGBaseline8Bit, [stream, stream])
    with pytest.raises(FileError, match=r"is cut off|cannot be decoded"):
        read_dicom([save(file, tmp_path / "m.dcm")])
    whole = save(compressed(dicom(small), JPEGBaseline8Bit, [stream]), tmp_path / "s.dcm").read_bytes()
    (tmp_path / "cut.dcm").write_bytes(whole[: -len(stream) // 2])
    with pytest.raises(FileError, match=r"cut off|cannot be decoded"):
        read_dicom([tmp_path / "cut.dcm"])


def test_sizes_are_read_from_every_kind_of_frame(tmp_path):
    small = noise(*SIDE, high=255, dtype=np.uint8)
    assert frame_size(jpeg(small)) == SIDE
    plain = save(dicom(noise(*SIDE)), tmp_path / "p.dcm")
    for syntax in (JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless):
        packed = pydicom.dcmread(by_gdcm(plain, tmp_path / "c.dcm", syntax))
        stream = next(pydicom.encaps.generate_frames(packed.PixelData, number_of_frames=1))
        assert frame_size(stream) == SIDE
        assert frame_size(stream[:10]) is None
    assert frame_size(b"") is None and frame_size(zlib.compress(b"x" * 100)) is None
