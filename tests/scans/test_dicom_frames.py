"""Objects of many frames."""

import numpy as np
import pytest

from scanlearn.errors import FileError
from scanlearn.scans.dicom import read_dicom, read_dicom_scan
from scans.dicoms import COLUMNS, ROWS, along_z, dicom, group, multi_frame, noise, save, series


def read(file, tmp_path):
    return read_dicom_scan([save(file, tmp_path / "s.dcm")])


def test_frames_in_any_order_with_a_slope_each(tmp_path):
    pixels = noise(4, ROWS, COLUMNS)
    positions = [(0, 0, z) for z in (9, 6, 0, 3)]
    file = multi_frame(
        pixels,
        positions,
        each=lambda n: {
            "PixelValueTransformationSequence": group(RescaleSlope=1, RescaleIntercept=-10 * n, RescaleType="HU")
        },
    )
    scan = read(file, tmp_path)
    hounsfield = pixels.astype(int) - 10 * np.arange(4)[:, None, None]
    assert np.array_equal(scan.array[0], hounsfield[[2, 3, 1, 0]].transpose(2, 1, 0))
    assert scan.located and scan.notes == [] and np.allclose(np.diag(scan.affine)[:3], (-0.4, -0.7, 3))


def test_a_shared_slope_holds_for_all_frames(tmp_path):
    pixels = noise(3, ROWS, COLUMNS)
    file = multi_frame(pixels, along_z(3))
    shared = file.SharedFunctionalGroupsSequence[0]
    shared.PixelValueTransformationSequence = group(RescaleSlope=2, RescaleIntercept=-5, RescaleType="US")
    file.RescaleIntercept = 999  # at the top level it has no meaning in such an object
    assert np.array_equal(read(file, tmp_path).array[0], (pixels.astype(int) * 2 - 5).transpose(2, 1, 0))


def test_an_enhanced_object_of_one_frame_is_an_image_in_its_place(tmp_path):
    pixels = noise(1, ROWS, COLUMNS)
    scan = read(multi_frame(pixels, [(1, 2, 3)]), tmp_path)
    assert np.array_equal(scan.array, pixels) and scan.located
    assert np.allclose(scan.affine[:3, 3], (-1, -2, 3))


def test_enhanced_objects_of_one_frame_each_are_a_series(tmp_path):
    pixels = noise(3, ROWS, COLUMNS)
    paths = [
        save(multi_frame(pixels[n : n + 1], [position]), tmp_path / f"{n}.dcm") for n, position in enumerate(along_z(3))
    ]
    array, affine, _ = read_dicom(paths[::-1])
    assert np.array_equal(array[0], pixels.transpose(2, 1, 0)) and np.allclose(affine[:3, 2], (0, 0, 2.5))


@pytest.mark.parametrize(
    "sequence, keyword, said",
    [
        ("MREchoSequence", "EffectiveEchoTime", "2 echo times"),
        ("FrameContentSequence", "TemporalPositionIndex", "2 temporal positions"),
        ("FrameContentSequence", "StackID", "2 stacks"),
        ("MRDiffusionSequence", "DiffusionBValue", "2 b-values"),
    ],
)
def test_several_volumes_in_one_object_are_named_by_what_they_differ_in(tmp_path, sequence, keyword, said):
    def value(n):
        return str(n // 3 + 1) if keyword == "StackID" else n // 3 + 1

    file = multi_frame(noise(6, ROWS, COLUMNS), along_z(3) * 2, each=lambda n: {sequence: group(**{keyword: value(n)})})
    with pytest.raises(FileError, match=rf"holds 6 frames at 3 places \({said}\); save each volume as its own file"):
        read(file, tmp_path)


def test_stacks_of_different_direction_are_refused(tmp_path):
    def own(n):
        cosines = (1, 0, 0, 0, 1, 0) if n < 3 else (0, 1, 0, 0, 0, 1)
        return {"PlaneOrientationSequence": group(ImageOrientationPatient=list(cosines))}

    with pytest.raises(FileError, match=r"different direction \(3 of 6 lie apart"):
        read(multi_frame(noise(6, ROWS, COLUMNS), along_z(6), each=own), tmp_path)


def test_a_film_is_named(tmp_path):
    with pytest.raises(FileError, match=r"holds 4 frames with no positions \(a film\?\)"):
        read(dicom(noise(4, ROWS, COLUMNS), NumberOfFrames=4), tmp_path)


def test_positions_for_some_frames_only_are_named(tmp_path):
    file = multi_frame(noise(4, ROWS, COLUMNS), along_z(3))
    with pytest.raises(FileError, match="holds 4 frames with positions for 3 of them"):
        read(file, tmp_path)


def test_multi_frame_files_are_not_mixed_into_a_series(tmp_path):
    paths = series(tmp_path, noise(2, ROWS, COLUMNS), along_z(2))
    paths.append(save(multi_frame(noise(2, ROWS, COLUMNS), along_z(2)), tmp_path / "m.dcm"))
    with pytest.raises(FileError, match="mixes files of several frames"):
        read_dicom(paths)
