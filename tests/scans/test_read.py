import gzip
import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from scanlearn.errors import FileError, ScanlearnError
from scanlearn.scans.read import Scan, files_of, read_header, read_mask, read_scan, write_mask_like
from scans.damaged import seeds

generator = np.random.default_rng(0)


def oblique():
    affine = np.eye(4)
    affine[:3, :3] = np.linalg.qr(generator.normal(size=(3, 3)))[0] * (0.8, 1.2, 3.0)
    affine[:3, 3] = (-90, 40, 12)
    return affine


# --- NIfTI ---


def test_nifti_keeps_the_voxels_dtype_and_affine_of_nibabel(tmp_path):
    affine, voxels = oblique(), generator.integers(-1000, 2000, (7, 8, 9), dtype=np.int16)
    nib.save(nib.Nifti1Image(voxels, affine), tmp_path / "v.nii.gz")
    scan = read_scan(tmp_path / "v.nii.gz")
    assert scan.array.dtype == np.int16 and np.array_equal(scan.array[0], voxels)
    assert np.allclose(scan.affine, nib.load(tmp_path / "v.nii.gz").affine)
    assert np.allclose(scan.spacing, (0.8, 1.2, 3.0)) and scan.shape == (7, 8, 9)
    assert read_header(tmp_path / "v.nii.gz") == (7, 8, 9)


@pytest.mark.parametrize(("slope", "intercept", "kind"), [(1.0, -1024.0, "i"), (0.25, 3.0, "f")])
def test_nifti_slope_and_intercept_are_applied(tmp_path, slope, intercept, kind):
    stored = generator.integers(0, 4000, (5, 6, 7), dtype=np.int16)
    image = nib.Nifti1Image(stored, np.eye(4))
    image.header.set_slope_inter(slope, intercept)
    nib.save(image, tmp_path / "v.nii")
    scan = read_scan(tmp_path / "v.nii")
    assert scan.array.dtype.kind == kind
    assert np.allclose(scan.array[0], stored * slope + intercept)


def test_nifti_time_comes_first_and_empty_axes_go(tmp_path):
    voxels = generator.random((4, 5, 6, 1, 3), np.float32)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "v.nii")
    scan = read_scan(tmp_path / "v.nii")
    assert scan.array.shape == (3, 4, 5, 6)
    assert np.array_equal(scan.array[2], voxels[..., 0, 2])


def test_a_flat_nifti_is_a_2d_scan_of_rows_and_columns(tmp_path):
    voxels, affine = generator.random((6, 4, 1), np.float32), oblique()
    nib.save(nib.Nifti1Image(voxels, affine), tmp_path / "v.nii")
    scan = read_scan(tmp_path / "v.nii")
    assert scan.shape == read_header(tmp_path / "v.nii") == (4, 6)
    assert scan.array[0, 1, 5] == voxels[5, 1, 0]
    assert np.allclose(scan.affine @ [1, 5, 0, 1], affine @ [5, 1, 0, 1], atol=1e-4)


def test_a_nifti_beside_one_of_the_same_name_is_not_mixed_up(tmp_path):
    # ITK, asked for v.nii.gz, reads the voxels of v.nii (InsightSoftwareConsortium/ITK#2243).
    ones, twos = np.ones((3, 3, 3), np.uint8), np.full((3, 3, 3), 2, np.uint8)
    nib.save(nib.Nifti1Image(ones, np.eye(4)), tmp_path / "v.nii")
    nib.save(nib.Nifti1Image(twos, np.eye(4)), tmp_path / "v.nii.gz")
    assert read_scan(tmp_path / "v.nii.gz").array.min() == 2


# --- MetaImage and NRRD ---


@pytest.mark.parametrize("suffix", ["mha", "nrrd"])
def test_itk_formats_land_where_simpleitk_puts_them(tmp_path, suffix):
    volume = generator.integers(0, 4000, (9, 8, 7), dtype=np.uint16)  # (k, j, i)
    image = sitk.GetImageFromArray(volume)
    image.SetSpacing((0.5, 0.6, 2.0))
    image.SetOrigin((3.0, -7.0, 11.0))
    image.SetDirection(np.linalg.qr(generator.normal(size=(3, 3)))[0].ravel().tolist())
    sitk.WriteImage(image, str(tmp_path / f"v.{suffix}"))
    scan = read_scan(tmp_path / f"v.{suffix}")
    assert scan.array.dtype == np.uint16 and scan.array[0, 6, 2, 4] == volume[4, 2, 6]
    for index in [(0, 0, 0), (6, 2, 4)]:
        left, posterior, superior = image.TransformIndexToPhysicalPoint(index)
        assert np.allclose(scan.affine @ [*index, 1], [-left, -posterior, superior, 1], atol=1e-4)
    assert read_header(tmp_path / f"v.{suffix}") == (7, 8, 9)


def test_vector_images_give_channels_first(tmp_path):
    array = generator.random((4, 5, 6, 2), np.float32)
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=True), str(tmp_path / "v.mha"))
    assert np.array_equal(read_scan(tmp_path / "v.mha").array, np.moveaxis(array, 3, 0).transpose(0, 3, 2, 1))


# --- PNG and JPEG ---


def test_grey_images_keep_8_and_16_bits(tmp_path):
    for dtype, high in ((np.uint8, 256), (np.uint16, 65536)):
        image = generator.integers(0, high, (6, 9)).astype(dtype)
        Image.fromarray(image).save(tmp_path / "i.png")
        scan = read_scan(tmp_path / "i.png")
        assert scan.array.dtype == dtype and np.array_equal(scan.array[0], image)
        assert read_header(tmp_path / "i.png") == (6, 9)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P"])
def test_grey_in_colour_becomes_one_channel_exactly(tmp_path, mode):
    image = generator.integers(0, 256, (6, 9)).astype(np.uint8)
    Image.fromarray(image).convert(mode).save(tmp_path / "i.png")
    assert np.array_equal(read_scan(tmp_path / "i.png").array, image[None])


def test_colour_becomes_the_luminance_of_pillow(tmp_path):
    image = Image.fromarray(generator.integers(0, 256, (6, 9, 3)).astype(np.uint8))
    image.save(tmp_path / "i.png")
    assert np.array_equal(read_scan(tmp_path / "i.png").array[0], np.asarray(image.convert("L")))


def test_a_jpeg_is_turned_as_it_is_displayed_whatever_its_name(tmp_path):
    image = Image.fromarray(np.repeat(np.arange(0, 240, 30, dtype=np.uint8)[:, None], 4, axis=1))  # 8 rows, 4 columns
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned by a quarter
    image.save(tmp_path / "i.png", format="jpeg", exif=exif, quality=100)
    scan = read_scan(tmp_path / "i.png")
    assert scan.shape == read_header(tmp_path / "i.png") == (4, 8)
    assert (np.diff(scan.array[0].astype(int), axis=1) < 0).all()


# --- masks ---


def test_black_and_white_masks_become_0_and_1(tmp_path):
    mask = generator.integers(0, 2, (5, 5)).astype(np.uint8)
    Image.fromarray(mask * 255).save(tmp_path / "m.png")
    assert np.array_equal(read_mask(tmp_path / "m.png").array[0], mask)


def test_palette_masks_give_their_indices(tmp_path):
    image = Image.fromarray(generator.integers(0, 5, (5, 5)).astype(np.uint8), mode="P")
    image.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0, 0, 0, 200, 90, 90, 90])
    image.save(tmp_path / "m.png")
    assert np.array_equal(read_mask(tmp_path / "m.png").array[0], np.asarray(image))


def test_a_jpeg_mask_is_refused_because_its_numbers_changed(tmp_path):
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(tmp_path / "m.jpg")
    with pytest.raises(ScanlearnError, match="is a JPEG"):
        read_mask(tmp_path / "m.jpg")


def test_a_mask_of_fractions_is_refused(tmp_path):
    nib.save(nib.Nifti1Image(np.full((3, 3, 3), 0.5, np.float32), np.eye(4)), tmp_path / "m.nii")
    with pytest.raises(ScanlearnError, match="other than the class numbers"):
        read_mask(tmp_path / "m.nii")


def test_a_written_mask_overlays_its_scan(tmp_path):
    affine, voxels = oblique(), generator.integers(0, 100, (7, 8, 9), dtype=np.int16)
    nib.save(nib.Nifti1Image(voxels, affine), tmp_path / "v.nii.gz")
    scan = read_scan(tmp_path / "v.nii.gz")
    write_mask_like(scan.array[0] > 50, scan, tmp_path / "m.nii.gz")
    written = nib.load(tmp_path / "m.nii.gz")
    assert np.allclose(written.affine, nib.load(tmp_path / "v.nii.gz").affine, atol=1e-5)
    assert np.array_equal(np.asarray(written.dataobj), voxels > 50)


def test_a_written_2d_mask_is_read_back_as_it_was(tmp_path):
    scan = Scan(generator.random((1, 5, 8)), oblique())
    mask = generator.integers(0, 3, (5, 8), dtype=np.uint8)
    for name in ("m.png", "m.nii.gz"):
        back = read_mask(write_mask_like(mask, scan, tmp_path / name))
        assert np.array_equal(back.array[0], mask)
    assert np.allclose(back.affine, scan.affine, atol=1e-5)
    with pytest.raises(ScanlearnError, match="has not the shape"):
        write_mask_like(mask.T, scan, tmp_path / "m.png")


# --- several files, limits, silence ---


def test_several_files_are_the_channels_of_one_scan_in_their_order(tmp_path):
    affine, volumes = oblique(), generator.integers(0, 99, (2, 4, 5, 6), dtype=np.int16)
    nib.save(nib.Nifti1Image(volumes[0], affine), tmp_path / "case_0000.nii.gz")
    image = sitk.GetImageFromArray(volumes[1].T)  # another format, the same place
    image.SetSpacing(np.linalg.norm(affine[:3, :3], axis=0).tolist())
    image.SetDirection(
        (np.diag([-1, -1, 1]) @ affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)).ravel().tolist()
    )
    image.SetOrigin((affine[:3, 3] * (-1, -1, 1)).tolist())
    sitk.WriteImage(image, str(tmp_path / "case_0001.mha"))
    paths = [tmp_path / "case_0001.mha", tmp_path / "case_0000.nii.gz"]
    scan = read_scan(paths)
    assert np.array_equal(scan.array, volumes[::-1]) and np.allclose(scan.affine, affine, atol=1e-4)
    assert read_header(paths) == scan.shape == (4, 5, 6)


@pytest.mark.parametrize("name", ["v.hdr", "v.img", "v.mhd", "v.nhdr", "v.mha", "v.nii"])
def test_a_scan_is_made_of_its_header_and_its_voxels(tmp_path, name):
    image = sitk.GetImageFromArray(np.zeros((3, 4, 5), np.uint8))
    sitk.WriteImage(image, str(tmp_path / name.replace(".img", ".hdr")))
    assert files_of(tmp_path / name)[0].suffix == Path(name.replace(".img", ".hdr")).suffix
    assert {path.name for path in files_of(tmp_path / name)} == {path.name for path in tmp_path.iterdir()}
    (tmp_path / name.replace(".img", ".hdr")).write_bytes(b"")
    assert files_of(tmp_path / name) == [tmp_path / name]


@pytest.mark.parametrize("change", ["shape", "place"])
def test_channels_on_another_grid_are_refused(tmp_path, change):
    affine, other = oblique(), oblique()
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 6), np.uint8), affine), tmp_path / "a.nii")
    shape = (4, 5, 7) if change == "shape" else (4, 5, 6)
    nib.save(nib.Nifti1Image(np.zeros(shape, np.uint8), affine if change == "shape" else other), tmp_path / "b.nii")
    with pytest.raises(FileError, match=r"b\.nii: is a channel .* on another grid"):
        read_scan([tmp_path / "a.nii", tmp_path / "b.nii"])


@pytest.fixture(scope="module")
def sound_files(tmp_path_factory):
    return seeds(tmp_path_factory.mktemp("sound") / "files")


def test_every_format_asks_the_limit_before_it_decodes(sound_files, monkeypatch):
    for path in sound_files:
        assert read_scan(path).shape == read_header(path)
        for reader in (read_header, read_scan, read_mask):
            if reader is read_mask and path.suffix == ".jpg":
                continue
            with pytest.raises(FileError, match="more than the limit of"):
                reader(path, limit_bytes=100)
    monkeypatch.setenv("SCANLEARN_MAX_SCAN_BYTES", "100")
    with pytest.raises(FileError, match="more than the limit of"):
        read_scan(sound_files[0])
    monkeypatch.setenv("SCANLEARN_MAX_SCAN_BYTES", "a lot")
    with pytest.raises(ScanlearnError, match="SCANLEARN_MAX_SCAN_BYTES is 'a lot'"):
        read_scan(sound_files[0])


def test_several_channels_count_together(tmp_path):
    paths = [tmp_path / name for name in ("a.nii", "b.nii", "c.nii")]
    for path in paths:
        nib.save(nib.Nifti1Image(np.zeros((10, 10, 10), np.uint8), np.eye(4)), path)
    assert read_scan(paths[:2], limit_bytes=2500).array.shape == (2, 10, 10, 10)
    with pytest.raises(FileError, match="more than the limit"):
        read_scan(paths, limit_bytes=2500)


def test_warnings_and_log_lines_of_the_readers_stay_inside(tmp_path, capfd, recwarn):
    nib.save(nib.Nifti1Image(np.zeros((3, 3, 3), np.uint8), np.eye(4)), tmp_path / "v.nii")
    whole = bytearray((tmp_path / "v.nii").read_bytes())
    whole[72:74] = b"\x63\0"  # a wrong number of bits, which nibabel repairs and logs
    whole[80:84] = np.float32(-1).tobytes()
    (tmp_path / "v.nii").write_bytes(whole)
    level = logging.getLogger("nibabel.global").level
    read_scan(tmp_path / "v.nii")
    assert capfd.readouterr() == ("", "") and not recwarn.list
    assert logging.getLogger("nibabel.global").level == level


# --- what cannot be read ---


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.png", b"", "is empty"),
        ("a.png", b"\x89PNG\r\n\x1a\nrubbish", "cannot be read"),
        ("a.txt", b"hello", "is no PNG"),
        ("a.nii.gz", gzip.compress(b"no header", mtime=0), "has no such header"),
        ("a.dcm", b"no DICOM at all", "holds no DICOM image|cannot be read"),
    ],
)
def test_a_bad_file_is_named_in_one_sentence(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    for reader in (read_scan, read_header):
        with pytest.raises(ScanlearnError, match=message) as caught:
            reader(tmp_path / name)
        assert name in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ScanlearnError, match=r"gone\.png: is not there"):
        read_scan(tmp_path / "gone.png")
