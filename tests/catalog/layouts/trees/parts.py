"""What the generated data sets are made of: small volumes, DICOM files, tables, and taking things away."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np


def remove(root: Path, names: Sequence[str]) -> None:
    """Take files and folders below the root away."""
    for name in names:
        path = root / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def write_lines(path: Path, lines: Sequence[str]) -> None:
    """A text file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def ct(number: int, shape: Sequence[int] = (12, 10, 6)) -> np.ndarray:
    """int16 HU of noise: air around, tissue within, each number another."""
    noise = np.random.default_rng(number).integers(-30, 30, shape)
    inside = np.zeros(shape, bool)
    inside[2:-2, 2:-2] = True
    return np.where(inside, 40 + noise, -1000 + noise).astype(np.int16)


def write_nifti(path: Path, array: np.ndarray, affine: Sequence[float] | None = (-0.7, -0.7, 2.0)) -> None:
    """A NIfTI file with these signed voxel sizes in mm; None: an identity that says nothing."""
    import nibabel as nib

    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([*(affine or (1.0, 1.0, 1.0)), 1.0])), path)


def write_meta(path: Path, array: np.ndarray, spacing: Sequence[float] = (0.7, 0.7, 1.25)) -> None:
    """A MetaImage header (.mhd) and its voxels (.raw); array in z, y, x."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = {"int16": "MET_SHORT", "uint8": "MET_UCHAR"}[array.dtype.name]
    lines = ["ObjectType = Image", "NDims = 3", "BinaryData = True", "BinaryDataByteOrderMSB = False"]
    lines += [
        "TransformMatrix = 1 0 0 0 1 0 0 0 1",
        "Offset = -100 -90 -80",
        f"DimSize = {' '.join(map(str, array.shape[::-1]))}",
    ]
    lines += [f"ElementSpacing = {' '.join(map(str, spacing))}", f"ElementType = {kind}"]
    write_lines(path, [*lines, f"ElementDataFile = {path.stem}.raw"])
    path.with_suffix(".raw").write_bytes(array.tobytes())


def write_dicom(path: Path, pixels: np.ndarray, **tags: object) -> None:
    """One DICOM file of 8 or 16 bit; tags by keyword."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = tags.get("SOPClassUID", "1.2.840.10008.5.1.4.1.1.7")
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(path)])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    bits = pixels.dtype.itemsize * 8
    said = {
        "SOPClassUID": meta.MediaStorageSOPClassUID,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        **{"Rows": pixels.shape[0], "Columns": pixels.shape[1], "SamplesPerPixel": 1, "BitsAllocated": bits},
        **{"BitsStored": bits, "HighBit": bits - 1, "PixelRepresentation": int(pixels.dtype.kind == "i")},
        "PhotometricInterpretation": "MONOCHROME2",
        **tags,
    }
    for keyword, value in said.items():
        setattr(file, keyword, value)
    file.PixelData = pixels.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    file.save_as(path, enforce_file_format=True)
