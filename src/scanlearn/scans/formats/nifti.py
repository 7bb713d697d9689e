"""NIfTI-1 and -2, their .hdr/.img pairs, Analyze 7.5 and MGH/MGZ: headers by nibabel, voxels from plain bytes.

nibabel's own loading reads extensions of any announced length and unpacks as much as the header wishes; here the
header is judged first. NIfTI never goes through ITK, which, asked for v.nii.gz, reads the voxels of a v.nii beside
it (InsightSoftwareConsortium/ITK#2243).
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scanlearn.errors import FileError
from scanlearn.scans.formats.limits import check_affine, check_channels, check_size
from scanlearn.scans.formats.raw import SURPLUS, check_length, head, read_array
from scanlearn.scans.formats.scan import Scan
from scanlearn.scans.geometry import swap_first_axes

LONGEST_OFFSET = 2**26  # bytes before the voxels: header and extensions
LONGEST_MAT = 2**16
LONGEST_TAGS = 2**26  # behind the voxels of MGH files: echo times, colour tables and the like
_PAIR = (".hdr", ".img", ".hdr.gz", ".img.gz")
# What begins an MGH file: version 1, big endian.
MGH = b"\0\0\0\x01"


@dataclass
class _Plan:
    """Where the voxels are and what they mean."""

    data: Path
    offset: int
    shape: tuple[int, ...]  # of the file: (i, j[, k]) and at most one axis behind
    dtype: np.dtype
    slope: float
    intercept: float
    affine: np.ndarray
    located: bool
    surplus: int = SURPLUS  # bytes that may follow the voxels

    @property
    def flat(self) -> bool:
        """Whether the file holds one plane, which is read as a 2D scan."""
        return len(self.shape) == 2 or self.shape[2] == 1


def read(path: Path, limit: int) -> Scan:
    """The scan: sform, else qform, else nibabel's base affine; slope and intercept applied; a fourth axis as channels.

    Whole numbers stay integers, else float32; RGB becomes grey.
    """
    plan = _plan(path, limit)
    stored = read_array(plan.data, plan.offset, plan.shape, plan.dtype, plan.surplus)
    array = scaled(_grey(stored), plan.slope, plan.intercept)
    channels = np.moveaxis(array, 3, 0) if array.ndim == 4 else array[None]
    if not plan.flat:
        return Scan(channels, plan.affine, located=plan.located)
    plane = channels if channels.ndim == 3 else channels[..., 0]
    # Columns come first in the file.
    return Scan(plane.swapaxes(1, 2), swap_first_axes(plan.affine), located=plan.located)


def header(path: Path, limit: int) -> tuple[int, ...]:
    """The spatial shape that ``read`` gives."""
    plan = _plan(path, limit)
    return plan.shape[1::-1] if plan.flat else plan.shape[:3]


def files(path: Path) -> list[Path]:
    """Header and voxels, one file or two."""
    data = _plan(path, sys.maxsize).data
    return [_partner(path, "hdr") if data == path and _is_voxels(path) else path, data]


def scaled(stored: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    """stored * slope + intercept: the dtype is kept for (1, 0), an integer of 16 bit or more for whole numbers, else float32."""
    if (slope, intercept) == (1.0, 0.0):
        return stored.astype(np.float64) if stored.dtype.itemsize > 8 else stored
    if stored.dtype.kind in "iu" and slope.is_integer() and intercept.is_integer():
        ends = [int(end) * int(slope) + int(intercept) for end in (stored.min(), stored.max())]
        for dtype in (np.int16, np.uint16, np.int32, np.int64):
            if np.iinfo(dtype).min <= min(ends) and max(ends) <= np.iinfo(dtype).max:
                return (stored.astype(np.int64) * int(slope) + int(intercept)).astype(dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        return (stored * np.float64(slope) + intercept).astype(np.float32)


def _plan(path: Path, limit: int) -> _Plan:
    start = head(path, 568)
    plan = _mgh_plan(path, start, limit) if start[:4] == MGH else _nifti_plan(path, start, limit)
    check_length(plan.data, plan.offset, math.prod(plan.shape) * plan.dtype.itemsize, plan.surplus, None)
    return plan


def _nifti_plan(path: Path, start: bytes, limit: int) -> _Plan:
    from nibabel.nifti1 import Nifti1Header, Nifti1PairHeader
    from nibabel.nifti2 import Nifti2Header, Nifti2PairHeader
    from nibabel.spm2analyze import Spm2AnalyzeHeader

    source, data = path, path
    if _is_voxels(path):
        source = _partner(path, "hdr")
        start = head(source, 568)
    kinds: dict[bytes, Any] = {b"n+1": Nifti1Header, b"ni1": Nifti1PairHeader}
    kind = kinds.get(start[344:347]) or {b"n+2": Nifti2Header, b"ni2": Nifti2PairHeader}.get(start[4:7])
    kind = kind or Spm2AnalyzeHeader
    if not kind.may_contain_header(start):
        raise FileError(path, "is no NIfTI, Analyze or MGH file: it has no such header.")
    if kind not in (Nifti1Header, Nifti2Header) and source == path:
        data = _partner(path, "img")
    found = kind(start[: kind.sizeof_hdr])
    offset = float(found["vox_offset"])
    if not 0 <= offset <= LONGEST_OFFSET:  # NaN is neither
        raise FileError(path, f"says that its voxels begin at byte {offset:.6g}; its header is damaged.")
    slope, intercept = found.get_slope_inter()
    slope, intercept = (1.0, 0.0) if slope is None else (float(slope), float(intercept or 0))
    shape = _shape(path, found.get_data_shape())
    dtype = _dtype(path, found.get_data_dtype(), shape, limit, (slope, intercept) != (1.0, 0.0))
    analyze = kind is Spm2AnalyzeHeader
    affine = _analyze_affine(data, found) if analyze else found.get_best_affine()
    located = _mat(data) is not None if analyze else bool(found["sform_code"] or found["qform_code"])
    affine = check_affine(path, affine, 2 if len(shape) == 2 or shape[2] == 1 else 3)
    return _Plan(data, int(offset), shape, dtype, slope, intercept, affine, located)


def _mgh_plan(path: Path, start: bytes, limit: int) -> _Plan:
    from nibabel.freesurfer.mghformat import DATA_OFFSET, MGHHeader

    if len(start) < DATA_OFFSET:
        raise FileError(path, f"is cut off after {len(start)} bytes, within its header.")
    found = MGHHeader(start[: MGHHeader._hdrdtype.itemsize])
    shape = _shape(path, [int(n) for n in found["dims"]])
    dtype = _dtype(path, found.get_data_dtype(), shape, limit, False)
    affine = check_affine(path, found.get_affine(), 2 if shape[2] == 1 else 3)
    good = int.from_bytes(start[28:30], "big") > 0
    return _Plan(path, DATA_OFFSET, shape, dtype, 1.0, 0.0, affine, good, LONGEST_TAGS)


def _shape(path: Path, announced: Any) -> tuple[int, ...]:
    """The file's shape without the axes of length 1 behind the third."""
    shape = tuple(int(n) for n in announced)
    if len(shape) < 2 or min(shape) < 1:
        raise FileError(path, f"has no voxels or but one axis: its header says {shape}.")
    shape = shape[:3] + tuple(n for n in shape[3:] if n != 1)
    if len(shape) > 4:
        raise FileError(path, f"has {len(shape)} axes {shape}; scans have two or three and channels.")
    if len(shape) == 4:
        check_channels(path, shape[3])
    return shape


def _dtype(path: Path, dtype: np.dtype, shape: tuple[int, ...], limit: int, is_scaled: bool) -> np.dtype:
    """The dtype of the stored voxels, once the bytes they take here were compared with the limit."""
    if dtype.kind == "c":
        raise FileError(path, f"holds complex numbers ({dtype.name}); save their magnitude.")
    if dtype.kind not in "iufV" or dtype.itemsize == 0:
        raise FileError(path, "holds voxels of a type that cannot be read.")
    check_size(path, shape, max(dtype.itemsize, 4 if is_scaled else 1), limit)
    return dtype


def _grey(array: np.ndarray) -> np.ndarray:
    """RGB and RGBA voxels as luminance."""
    if array.dtype.names is None:
        return array
    from PIL import Image

    colours = np.stack([array[name] for name in array.dtype.names[:3]], axis=-1)
    flat = Image.fromarray(np.ascontiguousarray(colours).reshape(array.shape[0], -1, 3))
    return np.asarray(flat.convert("L")).reshape(array.shape)


def _is_voxels(path: Path) -> bool:
    return path.name.lower().endswith((".img", ".img.gz"))


def _partner(path: Path, suffix: str) -> Path:
    """The other file of a pair, .hdr or .img."""
    ending = next((end for end in _PAIR if path.name.lower().endswith(end)), None)
    if ending is None:
        raise FileError(path, "is the header of a pair of files, but not called .hdr; the voxels cannot be found.")
    stem = path.name[: -len(ending)]
    for name in (suffix, suffix.upper(), suffix + ".gz"):
        if (found := path.with_name(f"{stem}.{name}")).is_file():
            return found
    raise FileError(path, f"lacks the .{suffix} file that belongs to it.")


def _mat(data: Path) -> Path | None:
    """SPM's file of the orientation beside an Analyze image."""
    mat = data.with_suffix("").with_suffix(".mat") if data.suffix == ".gz" else data.with_suffix(".mat")
    return mat if mat.is_file() and mat.stat().st_size <= LONGEST_MAT else None


def _analyze_affine(data: Path, found: Any) -> np.ndarray:
    import nibabel as nib

    if _mat(data) is None:
        return found.get_best_affine()
    image: Any = nib.Spm2AnalyzeImage.from_filename(data)
    return image.affine
