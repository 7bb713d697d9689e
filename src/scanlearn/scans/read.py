"""Reading scans: one function for every format, chosen by what the file holds, not by its name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from scanlearn.catalog.mask_cells import RunLengths, United, parsed
from scanlearn.errors import FileError, ScanlearnError
from scanlearn.scans import run_lengths
from scanlearn.scans.dicom import read_dicom_header, read_dicom_scan
from scanlearn.scans.formats.limits import byte_limit, check_size
from scanlearn.scans.formats.quiet import quiet, reason_of
from scanlearn.scans.formats.raw import head
from scanlearn.scans.formats.scan import Scan
from scanlearn.scans.geometry import same_grid, swap_first_axes, unlocated

__all__ = ["Scan", "files_of", "read_header", "read_mask", "read_scan", "write_mask_like"]

_Out = TypeVar("_Out")


def read_scan(path: str | Path | Sequence[str | Path], *, limit_bytes: int | None = None) -> Scan:
    """Read one scan from a file, an OME-Zarr folder, or the files of one DICOM series.

    Several files that are no DICOM are the channels of one scan, in this order, all on one grid. PNG and JPEG give
    one grey channel, 8 or 16 bit, turned as they are displayed; NIfTI keeps the file's voxel order, time or channels
    first; DICOM is described in ``read_dicom_scan``, every other format in its module of ``scans.formats``.

    limit_bytes: most decoded bytes, asked of the header before anything is decoded; without it the environment
    variable SCANLEARN_MAX_SCAN_BYTES, else 4 GiB. Raises FileError, whatever is wrong with the file.
    """
    paths, limit = _as_paths(path), byte_limit(limit_bytes)
    scan = _guarded(paths, lambda: _read(paths, limit))
    scan.source = str(paths[0])
    return scan


def read_header(path: str | Path | Sequence[str | Path], *, limit_bytes: int | None = None) -> tuple[int, ...]:
    """The spatial shape that ``read_scan`` would give, without reading the voxels; errors and limit as there."""
    paths, limit = _as_paths(path), byte_limit(limit_bytes)
    return _guarded(paths, lambda: _header(paths, limit))


def read_mask(path: str | Path, *, limit_bytes: int | None = None) -> Scan:
    """Read a mask: array (1, *S) uint8 of class numbers, 0 = background.

    Palette images give their indices. A 2D mask of black and white (0 and 255) becomes 0 and 1. What a cell of
    ``mask_path`` may say instead of a path (``catalog.mask_cells``) is read too.
    """
    derived = parsed(str(path))
    if derived is not None:
        return _read_derived(derived, limit_bytes)
    (path,), limit = _as_paths(path), byte_limit(limit_bytes)
    scan = _guarded([path], lambda: _read_indices(path, limit))
    array = scan.array
    if array.shape[0] != 1:
        raise FileError(path, f"has {array.shape[0]} channels; a mask holds one class number per voxel.")
    with np.errstate(invalid="ignore"):  # NaN is no class number either
        whole = array.dtype.kind in "biu" or bool((array == np.floor(array)).all())
    if not whole or array.min() < 0 or array.max() > 255:
        raise FileError(path, "holds values other than the class numbers 0 to 255, so it is no mask.")
    small = array.astype(np.uint8)
    if small.ndim == 3 and not ((small != 0) & (small != 255)).any():
        small = (small == 255).astype(np.uint8)
    return Scan(small, scan.affine, scan.modality, str(path), scan.located)


def _read_derived(cell: United | RunLengths, limit_bytes: int | None) -> Scan:
    """The mask that several files or a row of a table make."""
    if isinstance(cell, RunLengths):
        check_size(Path(cell.table), cell.shape, 1, byte_limit(limit_bytes))
        array = run_lengths.read(cell.table, cell.name, cell.shape)[None]
        return Scan(array, unlocated((1.0, 1.0)), source=cell.table, located=False)
    first, *others = (read_mask(file, limit_bytes=limit_bytes) for file in cell.files)
    for other in others:
        if other.shape != first.shape:
            raise FileError(other.source, f"is a part of a mask {first.shape}, but has {other.shape} pixels.")
        first.array = np.maximum(first.array, other.array)
    return first


def files_of(path: str | Path) -> list[Path]:
    """Every file that a scan is made of: header and voxels of a pair, all files of an OME-Zarr folder, else itself.

    The headers of two scans may be equal while their voxels differ. A pair that cannot be read counts as its one file.
    A mask that several files make (``catalog.mask_cells``) has all of them, one from a table has the table.
    """
    derived = parsed(str(path))
    if derived is not None:
        return [Path(derived.table)] if isinstance(derived, RunLengths) else [Path(file) for file in derived.files]
    path = Path(path)
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    if not path.name.lower().endswith(_APART) or not path.is_file():  # nothing waits for a pipe
        return [path]
    try:
        with quiet():
            return list(dict.fromkeys(_format(_kind(path)).files(path)))
    except Exception:  # reading the scan will say what is wrong
        return [path]


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
        _write_nifti(mask, scan, path)
    else:
        raise ScanlearnError(
            f"A mask cannot be written as {path.name}; use .nii.gz" + (" or .png." if mask.ndim == 2 else ".")
        )
    return path


def _write_nifti(mask: np.ndarray, scan: Scan, path: Path) -> None:
    """sform always; qform too where it can say the same, for the readers that look there first."""
    import nibabel as nib

    affine = scan.affine
    if mask.ndim == 2:  # NIfTI counts columns first
        mask, affine = mask.T[:, :, None], swap_first_axes(affine)
    kind: Any = nib.Nifti1Image if max(mask.shape) < 2**15 else nib.Nifti2Image
    image = kind(mask, affine)
    code = 1 if scan.located else 2  # scanner or aligned
    image.set_sform(affine, code)
    image.set_qform(affine, code)
    if not np.allclose(image.get_qform(), affine, atol=1e-3):  # a tilted gantry shears; a qform cannot
        image.header["qform_code"] = 0
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def _as_paths(path: str | Path | Sequence[str | Path]) -> list[Path]:
    paths = [Path(path)] if isinstance(path, str | Path) else [Path(p) for p in path]
    for one in paths:
        if not one.exists():
            raise FileError(one, "is not there.")
    return paths


def _guarded(paths: list[Path], action: Callable[[], _Out]) -> _Out:
    """The action's result; whatever a reader raises, warns or logs becomes one FileError or nothing."""
    try:
        with quiet():
            return action()
    except (ScanlearnError, ImportError, NameError):  # the last two are about the installation, not the file
        raise
    except Exception as error:  # the readers raise whatever they like on broken files
        raise FileError(paths[0], reason_of(error)) from error


_JPEG = b"\xff\xd8\xff"
# (offset, bytes, module of scans.formats): what the first bytes of a file tell, unzipped if they are gzip.
_MAGIC = (
    (128, b"DICM", "dicom"),
    (0, b"\x89PNG\r\n\x1a\n", "raster"),
    (0, _JPEG, "raster"),
    (0, b"BM", "raster"),
    (0, b"P5", "raster"),
    (0, b"P6", "raster"),
    (0, b"II*\0", "tiff"),
    (0, b"MM\0*", "tiff"),
    (0, b"II+\0", "tiff"),
    (0, b"MM\0+", "tiff"),
    (0, b"\x93NUMPY", "npy"),
    (344, b"n+1\0", "nifti"),
    (344, b"ni1\0", "nifti"),
    (4, b"n+2\0", "nifti"),
    (4, b"ni2\0", "nifti"),
    (0, b"NRRD", "itk"),
    (0, b"ObjectType", "itk"),
)
# Where the bytes do not tell: voxels apart from their header, MetaImage headers in another order, DICOM without its
# preamble, and files so damaged that only their name is left.
_SUFFIXES = {
    "nifti": (".nii", ".nii.gz", ".img", ".img.gz", ".hdr", ".hdr.gz", ".mgh", ".mgz"),
    "itk": (".mha", ".mhd"),
    "dicom": (".dcm", ".dicom", ".ima"),
}

# Formats that keep header and voxels in two files.
_APART = (".hdr", ".img", ".hdr.gz", ".img.gz", ".mhd", ".nhdr")


def _kind(path: Path) -> str:
    """Which reader takes a file."""
    if path.is_dir():
        return "zarr"
    start = head(path, 352)
    if not start:
        raise FileError(path, "is empty.")
    for offset, magic, kind in _MAGIC:
        if start[offset : offset + len(magic)] == magic:
            return kind
    name = path.name.lower()
    for kind, suffixes in _SUFFIXES.items():
        if name.endswith(suffixes):
            return kind
    if path.suffix and not path.suffix[1:].isdigit():  # scanners number their files
        raise FileError(
            path,
            "is no PNG, JPEG, BMP, PGM, TIFF, DICOM, NIfTI, Analyze, MGH, MetaImage, NRRD, NPY or OME-Zarr; "
            "other formats cannot be read.",
        )
    return "dicom"


def _format(kind: str) -> Any:
    return import_module(f"scanlearn.scans.formats.{kind}")


def _read(paths: list[Path], limit: int) -> Scan:
    kind = _kind(paths[0])
    if kind == "dicom":
        found = read_dicom_scan(paths, limit_bytes=limit)
        return Scan(found.array, found.affine, found.modality, located=found.located, notes=found.notes)
    first = _format(kind).read(paths[0], limit)
    left = limit - first.array.nbytes
    arrays = [first.array]
    for path in paths[1:]:
        other = _format(_kind(path)).read(path, left)
        both = first.located and other.located
        if other.shape != first.shape or (both and not same_grid(other.affine, first.affine, first.shape)):
            raise FileError(path, f"is a channel of {other.shape} voxels on another grid than the first {first.shape}.")
        arrays.append(other.array)
        left -= other.array.nbytes
    return first if len(arrays) == 1 else Scan(np.concatenate(arrays), first.affine, located=first.located)


def _header(paths: list[Path], limit: int) -> tuple[int, ...]:
    kind = _kind(paths[0])
    if kind != "dicom":
        return tuple(int(n) for n in _format(kind).header(paths[0], limit))
    shape = read_dicom_header(paths)[0]
    check_size(paths[0], shape, 1, limit)
    return shape


def _read_indices(path: Path, limit: int) -> Scan:
    """The scan, but class numbers where a palette would give them colours."""
    kind = _kind(path)
    if kind == "raster":
        if head(path, len(_JPEG)) == _JPEG:
            raise FileError(path, "is a JPEG, whose compression alters class numbers; save the mask as PNG.")
        return _format(kind).palette(path, limit) or _read([path], limit)
    return _format(kind).read(path, limit, indices=True) if kind == "tiff" else _read([path], limit)
