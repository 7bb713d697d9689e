"""Series in space: order, affine, tilt, gaps, duplicates; SimpleITK is the independent reader."""

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import DigitalXRayImageStorageForPresentation, EnhancedCTImageStorage, generate_uid

from scanlearn.errors import FileError
from scanlearn.scans.dicom import read_dicom, read_dicom_header, read_dicom_scan
from scanlearn.scans.read import read_header, read_scan
from scans.dicoms import AXIAL, COLUMNS, ROWS, along_z, dicom, multi_frame, noise, save, series


def turned(seed):
    """Row, column and normal of a random orientation."""
    axes = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    return axes[:, 0], axes[:, 1], np.cross(axes[:, 0], axes[:, 1])


def oblique(folder, count=5, gap=2.5, seed=0, step=None, **tags):
    """A shuffled series along an oblique normal (or another step), and its pixels in the true order."""
    row, column, normal = turned(seed)
    pixels = noise(count, ROWS, COLUMNS, seed=seed)
    positions = [np.array([-30.0, 20.0, 5.0]) + n * (gap * normal if step is None else step) for n in range(count)]
    order = np.random.default_rng(seed).permutation(count)
    return series(folder, pixels, positions, (*row, *column), order, RescaleIntercept=-1024, **tags), pixels


def itk_series(folder):
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


@pytest.mark.parametrize("seed", range(4))
def test_a_series_is_sorted_in_space_and_lies_where_simpleitk_puts_it(tmp_path, seed):
    paths, pixels = oblique(tmp_path, seed=seed)
    scan = read_scan(paths)
    assert scan.array.dtype == np.int16 and scan.modality == "CT"
    assert np.array_equal(scan.array[0], pixels.transpose(2, 1, 0).astype(int) - 1024)
    assert np.allclose(scan.spacing, (0.4, 0.7, 2.5))
    assert read_header(paths) == scan.shape == (COLUMNS, ROWS, 5)
    image = itk_series(tmp_path)
    assert np.array_equal(sitk.GetArrayFromImage(image).transpose(2, 1, 0), scan.array[0])
    for index in [(0, 0, 0), (8, 3, 4), (2, 5, 1)]:
        left, posterior, superior = image.TransformIndexToPhysicalPoint(index)
        assert np.allclose(scan.affine @ [*index, 1], [-left, -posterior, superior, 1], atol=1e-3)


def test_a_tilted_gantry_gives_a_sheared_affine_and_a_note(tmp_path):
    row, column, normal = turned(1)
    step = 2.5 * normal + 2.5 * np.tan(np.radians(12)) * column
    paths, pixels = oblique(tmp_path, seed=1, step=step)
    scan = read_dicom_scan(paths)
    assert np.array_equal(scan.array[0], pixels.transpose(2, 1, 0).astype(int) - 1024)
    assert scan.notes == ["was taken with a tilted gantry: its slices are sheared by 12.0 degrees, as its affine is."]
    for path in paths:  # every first pixel lies where its own header says
        header = pydicom.dcmread(path)
        k = len(paths) - header.InstanceNumber
        left, posterior, superior = header.ImagePositionPatient
        assert np.allclose(scan.affine @ [0, 0, k, 1], [-left, -posterior, superior, 1], atol=1e-6)
    assert np.allclose(scan.affine[:3, 0] * [-1, -1, 1], row * 0.4)


def test_an_even_upright_series_has_nothing_to_say(tmp_path):
    assert read_dicom_scan(oblique(tmp_path)[0]).notes == []


@pytest.mark.parametrize("left_out, missing, gap", [((2,), 1, 5), ((2, 3), 2, 7.5), ((1, 5), 2, 5)])
def test_missing_slices_are_counted(tmp_path, left_out, missing, gap):
    keep = [n for n in range(8) if n not in left_out]
    positions = along_z(8)
    paths = series(tmp_path, noise(8, ROWS, COLUMNS), positions, order=keep)
    with pytest.raises(FileError) as error:
        read_dicom(paths)
    assert error.value.reason == f"misses {missing} slices: gaps of up to {gap} mm where 2.5 mm is usual."


def test_slices_that_are_nearly_even_are_taken_and_the_numbers_said(tmp_path):
    positions = [(0, 0, z) for z in (0, 2, 4.2, 6, 8)]
    scan = read_dicom_scan(series(tmp_path, noise(5, ROWS, COLUMNS), positions))
    assert scan.notes == ["has slices 1.8 to 2.2 mm apart; 2 mm is taken for all."]
    assert np.allclose(scan.affine[:3, 2], [0, 0, 2])


def test_positions_that_are_written_rounded_are_even(tmp_path):
    positions = [(0, 0, round(0.333333 * n, 2)) for n in range(9)]
    assert read_dicom_scan(series(tmp_path, noise(9, ROWS, COLUMNS), positions)).notes != []
    positions = [(0, 0, round(0.625 * n, 2)) for n in range(9)]
    assert read_dicom_scan(series(tmp_path / "b", noise(9, ROWS, COLUMNS), positions)).notes == []


def test_slices_that_become_denser_are_refused(tmp_path):
    positions = [(0, 0, z) for z in (0, 3, 5.5, 7.5, 9)]
    with pytest.raises(FileError, match=r"1\.5 to 3 mm apart, .* off an even grid"):
        read_dicom(series(tmp_path, noise(5, ROWS, COLUMNS), positions))


def test_a_slice_exported_twice_is_dropped_with_a_note(tmp_path):
    paths, pixels = oblique(tmp_path)
    again = tmp_path / "again.dcm"
    again.write_bytes(paths[1].read_bytes())
    scan = read_dicom_scan([*paths, again])
    assert scan.notes == ["had 1 slices twice, pixel for pixel; one of each is kept."]
    assert np.array_equal(scan.array[0], pixels.transpose(2, 1, 0).astype(int) - 1024)


def test_different_images_at_one_place_are_refused(tmp_path):
    paths, _ = oblique(tmp_path)
    other = pydicom.dcmread(paths[1])
    other.PixelData = bytes(len(other.PixelData))
    with pytest.raises(FileError, match=r"has different images at one place \(1 of 5 places have several\)"):
        read_dicom([*paths, save(other, tmp_path / "other.dcm")])


def test_images_side_by_side_are_no_duplicates(tmp_path):
    positions = [*along_z(3), (10.0, 20.0, 5.0)]
    with pytest.raises(FileError, match="lie 40 mm beside each other"):
        read_dicom(series(tmp_path, noise(4, ROWS, COLUMNS), positions))


@pytest.mark.parametrize(
    "tags, reason",
    [
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, 1]}, r"different direction \(1 of 4"),
        ({"PixelSpacing": [0.9, 0.9]}, "mixes planes of 2 pixel spacings"),
        ({"ImagePositionPatient": None}, "1 of 4 images without a position"),
    ],
)
def test_planes_that_do_not_belong_together_are_refused(tmp_path, tags, reason):
    paths = series(tmp_path, noise(3, ROWS, COLUMNS), along_z(3))
    odd = {"ImageOrientationPatient": list(AXIAL), "ImagePositionPatient": [-30, 20, 12.5], "PixelSpacing": [0.7, 0.4]}
    odd = {key: value for key, value in (odd | tags).items() if value is not None}
    paths.append(save(dicom(noise(ROWS, COLUMNS), **odd), tmp_path / "odd.dcm"))
    with pytest.raises(FileError, match=reason):
        read_dicom(paths)


def test_a_single_slice_is_a_2d_scan_in_hounsfield_units(tmp_path):
    pixels = noise(ROWS, COLUMNS)
    tags = {"PixelSpacing": [0.7, 0.4], "ImagePositionPatient": [1, 2, 3], "ImageOrientationPatient": list(AXIAL)}
    path = save(dicom(pixels, RescaleSlope=1, RescaleIntercept=-1024, **tags), tmp_path / "s.dcm")
    scan = read_dicom_scan([path])
    assert scan.array.dtype == np.int16 and np.array_equal(scan.array[0], pixels.astype(int) - 1024)
    assert read_header(path) == (ROWS, COLUMNS) and scan.located
    # One row down is 0.7 mm towards the back, one column right 0.4 mm towards the patient's left.
    assert np.allclose(scan.affine @ [1, 1, 0, 1], [-1.4, -2.7, 3, 1])


def test_a_radiograph_does_not_say_where_it_lies(tmp_path):
    path = save(dicom(noise(ROWS, COLUMNS), Modality="DX", ImagerPixelSpacing=[0.2, 0.1]), tmp_path / "s.dcm")
    scan = read_dicom_scan([path])
    assert not scan.located and np.allclose(np.linalg.norm(scan.affine[:3, :2], axis=0), (0.2, 0.1))


def test_an_enhanced_object_lies_where_simpleitk_puts_it(tmp_path):
    row, column, normal = turned(3)
    pixels, order = noise(4, ROWS, COLUMNS), [3, 2, 0, 1]
    first = np.array([10.0, -20.0, 30.0])
    # ITK takes frames as they come, so the independent volume is written in order, ours shuffled.
    for name, frames in (("sorted", range(4)), ("mixed", order)):
        file = multi_frame(pixels[list(frames)], [first + 3 * n * normal for n in frames], (*row, *column))
        file.SOPClassUID = file.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
        save(file, tmp_path / f"{name}.dcm")
    image = sitk.ReadImage(str(tmp_path / "sorted.dcm"))
    array, affine, modality = read_dicom([tmp_path / "mixed.dcm"])
    assert modality == "CT" and np.array_equal(sitk.GetArrayFromImage(image).transpose(2, 1, 0), array[0])
    for index in [(0, 0, 0), (8, 3, 3)]:
        left, posterior, superior = image.TransformIndexToPhysicalPoint(index)
        assert np.allclose(affine @ [*index, 1], [-left, -posterior, superior, 1], atol=1e-3)


def test_the_header_tells_the_shape_that_reading_gives(tmp_path):
    film = save(multi_frame(noise(4, ROWS, COLUMNS), along_z(4)), tmp_path / "m.dcm")
    assert read_dicom_header([film]) == ((COLUMNS, ROWS, 4), "CT")
    assert read_dicom([film])[0].shape == (1, COLUMNS, ROWS, 4)
    flat = dicom(noise(ROWS, COLUMNS), SOPClassUID=DigitalXRayImageStorageForPresentation, Modality="DX")
    flat.SOPInstanceUID = generate_uid()
    assert read_dicom_header([save(flat, tmp_path / "f.dcm")]) == ((ROWS, COLUMNS), "DX")
