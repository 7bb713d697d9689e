"""TIFF: pictures and stacks of 8 to 64 bit, ImageJ and OME included, described by tifffile.

tifffile unpacks what needs no further package (none, deflate, LZMA); Pillow what its libtiff knows (LZW, JPEG, fax);
for anything else the error names imagecodecs, which is used when it is installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from scanlearn.errors import FileError
from scanlearn.scans.formats.limits import check_channels, check_size
from scanlearn.scans.formats.quiet import quiet_libraries
from scanlearn.scans.formats.raw import native
from scanlearn.scans.formats.scan import Scan
from scanlearn.scans.formats.units import millimetres
from scanlearn.scans.geometry import unlocated

_BY_TIFFFILE = (1, 8, 32946, 34925)  # none, deflate twice, LZMA
_BY_PILLOW = (2, 3, 4, 5, 6, 7, 32773, 50000, 50001)  # fax, LZW, JPEG, PackBits, ZSTD, WebP
# Kinds of TIFF whose meaning is kept; the others, some of which lead to further files, count as plain pages.
_KINDS = ("ome", "imagej", "shaped", "uniform", "multipage", "frame")
MOST_PAGES = 100_000
# How each EXIF orientation is brought upright: axes swapped or not, then flipped.
_TURNS: dict[int, tuple[bool, tuple[int, ...]]] = {
    2: (False, (-1,)), 3: (False, (-2, -1)), 4: (False, (-2,)),
    5: (True, ()), 6: (True, (-1,)), 7: (True, (-2, -1)), 8: (True, (-2,)),
}  # fmt: skip


@dataclass
class _Layout:
    """What the first series of the file holds, its axes of length 1 gone."""

    series: Any
    page: Any  # the first, which speaks for all
    axes: str  # of the series, "" for none: "YX", "IYX", "YXS", ...
    shape: tuple[int, ...]
    spacing: tuple[float, float, float]  # mm along column, row and slice

    @property
    def colour(self) -> bool:
        """Whether the samples are red, green and blue."""
        return self.photometric in ("RGB", "YCBCR")

    @property
    def photometric(self) -> str:
        """What a sample of 0 looks like, "" where the tag has an unknown value."""
        return getattr(self.page.photometric, "name", "")

    @property
    def depth(self) -> str:
        """The axis along which the slices follow one another, "" for a picture."""
        return "".join(a for a in self.axes if a not in "YXCS")

    @property
    def orientation(self) -> int:
        """1 to 8, as in EXIF."""
        tag = self.page.tags.get("Orientation")
        return int(tag.value) if tag is not None else 1


def read(path: Path, limit: int, *, indices: bool = False) -> Scan:
    """A picture (row, column), or a stack of pages as a volume (i = column, j = row, k = page).

    Samples and channels, up to eight, come first; RGB becomes grey; a palette gives grey, or its ``indices``. More is
    brighter, also where the file says that zero is white. Millimetres come from ImageJ or OME, else a voxel is 1 mm.
    """
    with _opened(path) as tif:
        layout = _layout(path, tif, limit)
        array, inverted = _pixels(path, layout)
        # (C, slice or not, row, column)
        array = _ordered(array, layout)
        if layout.photometric == "PALETTE" and not indices:
            array = _coloured(array, layout.page)
        elif layout.colour and array.shape[0] in (3, 4):
            array = _luminance(array)
        elif layout.photometric == "MINISWHITE" and not inverted:
            array = _inverted(array, layout.page.bitspersample)
        array = _turned(array, layout.orientation)
        spacing = _turned_spacing(layout)
    if array.ndim == 3:
        return Scan(array, unlocated(spacing[1::-1]), located=False)
    return Scan(array.transpose(0, 3, 2, 1), unlocated(spacing), located=False)


def header(path: Path, limit: int) -> tuple[int, ...]:
    """The spatial shape."""
    with _opened(path) as tif:
        layout = _layout(path, tif, limit)
        sizes = dict(zip(layout.axes, layout.shape, strict=True))
        plane = (sizes["X"], sizes["Y"]) if layout.orientation in (5, 6, 7, 8) else (sizes["Y"], sizes["X"])
        return (plane[1], plane[0], sizes[layout.depth]) if layout.depth else plane


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    import tifffile

    other: dict[str, Any] = {f"is_{name}": False for name in tifffile.TIFF.FILE_FLAGS if name not in _KINDS}
    # OME may name further files, anywhere: _multifile=False keeps to this one.
    with tifffile.TiffFile(path, _multifile=False, **other) as tif:
        if len(tif.pages) > MOST_PAGES:
            raise FileError(path, f"has more than {MOST_PAGES} pages.")
        yield tif


def _layout(path: Path, tif: Any, limit: int) -> _Layout:
    if not tif.pages or not tif.series:
        raise FileError(path, "has no page that could be read.")
    series = tif.series[0]
    page = series.keyframe
    if page is None or page.dtype is None or series.dtype is None or series.dtype.kind not in "biuf":
        raise FileError(path, "holds pixels of a type that cannot be read.")
    if len(tif.series) > 1:
        raise FileError(path, f"holds {len(tif.series)} pictures of different sizes; save each as its own file.")
    check_size(path, series.shape, series.dtype.itemsize, limit)
    kept = [(a, int(n)) for a, n in zip(series.axes, series.shape, strict=True) if n != 1 or a in "YX"]
    axes = "".join(a for a, _ in kept)
    layout = _Layout(series, page, axes, tuple(n for _, n in kept), _spacing(path, tif, page))
    if "T" in axes:
        raise FileError(path, f"has {layout.shape[axes.index('T')]} time points; save each as its own file.")
    if axes.count("Y") != 1 or axes.count("X") != 1 or len(layout.depth) > 1 or ("C" in axes and "S" in axes):
        raise FileError(path, f"has {len(axes)} axes {layout.shape}; scans have two or three and channels.")
    for axis in "CS":
        if axis in axes:
            check_channels(path, layout.shape[axes.index(axis)], "channels")
    _check_segments(path, series)
    return layout


def _check_segments(path: Path, series: Any) -> None:
    """Every strip and tile lies within the file; a missing one would silently become zeros."""
    size = path.stat().st_size
    for page in series.pages:
        if page is None:
            raise FileError(path, "lacks a page that it announces.")
        spans = list(zip(page.dataoffsets, page.databytecounts, strict=False))
        sound = all(at > 0 and count > 0 and at + count <= size for at, count in spans)
        if not spans or len(page.dataoffsets) != len(page.databytecounts) or not sound:
            raise FileError(path, f"is cut off or damaged: some of its pixels do not lie within its {size} bytes.")


def _pixels(path: Path, layout: _Layout) -> tuple[np.ndarray, bool]:
    """(the series as an array, whether white-is-zero was already inverted)."""
    code, bits = int(layout.page.compression), layout.page.bitspersample
    by_tifffile = code in _BY_TIFFFILE and bits in (8, 16, 32, 64)
    if by_tifffile or find_spec("imagecodecs"):
        return native(layout.series.asarray(maxworkers=1).reshape(layout.shape)), False
    if code in (*_BY_PILLOW, *_BY_TIFFFILE):
        return _by_pillow(path, layout), bits <= 8
    raise _needs_imagecodecs(path, layout)


def _by_pillow(path: Path, layout: _Layout) -> np.ndarray:
    from PIL import Image

    planes = []
    with quiet_libraries(), Image.open(path, formats=("TIFF",)) as image:
        for page in layout.series.pages:
            image.seek(page.index)
            image.load()
            plane = np.array(image.convert("RGB") if layout.colour and image.mode == "YCbCr" else image)
            if plane.dtype != bool and plane.dtype.itemsize < layout.page.dtype.itemsize:  # Pillow drops the low bits
                raise _needs_imagecodecs(path, layout)
            planes.append(_upright_undone(plane, layout.orientation))
    dtype = np.uint8 if planes[0].dtype == bool else layout.page.dtype
    whole = np.stack([plane.astype(dtype) for plane in planes])
    if whole.size != np.prod(layout.shape):
        raise _needs_imagecodecs(path, layout)
    return whole.reshape(layout.shape)


def _needs_imagecodecs(path: Path, layout: _Layout) -> FileError:
    name = getattr(layout.page.compression, "name", "something unknown")
    return FileError(path, f"is compressed as {name.lower()} in a way that needs the package imagecodecs; install it.")


def _upright_undone(plane: np.ndarray, orientation: int) -> np.ndarray:
    """Pillow turns pages upright on loading; back to the order of the file, as tifffile gives them."""
    swapped, flipped = _TURNS.get(orientation, (False, ()))
    plane = np.flip(plane, tuple(axis + 2 for axis in flipped))
    return plane.swapaxes(0, 1) if swapped else plane


def _ordered(array: np.ndarray, layout: _Layout) -> np.ndarray:
    """(C, [slice,] row, column)."""
    channel = next((a for a in layout.axes if a in "CS"), "")
    order = channel + layout.depth + "YX"
    array = array.transpose([layout.axes.index(a) for a in order])
    return array if channel else array[None]


def _coloured(array: np.ndarray, page: Any) -> np.ndarray:
    from PIL import Image

    table = (np.asarray(page.colormap) >> 8).astype(np.uint8).T  # (2**bits, 3), of 16 bit
    shades = np.asarray(Image.fromarray(table[None]).convert("L"))[0]
    return shades[array]


def _luminance(array: np.ndarray) -> np.ndarray:
    """(1, ...) of (3 or 4, ...): ITU-R 601, the integer formula of Pillow, plane by plane to save memory."""
    red, green, blue = array[:3]
    if array.dtype.kind == "f":
        return (0.299 * red + 0.587 * green + 0.114 * blue).astype(array.dtype)[None]
    mixed = red.astype(np.int64) * 19595
    mixed += green.astype(np.int64) * 38470
    mixed += blue.astype(np.int64) * 7471
    return ((mixed + 32768) >> 16).astype(array.dtype)[None]


def _inverted(array: np.ndarray, bits: int) -> np.ndarray:
    if array.dtype.kind == "u":
        return (2**bits - 1 - array.astype(np.int64)).astype(array.dtype)
    return ~array if array.dtype.kind in "bi" else -array


def _turned(array: np.ndarray, orientation: int) -> np.ndarray:
    swapped, flipped = _TURNS.get(orientation, (False, ()))
    array = array.swapaxes(-1, -2) if swapped else array
    return np.flip(array, flipped)


def _turned_spacing(layout: _Layout) -> tuple[float, float, float]:
    x, y, z = layout.spacing
    return (y, x, z) if layout.orientation in (5, 6, 7, 8) else (x, y, z)


def _spacing(path: Path, tif: Any, page: Any) -> tuple[float, float, float]:
    """mm as ImageJ or OME give them; the dots per inch of plain TIFF are about paper and count for nothing."""
    found: list[float | None] = [None, None, None]
    if tif.is_ome:
        found = _ome_spacing(tif.ome_metadata)
    elif tif.is_imagej:
        about = tif.imagej_metadata or {}
        unit = str(about.get("unit", ""))
        for n, name in enumerate(("XResolution", "YResolution")):
            tag = page.tags.get(name)
            if tag is not None and tag.value[0]:
                found[n] = millimetres(tag.value[1] / tag.value[0], unit)
        found[2] = millimetres(about.get("spacing", 1.0), unit)
    spacing = tuple(1.0 if value is None else value for value in found)
    if not all(1e-9 < value < 1e9 for value in spacing):
        raise FileError(path, "gives a pixel size that is zero, negative or absurd.")
    return spacing[0], spacing[1], spacing[2]


def _ome_spacing(text: str) -> list[float | None]:
    from xml.etree import ElementTree

    pixels = ElementTree.fromstring(text).find(".//{*}Pixels")
    if pixels is None:
        return [None, None, None]
    sizes = [(pixels.get(f"PhysicalSize{a}"), pixels.get(f"PhysicalSize{a}Unit", "µm")) for a in "XYZ"]
    return [None if size is None else millimetres(float(size), unit) for size, unit in sizes]
