"""Reading scans: one function for every format, chosen by what the file holds, not by its name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from scanlearn.errors import ScanlearnError
from scanlearn.scans.dicom import read_dicom, read_dicom_header, to_grey
from scanlearn.scans.geometry import LPS_TO_RAS, spacing_of, swap_first_axes


@dataclass
class Scan:
    """One scan in memory.

    array: (C, *S), S = (row, column) as displayed, or (i, j, k); native dtype, or rescaled values (HU int16/float32).
    spacing: mm along each axis of S. affine: 4x4, indices -> RAS+ mm. modality: as the file says, "" if it does not.
    located: False where the file does not say where in space the scan lies, so that the affine is only a convention.
    """

    array: np.ndarray
    affine: np.ndarray = field(default_factory=lambda: np.eye(4))
    modality: str = ""
    source: str = ""
    located: bool = True

    @property
    def shape(self) -> tuple[int, ...]:
        """The spatial shape S."""
        return self.array.shape[1:]

    @property
    def spacing(self) -> tuple[float, ...]:
        """mm between neighbours along each axis of S."""
        return spacing_of(self.affine, self.array.ndim - 1)


def read_scan(path: str | Path | Sequence[str | Path]) -> Scan:
    """Read one scan from a file, or from the files of one DICOM series.

    PNG and JPEG give one grey channel, 8 or 16 bit, turned as they are displayed; NIfTI keeps the file's voxel order,
    time or channels first; DICOM is described in ``read_dicom``. Raises ScanlearnError naming the file.
    """
    paths = _as_paths(path)
    try:
        scan = _READERS[_kind(paths)](paths)
    except (ScanlearnError, MemoryError):
        raise
    except Exception as error:  # the readers raise whatever they like on broken files
        raise ScanlearnError(f"{paths[0]} cannot be read ({type(error).__name__}: {error}).") from error
    scan.source = str(paths[0])
    return scan


def read_header(path: str | Path | Sequence[str | Path]) -> tuple[int, ...]:
    """The spatial shape that ``read_scan`` would give, without reading the voxels where the format allows it."""
    paths = _as_paths(path)
    try:
        return _HEADERS[_kind(paths)](paths)
    except (ScanlearnError, MemoryError):
        raise
    except Exception as error:
        raise ScanlearnError(f"{paths[0]} cannot be read ({type(error).__name__}: {error}).") from error


def read_mask(path: str | Path) -> Scan:
    """Read a mask: array (1, *S) uint8 of class numbers, 0 = background.

    Palette images give their indices. A 2D mask of black and white (0 and 255) becomes 0 and 1.
    """
    scan = _read_palette(Path(path)) or read_scan(path)
    array = scan.array
    with Path(path).open("rb") as file:
        if file.read(3) == _JPEG:
            raise ScanlearnError(f"The mask {path} is a JPEG, whose compression alters class numbers; save it as PNG.")
    if array.shape[0] != 1:
        raise ScanlearnError(f"The mask {path} has {array.shape[0]} channels; a mask holds one class number per voxel.")
    if array.size and (array.min() < 0 or array.max() > 255 or (array.dtype.kind == "f" and (array % 1).any())):
        raise ScanlearnError(f"The mask {path} holds values other than the class numbers 0 to 255.")
    small = array.astype(np.uint8)
    if small.ndim == 3 and not ((small != 0) & (small != 255)).any():
        small = (small == 255).astype(np.uint8)
    return Scan(small, scan.affine, scan.modality, str(path), scan.located)


def write_mask_like(mask: np.ndarray, scan: Scan, path: str | Path) -> Path:
    """Write a mask on the scan's own grid, so that it overlays it: NIfTI (.nii, .nii.gz), or PNG for 2D.

    mask: S of the scan, class numbers 0..255.
    """
    path, mask = Path(path), np.asarray(mask)
    if mask.shape != scan.shape:
        raise ScanlearnError(f"The mask {mask.shape} has not the shape {scan.shape} of {scan.source}.")
    mask = mask.astype(np.uint8)
    if path.suffix == ".png" and mask.ndim == 2:
        from PIL import Image

        Image.fromarray(mask).save(path)
    elif path.name.endswith((".nii", ".nii.gz")):
        import nibabel as nib

        if mask.ndim == 2:  # NIfTI counts columns first
            image = nib.Nifti1Image(mask.T[:, :, None], swap_first_axes(scan.affine))
        else:
            image = nib.Nifti1Image(mask, scan.affine)
        image.header.set_xyzt_units("mm")
        nib.save(image, path)
    else:
        raise ScanlearnError(
            f"A mask cannot be written as {path.name}; use .nii.gz" + (" or .png." if mask.ndim == 2 else ".")
        )
    return path


def _as_paths(path: str | Path | Sequence[str | Path]) -> list[Path]:
    paths = [Path(path)] if isinstance(path, str | Path) else [Path(p) for p in path]
    for one in paths:
        if not one.is_file():
            raise ScanlearnError(f"There is no file {one}.")
    return paths


_JPEG = b"\xff\xd8\xff"
# (offset, bytes, reader): what the first bytes of a file tell.
_MAGIC = (
    (128, b"DICM", "dicom"),
    (0, b"\x89PNG\r\n\x1a\n", "raster"),
    (0, _JPEG, "raster"),
    (0, b"II*\0", "raster"),
    (0, b"MM\0*", "raster"),
    (0, b"BM", "raster"),
    (344, b"n+1\0", "nifti"),
    (344, b"ni1\0", "nifti"),
    (4, b"n+2\0", "nifti"),
    (4, b"ni2\0", "nifti"),
    (0, b"NRRD", "itk"),
    (0, b"ObjectType", "itk"),
)
# Where the bytes do not tell: compressed NIfTI, MetaImage headers in another order, DICOM without its preamble.
_SUFFIXES = ((".nii.gz", "nifti"), (".mha", "itk"), (".mhd", "itk"), (".dcm", "dicom"), (".ima", "dicom"))


def _kind(paths: list[Path]) -> str:
    """Which reader takes a file."""
    with paths[0].open("rb") as file:
        head = file.read(352)
    if not head:
        raise ScanlearnError(f"{paths[0]} is empty.")
    if len(paths) > 1:
        return "dicom"
    name = paths[0].name.lower()
    found = [kind for offset, magic, kind in _MAGIC if head[offset : offset + len(magic)] == magic]
    found += [kind for suffix, kind in _SUFFIXES if name.endswith(suffix)]
    if not found and "." in name:
        raise ScanlearnError(f"{paths[0]} is no PNG, JPEG, NIfTI, MetaImage, NRRD or DICOM file.")
    return found[0] if found else "dicom"


def _read_raster(paths: list[Path]) -> Scan:
    from PIL import Image, ImageOps

    with Image.open(paths[0]) as opened:
        image = ImageOps.exif_transpose(opened)
        image.load()
    if image.mode in ("L", "F"):
        return _picture(np.array(image))
    if image.mode.startswith("I"):  # 16 bit; "I" holds it in 32
        array = np.array(image)
        return Scan((array.astype(np.uint16) if array.min() >= 0 and array.max() <= 65535 else array)[None])
    if image.mode == "1":
        return _picture(np.array(image.convert("L")))
    if image.mode in ("LA", "PA", "RGBA", "P", "La", "RGBa"):
        # What is transparent shows black.
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image.convert("RGBA"))
    return _picture(to_grey(np.array(image.convert("RGB"))))


def _picture(array: np.ndarray) -> Scan:
    """A picture (row, column): nothing is known of its size in mm, so a pixel counts as one."""
    return Scan(array[None], located=False)


def _raster_shape(paths: list[Path]) -> tuple[int, ...]:
    from PIL import Image

    with Image.open(paths[0]) as image:
        turned = image.getexif().get(0x0112, 1) >= 5
        return image.size if turned else image.size[::-1]


def _read_palette(path: Path) -> Scan | None:
    from PIL import Image

    if path.suffix.lower() != ".png" or not path.is_file():
        return None
    with Image.open(path) as image:
        return _picture(np.array(image)) if image.mode == "P" else None


def _read_nifti(paths: list[Path]) -> Scan:
    import nibabel as nib

    image: Any = nib.load(paths[0])
    array = np.asanyarray(image.dataobj)  # native dtype for slope 1 and intercept 0, else float64
    slope, intercept = image.dataobj.slope, image.dataobj.inter
    if array.dtype == np.float64 and (slope, intercept) != (1, 0):
        whole = float(slope).is_integer() and float(intercept).is_integer() and image.get_data_dtype().kind in "iu"
        array = np.rint(array).astype(np.int64) if whole else array.astype(np.float32)
    array = array.reshape(array.shape[:3] + tuple(n for n in array.shape[3:] if n != 1))
    located = any(image.header.get(code, 1) for code in ("sform_code", "qform_code"))
    if array.ndim > 4:
        raise ScanlearnError(f"{paths[0]} has {array.ndim} axes {array.shape}; scans have two or three and channels.")
    channels = np.moveaxis(array, 3, 0) if array.ndim == 4 else array[None]
    if channels.ndim == 4 and channels.shape[3] == 1:
        channels = channels[..., 0]
    if channels.ndim == 3:  # a 2D image: columns come first in the file
        return Scan(channels.swapaxes(1, 2), swap_first_axes(image.affine), located=located)
    return Scan(channels, image.affine, located=located)


def _nifti_shape(paths: list[Path]) -> tuple[int, ...]:
    import nibabel as nib

    image: Any = nib.load(paths[0])
    shape = image.shape[:3]
    return shape[1::-1] if len(shape) == 2 or shape[2] == 1 else shape


def _read_itk(paths: list[Path]) -> Scan:
    import SimpleITK as sitk

    image = sitk.ReadImage(str(paths[0]))
    dims = image.GetDimension()
    if dims not in (2, 3):
        raise ScanlearnError(f"{paths[0]} has {dims} axes; scans have two or three and channels.")
    array = sitk.GetArrayFromImage(image)  # (k, j, i[, channel])
    channels = np.moveaxis(array, -1, 0) if image.GetNumberOfComponentsPerPixel() > 1 else array[None]
    lps = np.eye(4)
    lps[:dims, :dims] = np.array(image.GetDirection()).reshape(dims, dims) * image.GetSpacing()
    lps[:dims, 3] = image.GetOrigin()
    affine = LPS_TO_RAS @ lps
    if dims == 2:
        return Scan(channels, swap_first_axes(affine))
    if channels.shape[1] == 1:
        return Scan(channels[:, 0], swap_first_axes(affine))
    return Scan(channels.transpose(0, 3, 2, 1), affine)


def _itk_shape(paths: list[Path]) -> tuple[int, ...]:
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(paths[0]))
    reader.ReadImageInformation()
    size = reader.GetSize()
    return size[1::-1] if len(size) == 2 or size[2] == 1 else size


def _read_dicom(paths: list[Path]) -> Scan:
    return Scan(*read_dicom(paths))


_READERS = {"raster": _read_raster, "nifti": _read_nifti, "itk": _read_itk, "dicom": _read_dicom}
_HEADERS = {
    "raster": _raster_shape,
    "nifti": _nifti_shape,
    "itk": _itk_shape,
    "dicom": lambda paths: read_dicom_header(paths)[0],
}
