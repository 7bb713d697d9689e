"""From stored bits to physical values, whatever the encoding."""

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from scanlearn.scans.dicom import read_dicom, read_dicom_scan, to_grey
from scanlearn.scans.dicom_values import rescale
from scans.dicoms import COLUMNS, ROWS, along_z, dicom, noise, save, series


def read(file, tmp_path, **options):
    return read_dicom([save(file, tmp_path / "s.dcm", **options)])[0][0]


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4"])
def test_integers_of_every_width_keep_their_values(tmp_path, dtype):
    info = np.iinfo(dtype)
    pixels = np.random.default_rng(0).integers(info.min, min(info.max, 2**31 - 1), (ROWS, COLUMNS)).astype(dtype)
    assert np.array_equal(read(dicom(pixels), tmp_path), pixels)


@pytest.mark.parametrize(
    "syntax, little, implicit",
    [
        (ImplicitVRLittleEndian, True, True),
        (ExplicitVRBigEndian, False, False),
        (DeflatedExplicitVRLittleEndian, True, False),
    ],
)
@pytest.mark.parametrize("dtype", ["u1", "i2", "u4"])
def test_other_encodings_give_the_same_pixels(tmp_path, syntax, little, implicit, dtype):
    pixels = noise(ROWS, COLUMNS + 2, high=120, dtype=np.dtype(dtype))
    file = dicom(pixels, RescaleIntercept=None)
    file.PixelData = pixels.astype(pixels.dtype.newbyteorder("<" if little else ">")).tobytes()
    file.file_meta.TransferSyntaxUID = syntax
    found = read(file, tmp_path, implicit_vr=implicit, little_endian=little)
    assert np.array_equal(found, pixels) and found.dtype.isnative


def test_odd_numbers_of_bytes_are_read(tmp_path):
    pixels = noise(3, 5, high=255, dtype=np.uint8)
    file = dicom(pixels, RescaleIntercept=None)
    file.PixelData = pixels.tobytes() + b"\0"
    assert np.array_equal(read(file, tmp_path), pixels)


def test_files_without_preamble_or_meta_information_are_read(tmp_path):
    pixels = noise(ROWS, COLUMNS)
    whole = save(dicom(pixels), tmp_path / "s.dcm").read_bytes()
    (tmp_path / "bare.dcm").write_bytes(whole[132:])
    start = whole.index(b"\x08\x00\x16\x00UI")  # the first tag behind the meta information
    (tmp_path / "naked.dcm").write_bytes(whole[start:])
    for name in ("bare.dcm", "naked.dcm"):
        assert np.array_equal(read_dicom([tmp_path / name])[0][0], pixels)


@pytest.mark.parametrize("signed", [False, True])
def test_what_lies_above_the_stored_bits_is_not_read(tmp_path, signed):
    """Overlays and rubbish in the four bits above a 12-bit image; signed values keep their sign."""
    values = np.random.default_rng(1).integers(-2048 if signed else 0, 2048 if signed else 4096, (ROWS, COLUMNS))
    rubbish = np.random.default_rng(2).integers(0, 16, values.shape) << 12
    stored = ((values & 0xFFF) | rubbish).astype(np.uint16)
    file = dicom(stored, BitsStored=12, HighBit=11, PixelRepresentation=int(signed))
    assert np.array_equal(read(file, tmp_path), values)


def test_images_in_the_upper_bits_are_moved_down(tmp_path):
    values = noise(ROWS, COLUMNS, high=4096)
    file = dicom(((values << 4) | 7).astype(np.uint16), BitsStored=12, HighBit=15)
    assert np.array_equal(read(file, tmp_path), values)


@pytest.mark.parametrize("dtype, keyword", [(np.float32, "FloatPixelData"), (np.float64, "DoubleFloatPixelData")])
def test_float_pixels_are_read(tmp_path, dtype, keyword):
    values = np.random.default_rng(0).normal(size=(ROWS, COLUMNS)).astype(dtype)
    file = dicom(values)
    del file.PixelData, file.PixelRepresentation, file.BitsStored, file.HighBit
    setattr(file, keyword, values.tobytes())
    found = read(file, tmp_path)
    assert found.dtype == np.float32 and np.allclose(found, values, rtol=1e-6)


def test_single_bits_are_read(tmp_path):
    bits = noise(8, 16, high=2, dtype=np.uint8)
    file = dicom(bits, BitsAllocated=1, BitsStored=1, HighBit=0, RescaleIntercept=None)
    file.PixelData = np.packbits(bits, bitorder="little").tobytes()
    assert np.array_equal(read(file, tmp_path), bits)


def test_every_slice_of_a_pet_series_has_its_own_slope(tmp_path):
    pixels = noise(4, ROWS, COLUMNS)
    slopes = [0.5, 1.25, 2.0, 0.75]
    array, _, modality = read_dicom(series(tmp_path, pixels, along_z(4), Modality="PT", RescaleSlope=slopes))
    assert modality == "PT" and array.dtype == np.float32
    assert np.allclose(array[0], (pixels * np.array(slopes)[:, None, None]).transpose(2, 1, 0))


def test_slopes_that_are_whole_in_some_slices_make_floats_of_all(tmp_path):
    pixels = noise(3, ROWS, COLUMNS, high=60000)
    array = read_dicom(series(tmp_path, pixels, along_z(3), Modality="PT", RescaleSlope=[3, 0.5, 1]))[0]
    assert array.dtype == np.float32
    assert np.allclose(array[0], (pixels * np.array([3, 0.5, 1])[:, None, None]).transpose(2, 1, 0))


@pytest.mark.parametrize(
    "raw, slope, intercept, dtype",
    [
        (np.uint16([0, 4095]), 1, -1024, np.int16),
        (np.uint16([0, 65535]), 1, 0, np.uint16),
        (np.uint16([0, 65535]), 1, -1024, np.int32),
        (np.uint16([0, 65535]), 32767, 32767, np.int32),
        (np.int16([-32768, 32767]), -32767, -32767, np.int32),
        (np.int32([-5, 2**31 - 1]), 1, 0, np.int32),
        (np.uint32([0, 2**32 - 1]), 1, 0, np.float32),
        (np.int16([0, 3]), 0.5, 0, np.float32),
    ],
)
def test_rescaling_agrees_with_exact_numbers_in_the_smallest_type(raw, slope, intercept, dtype):
    found = rescale(raw, float(slope), float(intercept))
    exact = [int(v) * slope + intercept for v in raw]
    assert found.dtype == dtype and (found.tolist() == exact or np.allclose(found.tolist(), exact, rtol=1e-7))


def test_a_modality_table_replaces_slope_and_intercept(tmp_path):
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [8, 0, 16], [0, 10, 40, 90, 160, 250, 360, 490]
    table["LUTDescriptor"].VR = table["LUTData"].VR = "US"
    pixels = noise(ROWS, COLUMNS, high=8)
    file = dicom(pixels, Modality="CR", ModalityLUTSequence=Sequence([table]), RescaleIntercept=None)
    assert np.array_equal(read(file, tmp_path), 10 * pixels.astype(int) ** 2)


def test_inverted_radiographs_are_turned_so_that_more_signal_is_brighter(tmp_path):
    pixels = noise(ROWS, COLUMNS, high=4096)
    tags = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12, "HighBit": 11}
    assert np.array_equal(read(dicom(pixels, Modality="DX", **tags), tmp_path), 4095 - pixels.astype(int))
    signed = (pixels.astype(int) - 2048).astype(np.int16)
    assert np.array_equal(read(dicom(signed, Modality="CR", **tags), tmp_path), -1 - signed.astype(int))


def test_measurements_are_not_inverted_however_they_are_displayed(tmp_path):
    pixels = noise(ROWS, COLUMNS)
    for modality in ("CT", "PT", "MR", "NM"):
        file = dicom(pixels, Modality=modality, PhotometricInterpretation="MONOCHROME1")
        assert np.array_equal(read(file, tmp_path), pixels)


@pytest.mark.parametrize("value, vr", [(-2000, "SS"), (2**16 - 2000, "US")])
def test_padding_outside_the_scanner_becomes_the_lowest_value_of_the_scan(tmp_path, value, vr):
    pixels = (noise(3, ROWS, COLUMNS).astype(np.int16) - 20).astype(np.int16)
    outside = np.zeros(pixels.shape, bool)
    outside[:, :2, :3] = outside[0, 3:] = True
    stored = np.where(outside, -2000, pixels).astype(np.int16)
    paths = series(tmp_path, stored, along_z(3), RescaleIntercept=-1024)
    for path in paths:
        header = pydicom.dcmread(path)
        header.add_new("PixelPaddingValue", vr, value)
        header.save_as(path)
    array = read_dicom(paths)[0][0]
    expected = np.where(outside, pixels[~outside].min(), pixels).astype(int) - 1024
    assert np.array_equal(array, expected.transpose(2, 1, 0))


def test_a_range_of_padding_is_taken_whole(tmp_path):
    pixels = np.array([[0, 1, 2, 50, 60, 70]], np.uint16)
    file = dicom(pixels, Modality="MG")
    file.add_new("PixelPaddingValue", "US", 2)
    file.add_new("PixelPaddingRangeLimit", "US", 0)
    assert read(file, tmp_path).tolist() == [[50, 50, 50, 50, 60, 70]]


def test_an_image_that_is_all_padding_stays_as_it_is(tmp_path):
    file = dicom(np.full((2, 2), 7, np.uint16))
    file.add_new("PixelPaddingValue", "US", 7)
    assert (read(file, tmp_path) == 7).all()


def test_a_ct_without_intercept_is_pointed_out(tmp_path):
    pixels = noise(ROWS, COLUMNS)
    silent = save(dicom(pixels, RescaleIntercept=None), tmp_path / "a.dcm")
    scan = read_dicom_scan([silent])
    assert np.array_equal(scan.array[0], pixels) and "no RescaleIntercept" in scan.notes[0]
    told = save(dicom(pixels, RescaleSlope=0), tmp_path / "b.dcm")  # a slope of zero would make every voxel alike
    assert read_dicom_scan([told]).notes == [] and np.array_equal(read_dicom([told])[0][0], pixels)


def colours():
    return noise(ROWS, COLUMNS, 3, high=256, dtype=np.uint8)


def coloured(pixels, interpretation, planar=0):
    data = pixels if planar == 0 else pixels.transpose(2, 0, 1)
    file = dicom(np.ascontiguousarray(pixels[..., 0]), SamplesPerPixel=3, PhotometricInterpretation=interpretation)
    file.PlanarConfiguration, file.PixelData, file.Modality = planar, data.tobytes(), "US"
    return file


@pytest.mark.parametrize("planar", [0, 1])
def test_colours_become_luminance(tmp_path, planar):
    found = read(coloured(colours(), "RGB", planar), tmp_path)
    weighted = colours() @ np.array([0.299, 0.587, 0.114])
    assert found.dtype == np.uint8 and np.abs(found - weighted).max() <= 0.51


def test_ybr_colours_give_their_luma(tmp_path):
    pixels = colours()
    pixels[..., 0] = pixels[..., 0] // 2 + 64
    pixels[..., 1:] = 128 + pixels[..., 1:] // 16 - 8
    assert np.abs(read(coloured(pixels, "YBR_FULL"), tmp_path).astype(int) - pixels[..., 0]).max() <= 1


def test_palettes_are_looked_up(tmp_path):
    pixels = noise(ROWS, COLUMNS, high=4, dtype=np.uint8)
    file = dicom(pixels, PhotometricInterpretation="PALETTE COLOR", Modality="US", RescaleIntercept=None)
    table = {"Red": [0, 255, 0, 90], "Green": [0, 0, 255, 90], "Blue": [0, 0, 0, 90]}
    for name, entries in table.items():
        file.add_new(f"{name}PaletteColorLookupTableDescriptor", "US", [4, 0, 8])
        file.add_new(f"{name}PaletteColorLookupTableData", "OW", bytes(entries))
    rgb = np.stack([np.array(table[name], np.uint8)[pixels] for name in ("Red", "Green", "Blue")], -1)
    assert np.array_equal(read(file, tmp_path), to_grey(rgb))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.int16, np.float32])
def test_equal_channels_are_their_own_grey(dtype):
    info = np.iinfo(dtype) if np.dtype(dtype).kind in "iu" else np.iinfo(np.int16)
    grey = np.linspace(info.min, info.max, 1000).astype(dtype)
    assert np.allclose(to_grey(np.stack([grey] * 3, -1)), grey, rtol=1e-6)
    assert to_grey(np.stack([grey] * 3, -1)).dtype == dtype
