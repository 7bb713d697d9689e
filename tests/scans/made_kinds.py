"""Small data sets of every kind that ``prepare`` takes: scans with a bright block, masks that outline it, and both as
a library says that scanlearn does not use to place them (nibabel, SimpleITK, pydicom's tags, or the writer)."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import SimpleITK as sitk

from scans.dicoms import dicom, save, series
from scans.made_files import affine_of, write_ome_zarr
from scans.made_scans import smooth

SHAPE = (17, 14, 12)
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
FRAMES = ("straight", "flipped", "permuted", "oblique")


@dataclass
class Truth:
    """One scan as another library reads it: voxels (C, i, j, k), class numbers (i, j, k), indices -> RAS mm."""

    voxels: np.ndarray
    mask: np.ndarray
    affine: np.ndarray


@dataclass
class Made:
    """A data set: what to give to ``prepare``, and the truth by scan id."""

    source: Path
    truths: dict[str, Truth] = field(default_factory=dict)
    located: bool = True


def block(number, shape=SHAPE):
    """(voxels, mask): structure of 0 to 600 with a block of 1500, whose halves are the classes 1 and 2."""
    voxels = smooth(shape, number, 600).astype(np.int16)
    mask = np.zeros(shape, np.uint8)
    mask[3 + number : 9 + number, 4:10, 2:8] = 1
    mask[3 + number : 9 + number, 4:7, 2:8] = 2
    voxels[mask > 0] = 1500 - voxels[mask > 0] // 10
    return voxels, mask


def write_nifti(array, affine, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)


def by_nibabel(image, *others):
    first = nib.load(image)
    return np.stack([np.asanyarray(nib.load(path).dataobj) for path in (image, *others)]), first.affine


def write_itk(array, affine, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    lps = LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    sitk.WriteImage(image, str(path))


def by_itk(path):
    image = sitk.ReadImage(str(path))
    lps = np.eye(4)
    lps[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    lps[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).T[None], LPS @ lps


def nnunet(root):
    made = Made(root)
    for n in range(3):
        voxels, mask = block(n)
        affine = affine_of(FRAMES[n + 1])
        channels = [root / f"imagesTr/case{n}_{c:04d}.nii.gz" for c in range(2)]
        write_nifti(voxels, affine, channels[0])
        write_nifti(1500 - voxels, affine, channels[1])
        write_nifti(mask, affine, root / f"labelsTr/case{n}.nii.gz")
        found, where = by_nibabel(*channels)
        made.truths[f"imagesTr_case{n}"] = Truth(found, mask, where)
    facts = {"channel_names": {"0": "T1", "1": "T2"}, "labels": {"background": 0, "Anterior": 1, "Posterior": 2}}
    (root / "dataset.json").write_text(json.dumps({**facts, "numTraining": 3, "file_ending": ".nii.gz"}))
    return made


def decathlon(root):
    made = Made(root)
    entries = []
    for n in range(3):
        voxels, mask = block(n)
        affine = affine_of(FRAMES[n])
        write_nifti(voxels, affine, root / f"imagesTr/hip_{n}.nii.gz")
        write_nifti(mask, affine, root / f"labelsTr/hip_{n}.nii.gz")
        entries.append({"image": f"./imagesTr/hip_{n}.nii.gz", "label": f"./labelsTr/hip_{n}.nii.gz"})
        found, where = by_nibabel(root / f"imagesTr/hip_{n}.nii.gz")
        made.truths[f"imagesTr_hip_{n}"] = Truth(found, mask, where)
    labels = {"0": "background", "1": "Anterior", "2": "Posterior"}
    facts = {"modality": {"0": "MRI"}, "labels": labels, "numTraining": 3, "numTest": 0, "test": []}
    (root / "dataset.json").write_text(json.dumps({**facts, "training": entries}))
    return made


def bids(root):
    made = Made(root)
    for n in range(3):
        voxels, mask = block(n)
        affine = affine_of(FRAMES[n + 1])
        image = root / f"sub-{n}/anat/sub-{n}_T1w.nii.gz"
        write_nifti(voxels, affine, image)
        write_nifti(mask, affine, root / f"derivatives/hand/sub-{n}/anat/sub-{n}_desc-lesion_mask.nii.gz")
        found, where = by_nibabel(image)
        made.truths[f"sub-{n}_anat_sub-{n}_T1w"] = Truth(found, mask, where)
    (root / "participants.tsv").write_text("participant_id\tsick\nsub-0\tyes\nsub-1\tno\nsub-2\tno\n")
    return made


def mixed_dicom(root):
    """Three patients in a tree with reports, screenshots and rubbish; the second was taken with a tilted gantry.

    The masks are NIfTI with one axis turned round, as converters write them.
    """
    made = Made(root)
    for n, (lean, cosines) in enumerate(
        ((0.0, (1, 0, 0, 0, 1, 0)), (0.5, (1, 0, 0, 0, 1, 0)), (0.0, (0, 1, 0, 0, 0, -1)))
    ):
        voxels, mask = block(n)
        folder = root / f"p{n}/series"
        step = np.cross(cosines[:3], cosines[3:]) * 2.5 + np.array(cosines[3:]) * lean
        positions = [(-30.0, 20.0, 5.0) + step * k for k in range(SHAPE[2])]
        order = np.random.default_rng(n).permutation(SHAPE[2])
        paths = series(folder, voxels.transpose(2, 1, 0), positions, cosines, order, PatientID=f"P{n}")
        by_place = sorted((pydicom.dcmread(path) for path in paths), key=lambda data: -data.InstanceNumber)
        lps = np.eye(4)
        rows, columns = by_place[0].PixelSpacing
        lps[:3, 0], lps[:3, 1] = np.array(cosines[:3]) * columns, np.array(cosines[3:]) * rows
        first, last = (np.array(by_place[k].ImagePositionPatient, float) for k in (0, -1))
        lps[:3, 2], lps[:3, 3] = (last - first) / (SHAPE[2] - 1), first
        affine = LPS @ lps
        turned = affine.copy()
        turned[:3, 1], turned[:3, 3] = -affine[:3, 1], affine[:3, 3] + affine[:3, 1] * (SHAPE[1] - 1)
        write_nifti(mask[:, ::-1], turned, folder / "seg.nii.gz")
        found = np.stack([data.pixel_array.T for data in by_place], axis=2)
        made.truths[f"p{n}_series"] = Truth(found[None], mask, affine)
    flat = np.arange(54, dtype=np.uint16).reshape(6, 9)
    save(dicom(flat, Modality="SR", PatientID="P0"), root / "p0/report.dcm")
    save(dicom(flat, Modality="SEG", PatientID="P0"), root / "p0/series_seg.dcm")
    save(dicom(flat, ImageType=["DERIVED", "SECONDARY", "SCREENSAVE"], PatientID="P1"), root / "p1/dose.dcm")
    save(dicom(flat, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], PatientID="P2"), root / "p2/scout")
    (root / "p2/AUTORUN.INF").write_text("[autorun]")
    (root / "p2/viewer.exe").write_bytes(b"MZ")
    (root / "p2/cut_off.dcm").write_bytes((root / "p0/report.dcm").read_bytes()[:200])
    return made


def ome_zarr(root):
    made = Made(root)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for n, version in enumerate(("0.4", "0.5", "0.5")):
        voxels, mask = block(n)
        where = {"scale": [3.0, 1.2, 0.8], "translation": [12.0, -40.0, 90.0 + n]}
        write_ome_zarr(root / f"images/z{n}.zarr", voxels.T.copy(), "zyx", version=version, **where)
        write_ome_zarr(root / f"masks/z{n}.zarr", mask.T.copy(), "zyx", version=version, **where)
        lps = np.diag([0.8, 1.2, 3.0, 1.0])
        lps[:3, 3] = 90.0 + n, -40.0, 12.0
        made.truths[f"images_z{n}"] = Truth(voxels[None], mask, LPS @ lps)
    return made


def tiff_stacks(root):
    import tifffile

    made = Made(root, located=False)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    told = {"imagej": True, "resolution": (1 / 0.8, 1 / 1.2), "metadata": {"spacing": 3.0, "unit": "mm", "axes": "ZYX"}}
    for n in range(3):
        voxels, mask = block(n)
        for folder, array in (("images", voxels.astype(np.uint16)), ("masks", mask)):
            tifffile.imwrite(root / f"{folder}/t{n}.tif", np.ascontiguousarray(array.T), **told)
        found = tifffile.imread(root / f"images/t{n}.tif").T
        made.truths[f"images_t{n}"] = Truth(found[None], mask, np.diag([0.8, 1.2, 3.0, 1.0]))
    return made


def itk_files(root):
    made = Made(root)
    endings = (("mha", "mha"), ("mhd", "mhd"), ("nrrd", "nii.gz"), ("nhdr", "nrrd"))
    for n, (of_image, of_mask) in enumerate(endings):
        voxels, mask = block(n)
        affine = affine_of(FRAMES[n])
        write_itk(voxels, affine, root / f"images/m{n}.{of_image}")
        (write_nifti if of_mask == "nii.gz" else write_itk)(mask, affine, root / f"masks/m{n}.{of_mask}")
        found, where = by_itk(root / f"images/m{n}.{of_image}")
        made.truths[f"images_m{n}"] = Truth(found, mask, where)
    return made


KINDS = {f.__name__: f for f in (nnunet, decathlon, bids, mixed_dicom, ome_zarr, tiff_stacks, itk_files)}
