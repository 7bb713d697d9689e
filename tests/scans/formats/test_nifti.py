import gzip
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from scanlearn.errors import FileError, ScanlearnError
from scanlearn.scans.read import read_header, read_scan
from scans.made_files import affine_of

BUNDLED = Path(nib.__file__).parent / "tests" / "data"
generator = np.random.default_rng(0)
VOLUME = generator.integers(-1000, 2000, (5, 6, 7), dtype=np.int16)


def saved(path, array=VOLUME, *, image=nib.Nifti1Image, **header):
    """The file of an array, fields of its header set afterwards, whatever nibabel thinks of them."""
    made = image(array, affine_of("oblique"))
    nib.save(made, path)
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as file:
        data = bytearray(file.read())
    fields = np.ndarray((), made.header.template_dtype, data)
    for name, value in header.items():
        index, field = name.partition("__")[::2]
        if field:
            fields[index][int(field)] = value
        else:
            fields[name] = value
    with opener(path, "wb") as file:
        file.write(data)
    return path


def refused(path, **options):
    """The reason for which both the header and the scan are refused, as it does not depend on the place."""
    reasons = []
    for reader in (read_header, read_scan):
        with pytest.raises(FileError) as caught:
            reader(path, **options)
        assert caught.value.path == str(path) and str(path.parent) not in caught.value.reason
        reasons.append(caught.value.reason)
    return reasons[1]


@pytest.mark.parametrize("name", ["v.hdr", "v.img"])
@pytest.mark.parametrize("image", [nib.Nifti1Pair, nib.Nifti2Pair])
def test_both_files_of_a_pair_lead_to_the_scan(tmp_path, name, image):
    nib.save(image(VOLUME, affine_of("oblique")), tmp_path / "v.img")
    scan = read_scan(tmp_path / name)
    assert np.array_equal(scan.array[0], VOLUME) and scan.located
    assert np.allclose(scan.affine, nib.load(tmp_path / "v.img").affine)
    assert read_header(tmp_path / name) == (5, 6, 7)


def test_half_a_pair_is_named(tmp_path):
    nib.save(nib.Nifti1Pair(VOLUME, np.eye(4)), tmp_path / "v.img")
    (tmp_path / "v.img").unlink()
    assert refused(tmp_path / "v.hdr") == "lacks the .img file that belongs to it."


@pytest.mark.parametrize("with_mat", [True, False])
def test_analyze_lies_where_nibabel_puts_it(tmp_path, with_mat):
    nib.save(nib.Spm2AnalyzeImage(VOLUME, affine_of("flipped")), tmp_path / "v.img")
    if not with_mat:
        (tmp_path / "v.mat").unlink()
    scan = read_scan(tmp_path / "v.img")
    assert np.array_equal(scan.array[0], VOLUME) and scan.located == with_mat
    assert np.allclose(scan.affine, nib.load(tmp_path / "v.img").affine)


def test_numbers_of_other_machines_become_those_of_this_one(tmp_path):
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    nib.save(nib.Nifti1Image(VOLUME, np.eye(4), header), tmp_path / "v.nii")
    array = read_scan(tmp_path / "v.nii").array
    assert array.dtype == np.int16 and array.dtype.isnative and np.array_equal(array[0], VOLUME)


def test_a_gzip_file_without_its_suffix_is_read(tmp_path):
    (tmp_path / "v.nii").write_bytes(saved(tmp_path / "v.nii.gz").read_bytes())
    assert np.array_equal(read_scan(tmp_path / "v.nii").array[0], VOLUME)


def test_colour_becomes_luminance(tmp_path):
    colours = generator.integers(0, 256, (4, 5, 6, 3)).astype(np.uint8)
    packed = colours.view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    nib.save(nib.Nifti1Image(packed, np.eye(4)), tmp_path / "v.nii")
    expected = colours @ np.array([0.299, 0.587, 0.114])
    assert np.abs(read_scan(tmp_path / "v.nii").array[0] - expected).max() <= 0.51


def test_complex_numbers_are_refused_by_name(tmp_path):
    nib.save(nib.Nifti1Image(VOLUME.astype(np.complex64), np.eye(4)), tmp_path / "v.nii")
    assert "complex numbers (complex64)" in refused(tmp_path / "v.nii")


def test_up_to_eight_volumes_are_channels_and_more_are_a_time_series(tmp_path):
    for count in (8, 200):
        nib.save(nib.Nifti1Image(np.zeros((3, 3, 3, count), np.uint8), np.eye(4)), tmp_path / f"{count}.nii")
    assert read_scan(tmp_path / "8.nii").array.shape == (8, 3, 3, 3)
    assert "has 200 volumes (a time series?)" in refused(tmp_path / "200.nii")


def test_nan_is_kept_for_the_one_who_asks(tmp_path):
    volume = np.full((3, 3, 3), np.nan, np.float32)
    nib.save(nib.Nifti1Image(volume, np.eye(4)), tmp_path / "v.nii")
    assert np.isnan(read_scan(tmp_path / "v.nii").array).all()


def test_scaled_numbers_take_the_integer_that_holds_them(tmp_path):
    for slope, dtype in ((1, np.int16), (1000, np.int32)):
        made = nib.Nifti1Image(VOLUME, np.eye(4))
        made.header.set_slope_inter(slope, -24)
        nib.save(made, tmp_path / "v.nii")
        array = read_scan(tmp_path / "v.nii").array
        assert array.dtype == dtype and np.array_equal(array[0], VOLUME.astype(int) * slope - 24)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"dim__1": -5}, "has no voxels"),
        ({"dim__2": 0}, "has no voxels"),
        ({"dim": [7] + [32767] * 7}, "has 7 axes"),
        ({"dim": [3, 32767, 32767, 32767, 1, 1, 1, 1]}, "GiB of voxels, more than the limit"),
        ({"dim__1": 500}, "is cut off or its header wrong|is cut off: it holds"),
        ({"vox_offset": np.nan}, "begin at byte nan"),
        ({"vox_offset": 1e30}, "begin at byte 1e.30"),
        ({"vox_offset": -5}, "begin at byte -5|HeaderDataError"),
        ({"srow_x__0": np.nan}, "NaN or infinity"),
        ({"srow_x": 0}, "singular affine"),
        ({"srow_y__1": 1e30, "srow_y__0": 1e30}, "singular affine"),
        ({"datatype": 1}, "HeaderDataError|type that cannot be read"),
        ({"scl_inter": np.inf}, "HeaderDataError"),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path, suffix, header, reason):
    path = saved(tmp_path / f"v{suffix}", **{"scl_slope": 1, "scl_inter": 0, **header})
    with pytest.raises(FileError, match=reason):
        read_scan(path)


def test_a_flat_scan_needs_no_third_direction(tmp_path):
    path = saved(tmp_path / "v.nii", VOLUME[:, :, :1], srow_x__2=0, srow_y__2=0, srow_z__2=0)
    scan = read_scan(path)
    first, second, third = scan.affine[:3, :3].T
    assert np.allclose(scan.spacing, (1.2, 0.8))
    assert np.allclose(third, np.cross(second, first) / (0.8 * 1.2))  # the file counts columns first


def test_voxels_that_are_missing_or_left_over_are_noticed(tmp_path):
    path = saved(tmp_path / "v.nii")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(FileError, match="is cut off"):
        read_scan(path)
    path.write_bytes(whole + bytes(100))  # padding
    assert np.array_equal(read_scan(path).array[0], VOLUME)
    path.write_bytes(whole + bytes(5000))
    with pytest.raises(FileError, match="holds more than the 420 bytes of voxels"):
        read_scan(path)


def test_of_a_gzip_bomb_no_more_than_announced_is_unpacked(tmp_path):
    path = saved(tmp_path / "v.nii.gz")
    with gzip.open(path, "rb") as file:
        whole = file.read()
    path.write_bytes(gzip.compress(whole + bytes(2**28)))
    tracemalloc.start()
    with pytest.raises(FileError, match="holds more than"):
        read_scan(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24


@pytest.mark.parametrize("image", [nib.Nifti1Image, nib.MGHImage])
def test_gzip_data_with_a_wrong_checksum_are_refused(tmp_path, image):
    path = tmp_path / ("v.nii.gz" if image is nib.Nifti1Image else "v.mgz")
    nib.save(image(VOLUME, np.eye(4)), path)
    damaged = bytearray(path.read_bytes())
    damaged[-6] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(FileError, match="compressed data do not unpack"):
        read_scan(path)


def test_an_mgh_file_that_lies_is_refused(tmp_path):
    nib.save(nib.MGHImage(VOLUME, affine_of("oblique")), tmp_path / "v.mgh")
    whole = (tmp_path / "v.mgh").read_bytes()
    (tmp_path / "v.mgh").write_bytes(whole[:300])
    with pytest.raises(FileError, match="is cut off"):
        read_scan(tmp_path / "v.mgh")
    (tmp_path / "v.mgh").write_bytes(whole[:4] + b"\x7f\xff\xff\xff" * 3 + whole[16:])
    assert "more than the limit" in refused(tmp_path / "v.mgh")


@pytest.mark.parametrize("path", sorted(BUNDLED.glob("*.*")), ids=lambda path: path.name)
def test_every_file_that_comes_with_nibabel_is_read_as_by_nibabel_or_named(path):
    try:
        scan = read_scan(path)
    except ScanlearnError as error:
        assert str(error)
        return
    assert path.name.endswith((".nii", ".nii.gz", ".mgz", ".dcm"))
    if path.suffix == ".dcm":
        return
    image = nib.load(path)
    voxels = np.asanyarray(image.dataobj)
    voxels = np.moveaxis(voxels, 3, 0) if voxels.ndim == 4 else voxels[None]
    assert np.array_equal(scan.array, voxels, equal_nan=True) and np.allclose(scan.affine, image.affine)
    assert read_header(path) == scan.shape
