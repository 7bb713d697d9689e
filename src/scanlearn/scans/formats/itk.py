"""MetaImage (.mha, .mhd) and NRRD (.nrrd, .nhdr): geometry through SimpleITK, voxels from plain bytes.

ITK trusts headers: it opens whatever file they name, asks for as much memory as they wish, and gives the voxels of a
damaged MetaImage as if nothing were wrong. So ``itk_headers`` judges the header first, and the voxels are unpacked
here, where a wrong checksum counts.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np

from scanlearn.errors import FileError
from scanlearn.scans.formats.itk_headers import Announced, announced
from scanlearn.scans.formats.limits import check_affine, check_channels
from scanlearn.scans.formats.quiet import quiet_libraries
from scanlearn.scans.formats.raw import check_length, read_array
from scanlearn.scans.formats.scan import Scan
from scanlearn.scans.geometry import LPS_TO_RAS, swap_first_axes


def read(path: Path, limit: int) -> Scan:
    """The scan: direction, spacing and origin as SimpleITK reads them; components come first."""
    says = announced(path, limit)
    affine = _affine(path, says)
    array = read_array(says.data, says.offset, says.sides, says.dtype, says.surplus, packed=says.packed)
    channels = array[None] if says.components is None else np.moveaxis(array, says.components, 0)
    if not says.flat:
        return Scan(channels, affine, located=says.located)
    plane = channels.reshape(channels.shape[:3])  # (C, i, j)
    return Scan(plane.swapaxes(1, 2), swap_first_axes(affine), located=says.located)


def header(path: Path, limit: int) -> tuple[int, ...]:
    """The spatial shape that ``read`` gives."""
    says = announced(path, limit)
    _affine(path, says)
    return says.shape[1::-1] if says.flat else says.shape


def files(path: Path) -> list[Path]:
    """Header and voxels, one file or two."""
    return [path, announced(path, sys.maxsize).data]


def _affine(path: Path, says: Announced) -> np.ndarray:
    """Indices -> RAS mm, from SimpleITK, which has to see the same sizes in the header."""
    import SimpleITK as sitk

    check_length(says.data, says.offset, math.prod(says.sides) * says.dtype.itemsize, says.surplus, says.packed)
    dims = len(says.shape)
    if dims not in (2, 3):
        raise FileError(path, f"has {dims} axes {says.shape}; scans have two or three and channels.")
    channels = 1 if says.components is None else says.sides[says.components]
    check_channels(path, channels, "components")
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    reader = sitk.ImageFileReader()
    reader.SetImageIO(says.reader)
    reader.SetFileName(str(path))
    with quiet_libraries():
        reader.ReadImageInformation()
    if reader.GetSize() != says.shape or reader.GetNumberOfComponents() != channels:
        raise FileError(path, f"has a header in which SimpleITK sees other sizes than {says.sides}.")
    lps = np.eye(4)
    lps[:dims, :dims] = np.array(reader.GetDirection()).reshape(dims, dims) * reader.GetSpacing()
    lps[:dims, 3] = reader.GetOrigin()
    return check_affine(path, LPS_TO_RAS @ lps, 2 if says.flat else 3)
