import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEGLSLossless, generate_uid

from scanlearn.errors import ScanlearnError
from scanlearn.scans.read import read_header, read_scan

generator = np.random.default_rng(0)
ROWS, COLUMNS = 6, 9


def dicom(pixels, **tags):
    """A CT file of the pixels (..., row, column), written with pydicom."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
    file = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID, file.Modality = CTImageStorage, meta.MediaStorageSOPInstanceUID, "CT"
    file.Rows, file.Columns = pixels.shape[-2:]
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated = file.BitsStored = pixels.dtype.itemsize * 8
    file.HighBit, file.PixelRepresentation = file.BitsStored - 1, int(pixels.dtype.kind == "i")
    file.PixelData = pixels.tobytes()
    for name, value in tags.items():
        setattr(file, name, value)
    return file


def oblique_series(folder, count=5, gap=2.5):
    """Files in shuffled order, the stored pixels in the true order, along an oblique normal."""
    turned = np.linalg.qr(generator.normal(size=(3, 3)))[0]
    row, column = turned[:, 0], turned[:, 1]
    normal = np.cross(row, column)
    pixels = generator.integers(0, 3000, (count, ROWS, COLUMNS), dtype=np.uint16)
    uid, paths = generate_uid(), []
    for n in generator.permutation(count):
        position = np.array([-30.0, 20.0, 5.0]) + n * gap * normal
        file = dicom(
            pixels[n],
            SeriesInstanceUID=uid,
            ImageOrientationPatient=[round(float(v), 12) for v in (*row, *column)],
            ImagePositionPatient=[round(float(v), 9) for v in position],
            PixelSpacing=[0.7, 0.4],
            RescaleSlope=1,
            RescaleIntercept=-1024,
            InstanceNumber=int(count - n),
        )
        paths.append(folder / f"{generate_uid()}.dcm")
        file.save_as(paths[-1])
    return paths, pixels


def test_a_series_is_sorted_in_space_and_lies_where_simpleitk_puts_it(tmp_path):
    paths, pixels = oblique_series(tmp_path)
    scan = read_scan(paths)
    assert scan.array.dtype == np.int16 and scan.modality == "CT"
    assert np.array_equal(scan.array[0], pixels.transpose(2, 1, 0).astype(int) - 1024)
    assert np.allclose(scan.spacing, (0.4, 0.7, 2.5))
    assert read_header(paths) == scan.shape == (COLUMNS, ROWS, 5)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    image = reader.Execute()
    assert np.array_equal(sitk.GetArrayFromImage(image).transpose(2, 1, 0), scan.array[0])
    for index in [(0, 0, 0), (8, 3, 4)]:
        left, posterior, superior = image.TransformIndexToPhysicalPoint(index)
        assert np.allclose(scan.affine @ [*index, 1], [-left, -posterior, superior, 1], atol=1e-3)


def test_a_series_with_a_missing_or_a_doubled_slice_is_refused(tmp_path):
    paths, _ = oblique_series(tmp_path, count=6)
    order = sorted(paths, key=lambda p: pydicom.dcmread(p).InstanceNumber)
    with pytest.raises(ScanlearnError, match=r"2.5 to 5 mm apart; some are missing"):
        read_scan([*order[:2], *order[3:]])
    with pytest.raises(ScanlearnError, match="two slices at one position"):
        read_scan([*order, order[2]])


def test_a_single_slice_is_a_2d_scan_in_hounsfield_units(tmp_path):
    pixels = generator.integers(0, 3000, (ROWS, COLUMNS), dtype=np.uint16)
    dicom(
        pixels, RescaleSlope=1, RescaleIntercept=-1024, PixelSpacing=[0.7, 0.4], ImagePositionPatient=[1, 2, 3]
    ).save_as(tmp_path / "s.dcm")
    scan = read_scan(tmp_path / "s.dcm")
    assert scan.array.dtype == np.int16 and np.array_equal(scan.array[0], pixels.astype(int) - 1024)
    assert np.allclose(scan.spacing, (0.7, 0.4)) and read_header(tmp_path / "s.dcm") == (ROWS, COLUMNS)
    # One row down is 0.7 mm towards the back, one column right 0.4 mm towards the patient's left.
    assert np.allclose(scan.affine @ [1, 1, 0, 1], [-1.4, -2.7, 3, 1])


def test_slopes_that_are_no_whole_numbers_give_floats(tmp_path):
    pixels = generator.integers(0, 3000, (ROWS, COLUMNS), dtype=np.uint16)
    dicom(pixels, RescaleSlope=0.5, RescaleIntercept=0).save_as(tmp_path / "s.dcm")
    scan = read_scan(tmp_path / "s.dcm")
    assert scan.array.dtype == np.float32 and np.allclose(scan.array[0], pixels * 0.5)


def test_inverted_radiographs_are_turned_so_that_more_signal_is_brighter(tmp_path):
    pixels = generator.integers(0, 4096, (ROWS, COLUMNS), dtype=np.uint16)
    dicom(pixels, PhotometricInterpretation="MONOCHROME1", BitsStored=12, HighBit=11).save_as(tmp_path / "s.dcm")
    assert np.array_equal(read_scan(tmp_path / "s.dcm").array[0], 4095 - pixels.astype(int))


def test_a_file_without_its_preamble_is_still_read(tmp_path):
    pixels = generator.integers(0, 3000, (ROWS, COLUMNS), dtype=np.uint16)
    dicom(pixels).save_as(tmp_path / "s.dcm")
    (tmp_path / "bare.dcm").write_bytes((tmp_path / "s.dcm").read_bytes()[132:])
    assert np.array_equal(read_scan(tmp_path / "bare.dcm").array[0], pixels)


def multi_frame(pixels, positions):
    def one(**tags):
        part = Dataset()
        for name, value in tags.items():
            setattr(part, name, value)
        return Sequence([part])

    shared = Dataset()
    shared.PlaneOrientationSequence = one(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    shared.PixelMeasuresSequence = one(PixelSpacing=[0.7, 0.4])
    frames = []
    for n, z in enumerate(positions):
        frame = Dataset()
        frame.PlanePositionSequence = one(ImagePositionPatient=[0, 0, z])
        frame.PixelValueTransformationSequence = one(RescaleSlope=1, RescaleIntercept=-10 * n, RescaleType="HU")
        frames.append(frame)
    return dicom(
        pixels,
        NumberOfFrames=len(pixels),
        SharedFunctionalGroupsSequence=Sequence([shared]),
        PerFrameFunctionalGroupsSequence=Sequence(frames),
    )


def test_a_multi_frame_file_is_a_volume_with_the_slope_of_each_frame(tmp_path):
    pixels = generator.integers(0, 3000, (4, ROWS, COLUMNS), dtype=np.uint16)
    multi_frame(pixels, [9, 6, 0, 3]).save_as(tmp_path / "s.dcm")
    scan = read_scan(tmp_path / "s.dcm")
    hounsfield = pixels.astype(int) - 10 * np.arange(4)[:, None, None]
    assert np.array_equal(scan.array[0], hounsfield[[2, 3, 1, 0]].transpose(2, 1, 0))
    assert np.allclose(scan.spacing, (0.4, 0.7, 3.0)) and read_header(tmp_path / "s.dcm") == (COLUMNS, ROWS, 4)


def test_a_film_is_refused(tmp_path):
    pixels = generator.integers(0, 3000, (4, ROWS, COLUMNS), dtype=np.uint16)
    dicom(pixels, NumberOfFrames=4).save_as(tmp_path / "s.dcm")
    with pytest.raises(ScanlearnError, match="4 frames without positions"):
        read_scan(tmp_path / "s.dcm")


def test_a_missing_decoder_is_named(tmp_path):
    file = dicom(np.zeros((ROWS, COLUMNS), np.uint16))
    file.file_meta.TransferSyntaxUID = JPEGLSLossless
    file.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xf7 not really"])
    file["PixelData"].VR = "OB"
    file["PixelData"].is_undefined_length = True
    file.save_as(tmp_path / "s.dcm")
    with pytest.raises(ScanlearnError, match=r"s\.dcm cannot be decoded \(JPEG-LS Lossless.*install pylibjpeg"):
        read_scan(tmp_path / "s.dcm")
