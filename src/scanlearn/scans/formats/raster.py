"""PNG, JPEG, BMP and PGM/PPM through Pillow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from scanlearn.errors import FileError
from scanlearn.scans.formats.limits import check_size
from scanlearn.scans.formats.raw import native
from scanlearn.scans.formats.scan import Scan
from scanlearn.scans.geometry import unlocated

_FORMATS = ("PNG", "JPEG", "BMP", "PPM")
_ORIENTATION = 0x0112  # EXIF
_PNG_EXIF = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")  # chunks where Pillow looks for it


def read(path: Path, limit: int) -> Scan:
    """One grey channel of 8 or 16 bit, turned as it is displayed; a pixel counts as 1 mm."""
    from PIL import ImageOps

    with _open(path, limit) as opened:
        opened.load()
        array = grey(ImageOps.exif_transpose(opened))
    return picture(array[None])


def header(path: Path, limit: int) -> tuple[int, ...]:
    """(row, column) as displayed."""
    with _open(path, limit) as image:
        return image.size if _turned(image, path) else image.size[::-1]


def _turned(image: Any, path: Path) -> bool:
    """Whether rows and columns change places for display."""
    if image.width == image.height:
        return False
    # Pillow decodes a whole PNG in order to look for EXIF behind the voxels.
    if image.format == "PNG" and not any(word in path.read_bytes() for word in _PNG_EXIF):
        return False
    return image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)


def palette(path: Path, limit: int) -> Scan | None:
    """The indices of a palette image (a mask), None if the file has no palette."""
    with _open(path, limit) as image:
        return picture(np.array(image)[None]) if image.mode == "P" else None


def picture(array: np.ndarray) -> Scan:
    """(C, row, column) of a file that knows neither millimetres nor a place in space."""
    return Scan(array, unlocated((1.0, 1.0)), located=False)


def grey(image: Any) -> np.ndarray:
    """(row, column) of any Pillow image: grey values as they are, colours as luminance, transparent parts black."""
    from PIL import Image

    if image.mode in ("L", "F"):
        return np.array(image)
    if image.mode.startswith("I"):  # 16 bit; "I" holds it in 32
        array = native(np.array(image))
        return array.astype(np.uint16) if array.min() >= 0 and array.max() <= 65535 else array
    if image.mode == "1":
        return np.array(image.convert("L"))
    if image.mode in ("LA", "PA", "RGBA", "P", "La", "RGBa"):
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image.convert("RGBA"))
    return np.array(image.convert("RGB").convert("L"))


def _open(path: Path, limit: int) -> Any:
    """The opened image, its announced size checked; Pillow decodes later."""
    from PIL import Image

    try:
        image = Image.open(path, formats=_FORMATS)
    except Image.DecompressionBombError as error:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise FileError(path, f"announces more than the {most} pixels that Pillow reads; cut it into parts.") from error
    try:
        check_size(path, (len(image.getbands()), *image.size), 1 if image.mode in "1LP" else 4, limit)
    except FileError:
        image.close()
        raise
    return image
