import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from scanlearn.errors import FileError
from scanlearn.scans.read import read_header, read_scan

PICTURE = np.random.default_rng(0).integers(0, 256, (6, 9)).astype(np.uint8)


def png_of_size(width, height):
    """A PNG that announces a size and holds one row's worth of compressed zeros."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + pixels + chunk(b"IEND", b"")


@pytest.mark.parametrize("name", ["i.png", "i.bmp", "i.pgm"])
def test_lossless_pictures_keep_their_values_and_claim_no_place(tmp_path, name):
    Image.fromarray(PICTURE).save(tmp_path / name)
    scan = read_scan(tmp_path / name)
    assert np.array_equal(scan.array[0], PICTURE) and not scan.located and scan.spacing == (1, 1)
    assert read_header(tmp_path / name) == (6, 9)


def test_16_bit_pictures_claim_no_place_either(tmp_path):
    Image.fromarray(PICTURE.astype(np.uint16) * 200).save(tmp_path / "i.png")
    assert not read_scan(tmp_path / "i.png").located


@pytest.mark.parametrize(
    ("size", "reason"), [((100_000, 100_000), "pixels that Pillow reads"), ((9_000, 9_000), "more than the limit")]
)
def test_a_size_bomb_is_refused_before_it_is_unpacked(tmp_path, size, reason):
    (tmp_path / "i.png").write_bytes(png_of_size(*size))
    for reader in (read_header, read_scan):
        with pytest.raises(FileError, match=reason):
            reader(tmp_path / "i.png", limit_bytes=10_000_000)


def test_a_picture_that_is_cut_off_is_refused(tmp_path):
    Image.fromarray(PICTURE).save(tmp_path / "i.jpg")
    whole = (tmp_path / "i.jpg").read_bytes()
    (tmp_path / "i.jpg").write_bytes(whole[:-30])
    with pytest.raises(FileError, match=r"cannot be read"):
        read_scan(tmp_path / "i.jpg")


@pytest.mark.parametrize("orientation", [1, 6])
def test_the_header_of_a_png_knows_whether_it_is_turned(tmp_path, orientation):
    image = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8))
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(tmp_path / "i.png", exif=exif)
    assert (
        read_header(tmp_path / "i.png")
        == read_scan(tmp_path / "i.png").shape
        == ((8, 6) if orientation == 6 else (6, 8))
    )
