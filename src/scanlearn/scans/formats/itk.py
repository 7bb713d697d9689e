"""MetaImage (.mha, .mhd) and NRRD (.nrrd, .nhdr): voxels and geometry through SimpleITK, behind ``itk_headers``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from scanlearn.errors import FileError
from scanlearn.scans.formats.itk_headers import Announced, announced
from scanlearn.scans.formats.limits import check_affine, check_channels
from scanlearn.scans.formats.quiet import quiet_libraries
from scanlearn.scans.formats.scan import Scan
from scanlearn.scans.geometry import LPS_TO_RAS, swap_first_axes


def read(path: Path, limit: int) -> Scan:
    """The scan: direction, spacing and origin as SimpleITK reads them; components come first."""
    import SimpleITK as sitk

    says = announced(path, limit)
    reader = _reader(path, says)
    with quiet_libraries():
        image = reader.Execute()
    dims, array = image.GetDimension(), sitk.GetArrayFromImage(image)  # (k, j, i[, component])
    channels = np.moveaxis(array, -1, 0) if image.GetNumberOfComponentsPerPixel() > 1 else array[None]
    lps = np.eye(4)
    lps[:dims, :dims] = np.array(image.GetDirection()).reshape(dims, dims) * image.GetSpacing()
    lps[:dims, 3] = image.GetOrigin()
    flat = dims == 2 or channels.shape[1] == 1
    affine = check_affine(path, LPS_TO_RAS @ lps, 2 if flat else 3)
    if flat:
        return Scan(
            channels.reshape(channels.shape[0], *channels.shape[-2:]), swap_first_axes(affine), located=says.located
        )
    return Scan(channels.transpose(0, 3, 2, 1), affine, located=says.located)


def header(path: Path, limit: int) -> tuple[int, ...]:
    """The spatial shape that ``read`` gives."""
    size = _reader(path, announced(path, limit)).GetSize()
    return size[1::-1] if len(size) == 2 or size[2] == 1 else size


def _reader(path: Path, says: Announced) -> Any:
    """SimpleITK's reader, which has seen the header and found the same in it."""
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    reader = sitk.ImageFileReader()
    reader.SetImageIO(says.reader)
    reader.SetFileName(str(path))
    with quiet_libraries():
        reader.ReadImageInformation()
    size, components = reader.GetSize(), reader.GetNumberOfComponents()
    if len(size) not in (2, 3):
        raise FileError(path, f"has {len(size)} axes {size}; scans have two or three and channels.")
    if math.prod(size) * components != says.count:
        raise FileError(
            path, f"announces {says.count} numbers, of which SimpleITK sees {math.prod(size) * components}."
        )
    if "complex" in sitk.GetPixelIDValueAsString(reader.GetPixelID()):
        raise FileError(path, "holds complex numbers; save their magnitude.")
    check_channels(path, components, "components")
    return reader
