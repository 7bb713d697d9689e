"""A mask written like a scan lies in space where the scan does, says every reader but ours."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from PIL import Image

from scanlearn.scans.read import read_mask, read_scan, write_mask_like
from scans.made_files import affine_of, directions, write_dicom_series, write_ome_zarr

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
SHAPE = (5, 6, 7)
MARKED = [(0, 0, 0), (4, 1, 0), (2, 5, 3), (1, 0, 6)]  # no symmetry hides a swapped or flipped axis
KINDS = ["straight", "flipped", "permuted", "oblique"]


def marked_volume():
    """int16 (i, j, k) whose marked voxels are above 500, each another value."""
    volume = np.random.default_rng(0).integers(-500, 400, SHAPE, dtype=np.int16)
    for n, index in enumerate(MARKED):
        volume[index] = 501 + n
    return volume


def places(affine, voxels):
    """The world coordinates of the voxels that are not zero, by value: (value, x, y, z) sorted."""
    found = np.argwhere(voxels)
    world = found @ affine[:3, : found.shape[1]].T + affine[:3, 3]
    return np.array(sorted((float(voxels[tuple(i)]), *w) for i, w in zip(found, world, strict=True)))


def places_of_nibabel(path):
    image = nib.load(path)
    return places(image.affine, np.asanyarray(image.dataobj))


def affine_of_sitk(image):
    """Index (i, j, k) -> RAS, from SimpleITK's own point arithmetic."""
    dims = image.GetDimension()
    corner = np.array(image.TransformIndexToPhysicalPoint((0,) * dims))
    affine = np.eye(4)
    affine[:dims, 3] = corner
    for axis in range(dims):
        step = tuple(int(n == axis) for n in range(dims))
        affine[:dims, axis] = np.array(image.TransformIndexToPhysicalPoint(step)) - corner
    return LPS_TO_RAS @ affine


def places_of_sitk(path):
    image = sitk.ReadImage(str(path))
    return places(affine_of_sitk(image), sitk.GetArrayFromImage(image).T)


def mask_comes_back(tmp_path, scan, expected, readers=(places_of_nibabel, places_of_sitk)):
    """The mask of the marked voxels, written like the scan, is found at the expected places by each reader."""
    assert (scan.array[0] > 500).sum() == len(expected)
    mask = np.where(scan.array[0] > 500, scan.array[0].astype(int) - 500, 0)
    path = write_mask_like(mask, scan, tmp_path / "mask.nii.gz")
    for reader in readers:
        assert np.allclose(reader(path), expected, atol=1e-3), reader.__name__
    back = read_mask(path)
    header = nib.load(path).header
    assert header["sform_code"] == (1 if scan.located else 2) and header["qform_code"] in (0, header["sform_code"])
    assert np.array_equal(back.array[0], mask) and np.allclose(back.affine, scan.affine, atol=1e-4)


def expected_at(affine, voxels):
    return places(affine, np.where(voxels > 500, voxels.astype(int) - 500, 0))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz", "v.img", "v.mgz", "two.nii"])
def test_masks_of_nifti_and_mgh(tmp_path, name, kind):
    affine, volume = affine_of(kind), marked_volume()
    form = {"v.img": nib.Nifti1Pair, "v.mgz": nib.MGHImage, "two.nii": nib.Nifti2Image}.get(name, nib.Nifti1Image)
    nib.save(form(volume, affine), tmp_path / name)
    mask_comes_back(tmp_path, read_scan(tmp_path / name), expected_at(nib.load(tmp_path / name).affine, volume))


@pytest.mark.parametrize("kind", KINDS)
def test_masks_of_a_nifti_that_has_a_qform_alone(tmp_path, kind):
    volume, image = marked_volume(), nib.Nifti1Image(marked_volume(), None)
    image.set_qform(affine_of(kind), 1)
    image.set_sform(None, 0)
    nib.save(image, tmp_path / "v.nii")
    mask_comes_back(tmp_path, read_scan(tmp_path / "v.nii"), expected_at(nib.load(tmp_path / "v.nii").affine, volume))


def test_masks_of_a_sheared_nifti_keep_the_shear(tmp_path):
    affine, volume = affine_of("oblique"), marked_volume()
    affine[:3, 2] += 0.4 * affine[:3, 1]
    nib.save(nib.Nifti1Image(volume, affine), tmp_path / "v.nii")
    expected = expected_at(affine, volume)
    mask_comes_back(tmp_path, read_scan(tmp_path / "v.nii"), expected, [places_of_nibabel])  # ITK takes no shear
    assert nib.load(tmp_path / "mask.nii.gz").header["qform_code"] == 0  # a qform cannot say it


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["v.mha", "v.mhd", "v.nrrd", "v.nhdr"])
def test_masks_of_metaimage_and_nrrd(tmp_path, name, kind):
    image = sitk.GetImageFromArray(marked_volume().T)
    image.SetSpacing((0.5, 0.6, 2.0))
    image.SetOrigin((3.0, -7.0, 11.0))
    image.SetDirection(directions(kind).ravel().tolist())
    sitk.WriteImage(image, str(tmp_path / name))
    expected = expected_at(affine_of_sitk(sitk.ReadImage(str(tmp_path / name))), marked_volume())
    mask_comes_back(tmp_path, read_scan(tmp_path / name), expected)


def test_masks_of_a_nrrd_in_ras(tmp_path):
    volume = marked_volume()
    head = (
        "NRRD0004\ntype: short\ndimension: 3\nspace: right-anterior-superior\nsizes: 5 6 7\n"
        "space directions: (0,2,0) (-1,0,0) (0,0,3)\nendian: little\nencoding: raw\nspace origin: (4,5,6)\n\n"
    )
    (tmp_path / "v.nrrd").write_bytes(head.encode() + volume.tobytes(order="F"))
    affine = np.array([[0, -1, 0, 4], [2, 0, 0, 5], [0, 0, 3, 6], [0, 0, 0, 1]], float)
    mask_comes_back(tmp_path, read_scan(tmp_path / "v.nrrd"), expected_at(affine, volume))


@pytest.mark.parametrize("kind", ["straight", "permuted", "oblique"])
def test_masks_of_a_dicom_series(tmp_path, kind):
    turned = directions(kind)
    turned[:, 2] = np.cross(turned[:, 0], turned[:, 1])  # slices follow one another along the normal
    paths = write_dicom_series(tmp_path / "series", marked_volume(), turned, (0.5, 0.75, 2.0), np.array([3.0, -7, 11]))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "series")))
    image = reader.Execute()
    expected = expected_at(affine_of_sitk(image), sitk.GetArrayFromImage(image).T)
    mask_comes_back(tmp_path, read_scan(paths), expected)


def test_masks_of_a_tiff_stack_lie_where_simpleitk_puts_the_stack(tmp_path):
    tifffile.imwrite(tmp_path / "v.tif", marked_volume().T, photometric="minisblack")
    image = sitk.ReadImage(str(tmp_path / "v.tif"))
    expected = expected_at(affine_of_sitk(image), sitk.GetArrayFromImage(image).T)
    mask_comes_back(tmp_path, read_scan(tmp_path / "v.tif"), expected)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_masks_of_ome_zarr(tmp_path, version):
    scale, shift = (2.0, 0.5, 0.7), (9.0, 8.0, 7.0)  # of z, y, x
    write_ome_zarr(
        tmp_path / "v.zarr", marked_volume().T, "zyx", version=version, scale=scale, translation=shift, chunks=(3, 6, 4)
    )
    image = sitk.GetImageFromArray(marked_volume().T)  # as ITK reads OME-Zarr
    image.SetSpacing(scale[::-1])
    image.SetOrigin(shift[::-1])
    mask_comes_back(tmp_path, read_scan(tmp_path / "v.zarr"), expected_at(affine_of_sitk(image), marked_volume()))


# --- 2D: the plane keeps its place, rows and columns are not swapped ---


def flat_expected(affine, plane):
    return expected_at(affine, plane[:, :, None])


@pytest.mark.parametrize("kind", KINDS)
def test_masks_of_a_flat_nifti(tmp_path, kind):
    affine, plane = affine_of(kind), marked_volume()[:, :, 0]
    nib.save(nib.Nifti1Image(plane[:, :, None], affine), tmp_path / "v.nii")
    scan = read_scan(tmp_path / "v.nii")
    assert scan.shape == (6, 5)
    mask_comes_back(tmp_path, scan, flat_expected(affine, plane))


def test_masks_of_one_dicom_slice(tmp_path):
    turned, plane = directions("oblique"), marked_volume()[:, :, :1]
    turned[:, 2] = np.cross(turned[:, 0], turned[:, 1])
    (path,) = write_dicom_series(tmp_path / "one", plane, turned, (0.5, 0.75, 2.0), np.array([3.0, -7, 11]))
    scan = read_scan(path)
    assert scan.shape == (6, 5)
    affine = affine_of_sitk(sitk.ReadImage(str(path)))
    mask_comes_back(tmp_path, scan, flat_expected(affine, plane[:, :, 0]))


@pytest.mark.parametrize("name", ["v.png", "v.tif", "v.mha", "v.zarr", "v.npy"])
def test_masks_of_pictures_lie_where_simpleitk_puts_the_picture(tmp_path, name):
    picture = marked_volume()[:, :, 0].T.clip(0).astype(np.uint16)  # (row, column)
    image = sitk.GetImageFromArray(picture)
    if name == "v.zarr":
        write_ome_zarr(tmp_path / name, picture, "yx", scale=(0.5, 0.25))
        image.SetSpacing((0.25, 0.5))
    elif name == "v.npy":
        np.save(tmp_path / name, picture)
    elif name == "v.mha":
        image.SetSpacing((0.25, 0.5))
        image.SetOrigin((4.0, 5.0))
        sitk.WriteImage(image, str(tmp_path / name))
    else:
        Image.fromarray(picture).save(tmp_path / name)
        image = sitk.ReadImage(str(tmp_path / name))
        image.SetSpacing((1.0, 1.0))  # ITK believes the dots per inch
    scan = read_scan(tmp_path / name)
    assert scan.shape == (6, 5) and np.array_equal(scan.array[0], picture)
    mask_comes_back(tmp_path, scan, flat_expected(affine_of_sitk(image), picture.T))
