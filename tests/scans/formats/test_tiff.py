import numpy as np
import pytest
import tifffile
from PIL import Image

from scanlearn.errors import FileError
from scanlearn.scans.read import read_header, read_mask, read_scan
from scans.refused import reason

generator = np.random.default_rng(0)
PICTURE = generator.integers(0, 256, (6, 9)).astype(np.uint8)
STACK = generator.integers(-900, 900, (4, 6, 9), dtype=np.int16)  # (page, row, column)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", ">i2", "uint32", "int32", "float32", ">f8"])
def test_pictures_keep_their_numbers(tmp_path, dtype, compression):
    picture = (PICTURE // 2).astype(dtype)
    tifffile.imwrite(tmp_path / "i.tif", picture, compression=compression, photometric="minisblack")
    scan = read_scan(tmp_path / "i.tif")
    assert np.array_equal(scan.array[0], picture) and scan.array.dtype == picture.dtype.newbyteorder("=")
    assert not scan.located and scan.spacing == (1, 1)
    assert read_header(tmp_path / "i.tif") == (6, 9)


def test_bigtiff_is_tiff(tmp_path):
    tifffile.imwrite(tmp_path / "i.tif", PICTURE, bigtiff=True)
    assert np.array_equal(read_scan(tmp_path / "i.tif").array[0], PICTURE)


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_adobe_deflate"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_what_pillow_packs_is_unpacked(tmp_path, dtype, compression):
    picture = PICTURE.astype(dtype)
    Image.fromarray(picture).save(tmp_path / "i.tif", compression=compression)
    assert np.array_equal(read_scan(tmp_path / "i.tif").array[0], picture)


def test_jpeg_within_tiff_is_unpacked(tmp_path):
    smooth = np.repeat(np.arange(0, 240, 15, dtype=np.uint8)[:, None], 16, axis=1)
    Image.fromarray(smooth).save(tmp_path / "grey.tif", compression="jpeg", quality=95)
    assert np.abs(read_scan(tmp_path / "grey.tif").array[0].astype(int) - smooth).max() <= 3
    Image.fromarray(np.stack([smooth] * 3, axis=-1)).save(tmp_path / "rgb.tif", compression="jpeg", quality=95)
    assert np.abs(read_scan(tmp_path / "rgb.tif").array[0].astype(int) - smooth).max() <= 3


def test_a_fax_is_black_and_white_whichever_of_them_is_zero(tmp_path):
    drawn = PICTURE > 127
    Image.fromarray(drawn).save(tmp_path / "i.tif", compression="group4")
    assert np.array_equal(read_scan(tmp_path / "i.tif").array[0] > 0, drawn)


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_pages_become_the_slices_of_a_volume(tmp_path, compression):
    pages = [Image.fromarray(page.astype(np.uint16)) for page in STACK + 1000]
    pages[0].save(tmp_path / "v.tif", save_all=True, append_images=pages[1:], compression=compression)
    scan = read_scan(tmp_path / "v.tif")
    assert np.array_equal(scan.array[0], STACK.T + 1000) and not scan.located
    assert scan.shape == read_header(tmp_path / "v.tif") == (9, 6, 4)


@pytest.mark.parametrize(
    ("axes", "shape"), [("CYX", (3, 6, 9)), ("ZCYX", (4, 3, 6, 9)), ("CZYX", (3, 4, 6, 9)), ("TZCYX", (1, 4, 1, 6, 9))]
)
def test_channels_of_ome_and_imagej_come_first(tmp_path, axes, shape):
    array = generator.integers(0, 999, shape).astype(np.uint16)
    tifffile.imwrite(tmp_path / "v.ome.tif", array, metadata={"axes": axes}, photometric="minisblack")
    scan = read_scan(tmp_path / "v.ome.tif")
    order = [axes.index(a) for a in ("CXYZ" if "Z" in axes else "CYX") if a in axes]
    rest = [axes.index("T")] if "T" in axes else []
    expected = array.transpose(rest + order)
    assert np.array_equal(scan.array, expected.reshape(scan.array.shape))
    assert scan.shape == read_header(tmp_path / "v.ome.tif")
    assert scan.array.shape[0] == dict(zip(axes, shape, strict=True)).get("C", 1)


def test_millimetres_come_from_imagej_and_ome_but_not_from_dots_per_inch(tmp_path):
    about = {"axes": "ZYX", "unit": "um", "spacing": 250}
    tifffile.imwrite(tmp_path / "i.tif", STACK, imagej=True, metadata=about, resolution=(1 / 500, 1 / 700))
    assert np.allclose(read_scan(tmp_path / "i.tif").spacing, (0.5, 0.7, 0.25))
    sizes = {"PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "mm", "PhysicalSizeY": 700, "PhysicalSizeZ": 2500}
    tifffile.imwrite(tmp_path / "o.ome.tif", STACK, metadata={"axes": "ZYX", "PhysicalSizeZUnit": "nm", **sizes})
    assert np.allclose(read_scan(tmp_path / "o.ome.tif").spacing, (0.5, 0.7, 0.0025))
    tifffile.imwrite(tmp_path / "d.tif", PICTURE, resolution=(72, 72), resolutionunit="inch")
    assert read_scan(tmp_path / "d.tif").spacing == (1, 1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_pictures_are_turned_as_they_are_displayed(tmp_path, orientation, compression):
    Image.fromarray(PICTURE).save(tmp_path / "i.tif", tiffinfo={274: orientation}, compression=compression)
    upright = {1: PICTURE, 2: np.fliplr(PICTURE), 3: np.rot90(PICTURE, 2), 4: np.flipud(PICTURE), 5: PICTURE.T}
    turned = {6: np.rot90(PICTURE, -1), 7: np.rot90(PICTURE, 2).T, 8: np.rot90(PICTURE)}
    expected = {**upright, **turned}[orientation]
    scan = read_scan(tmp_path / "i.tif")
    assert np.array_equal(scan.array[0], expected) and read_header(tmp_path / "i.tif") == expected.shape


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_where_white_is_zero_more_is_still_brighter(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "i.tif", PICTURE.astype(dtype), photometric="miniswhite")
    assert np.array_equal(read_scan(tmp_path / "i.tif").array[0], np.iinfo(dtype).max - PICTURE.astype(int))


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_colour_becomes_luminance(tmp_path, dtype, planar):
    colours = generator.integers(0, 256, (6, 9, 3)).astype(dtype)
    stored = colours if planar == "contig" else np.moveaxis(colours, 2, 0)
    tifffile.imwrite(tmp_path / "i.tif", stored, photometric="rgb", planarconfig=planar)
    expected = np.asarray(Image.fromarray(colours.astype(np.uint8)).convert("L"))
    assert np.array_equal(read_scan(tmp_path / "i.tif").array, expected[None])


def test_a_palette_gives_grey_to_a_scan_and_its_indices_to_a_mask(tmp_path):
    classes = generator.integers(0, 3, (6, 9)).astype(np.uint8)
    table = np.zeros((3, 256), np.uint16)
    table[:, 1], table[:, 2] = 65535, 100 * 256
    tifffile.imwrite(tmp_path / "m.tif", classes, photometric="palette", colormap=table)
    assert np.array_equal(read_mask(tmp_path / "m.tif").array[0], classes)
    assert np.array_equal(read_scan(tmp_path / "m.tif").array[0], np.array([0, 255, 100])[classes])


def test_a_film_and_pictures_of_different_sizes_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "film.tif", STACK, imagej=True, metadata={"axes": "TYX"})
    assert reason(tmp_path / "film.tif").startswith("has 4 time points")
    with tifffile.TiffWriter(tmp_path / "two.tif") as file:
        file.write(PICTURE)
        file.write(PICTURE[:3])
    assert "2 pictures of different sizes" in reason(tmp_path / "two.tif")
    tifffile.imwrite(tmp_path / "many.tif", np.zeros((9, 6, 9), np.uint8), metadata={"axes": "CYX"}, ome=True)
    assert "has 9 channels" in reason(tmp_path / "many.tif")


def test_a_packing_that_nobody_here_knows_names_the_package(tmp_path):
    tifffile.imwrite(tmp_path / "i.tif", PICTURE)
    whole = bytearray((tmp_path / "i.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "i.tif") as file:
        at = file.pages[0].tags["Compression"].valueoffset
    whole[at : at + 2] = (50002).to_bytes(2, "little")  # JPEG XL
    (tmp_path / "i.tif").write_bytes(whole)
    with pytest.raises(FileError, match=r"compressed as jpegxl .* needs the package imagecodecs"):
        read_scan(tmp_path / "i.tif")


def test_pixels_that_are_missing_are_not_taken_for_zeros(tmp_path):
    tifffile.imwrite(tmp_path / "i.tif", STACK, compression="zlib", photometric="minisblack")
    with tifffile.TiffFile(tmp_path / "i.tif") as file:
        at = file.pages[2].tags["StripByteCounts"].valueoffset
    whole = bytearray((tmp_path / "i.tif").read_bytes())
    whole[at : at + 4] = bytes(4)
    (tmp_path / "i.tif").write_bytes(whole)
    assert "do not lie within" in reason(tmp_path / "i.tif")


def test_a_size_bomb_is_refused_by_its_header(tmp_path):
    tifffile.imwrite(tmp_path / "i.tif", np.zeros((3000, 3000), np.uint8), compression="zlib")
    assert (tmp_path / "i.tif").stat().st_size < 20_000
    assert "more than the limit" in reason(tmp_path / "i.tif", limit_bytes=5_000_000)


def test_other_files_that_ome_names_are_not_opened(tmp_path):
    (tmp_path / "inside").mkdir()
    tifffile.imwrite(tmp_path / "secret.tif", np.full((6, 9), 77, np.uint8))
    block = '<TiffData IFD="0" PlaneCount="1" FirstZ="{}"><UUID FileName="../secret.tif">urn:uuid:{}</UUID></TiffData>'
    ids = ("11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222")
    blocks = '<TiffData IFD="0" PlaneCount="1" FirstZ="0"/>' + block.format(1, ids[1])
    text = (
        f'<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{ids[0]}">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="9" SizeY="6" SizeZ="2" '
        f'SizeC="1" SizeT="1"><Channel ID="Channel:0:0" SamplesPerPixel="1"/>{blocks}</Pixels></Image></OME>'
    )
    path = tmp_path / "inside" / "i.ome.tif"
    tifffile.imwrite(path, PICTURE, description=text, metadata=None)
    try:
        assert not (read_scan(path).array == 77).all(axis=(1, 2)).any()
    except FileError as error:
        assert "lacks a page" in error.reason
