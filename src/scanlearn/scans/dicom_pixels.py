"""The pixels of one DICOM file, frame by frame, as its header describes them: checked first, then decoded, then grey."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from scanlearn.catalog.dicom_tags import number, tags_of, word
from scanlearn.errors import FileError
from scanlearn.scans.dicom_apart import frames_apart

PIXEL_TAGS = (
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "Rows", "Columns", "NumberOfFrames"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
)
DATA_TAGS = (
    *("PixelData", "FloatPixelData", "DoubleFloatPixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
    *("RedPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableDescriptor"),
    *("BluePaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData", "GreenPaletteColorLookupTableData"),
    *("BluePaletteColorLookupTableData", "AlphaPaletteColorLookupTableDescriptor"),
    *("SegmentedRedPaletteColorLookupTableData", "SegmentedGreenPaletteColorLookupTableData"),
    "SegmentedBluePaletteColorLookupTableData",
)
# The decoders that survive damaged streams, the best first.
_IN_PROCESS = ("pylibjpeg", "pillow", "pydicom")
_INSTALL = "pip install 'scanlearn[dicom]'"


@cache
def data_tags() -> list[Any]:
    """The tags that ``grey_frames`` needs."""
    return tags_of(*PIXEL_TAGS, *DATA_TAGS)


def describe(data: Any) -> dict[str, int]:
    """Rows, columns, frames, samples, bits allocated and stored, high bit and sign, defaults where the file is silent.

    Raises BadTag for values that are no numbers.
    """

    def whole(keyword: str, default: int) -> int:
        found = number(data, keyword)
        return default if found is None else int(found)

    default_bits = 64 if "DoubleFloatPixelData" in data else 32 if "FloatPixelData" in data else 0
    allocated = whole("BitsAllocated", default_bits)
    stored = whole("BitsStored", allocated)
    return {
        "rows": whole("Rows", 0),
        "columns": whole("Columns", 0),
        "frames": whole("NumberOfFrames", 1),
        "samples": whole("SamplesPerPixel", 1),
        "allocated": allocated,
        "stored": stored,
        "high": whole("HighBit", stored - 1),
        "signed": whole("PixelRepresentation", 0),
    }


def check_description(path: Path, told: dict[str, int]) -> None:
    """FileError for a description that no image can have."""
    rows, columns, frames, samples = (told[key] for key in ("rows", "columns", "frames", "samples"))
    if not rows and not columns:
        raise FileError(path, "holds no image, or is cut off in its header: it gives neither rows nor columns.")
    if min(rows, columns, frames) < 1:
        raise FileError(path, f"says it holds {frames} frames of {rows} x {columns} pixels.")
    if samples not in (1, 3):
        raise FileError(path, f"has {samples} samples for each pixel; grey (1) and colour (3) are read.")
    allocated, stored = told["allocated"], told["stored"]
    if told["signed"] not in (0, 1):
        raise FileError(path, "does not say clearly whether its pixels are signed.")
    if allocated not in (1, 8, 16, 32, 64) or not 1 <= stored <= allocated:
        raise FileError(path, f"says that it stores {stored} of {allocated} bits; 1, 8, 16, 32 or 64 can be read.")


def grey_frames(data: Any, path: Path, *, apart: bool = False) -> Iterator[np.ndarray]:
    """Each frame (row, column) in the file's order: stored values in native byte order, colours as luminance.

    Bits above the stored ones (overlays, rubbish) are taken out. What only GDCM can decode is decoded in a process of
    its own, in which this is called with ``apart``. Raises FileError, naming what to install where a decoder is missing.
    """
    from pydicom.pixels import get_decoder

    told = describe(data)
    check_description(path, told)
    syntax = data.file_meta.TransferSyntaxUID
    name = _name_of(syntax)
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise FileError(path, f"is compressed in a way that cannot be read ({name}); convert it first.") from error
    if not decoder.is_available:
        raise FileError(path, f"is compressed as {name}; to read it: {_INSTALL}.")
    _complete(data, told)
    if decoder.is_encapsulated:
        _check_encapsulated(data, path, told)
    else:
        _check_length(data, path, told)
    if name.startswith("JPEG Extended") and told["stored"] > 8:
        raise FileError(
            path, f"is JPEG Extended of {told['stored']} bits, which no free decoder reads; convert it with dcmdjpeg."
        )
    plugin = next((plugin for plugin in _IN_PROCESS if plugin in decoder.available_plugins), "")
    if decoder.is_encapsulated and not plugin and not apart:
        yield from frames_apart(path)
        return
    own_bits = _counts_own_bits(data, name)
    try:
        options: dict[str, Any] = {"correct_unused_bits": False} if own_bits else {}
        # Without indices pydicom hands out read-only arrays and fails to correct their sign.
        options["indices"] = range(told["frames"])
        raw = told["samples"] == 1
        for array, properties in decoder.iter_array(data, raw=raw, decoding_plugin=plugin, **options):
            if own_bits:
                array = _stored_bits(array, told)
            yield _grey(array.astype(array.dtype.newbyteorder("="), copy=False), data, properties)
    except (FileError, MemoryError, ImportError):
        raise
    except Exception as error:  # decoders raise what they like, and quote file names
        raise FileError(path, _failure(name, decoder)) from error


def to_grey(rgb: np.ndarray) -> np.ndarray:
    """Luminance (ITU-R 601, the integer formula of Pillow) of (..., 3), same dtype; equal channels are kept exactly."""
    weights = (19595, 38470, 7471)
    if rgb.dtype.kind == "f":
        return (rgb @ (np.array(weights) / 65536)).astype(rgb.dtype)
    wide = np.uint32 if rgb.dtype.kind == "u" and rgb.dtype.itemsize <= 2 else np.int64
    total = np.full(rgb.shape[:-1], 32768, wide)
    for channel, weight in enumerate(weights):
        total += rgb[..., channel] * wide(weight)
    return (total >> wide(16)).astype(rgb.dtype)


def _grey(array: np.ndarray, data: Any, properties: dict[str, Any]) -> np.ndarray:
    from pydicom.pixels import apply_color_lut

    if properties.get("photometric_interpretation") == "PALETTE COLOR":
        array = apply_color_lut(array, data)
    return to_grey(array[..., :3]) if array.ndim > 2 else array


def _complete(data: Any, told: dict[str, int]) -> None:
    """pydicom wants every tag of the pixel description; what the file leaves out has one usual meaning."""
    from pydicom.pixels.common import PhotometricInterpretation

    data.SamplesPerPixel, data.PixelRepresentation = told["samples"], told["signed"]
    data.BitsAllocated, data.BitsStored = told["allocated"], told["stored"]
    data.NumberOfFrames = told["frames"]
    if told["samples"] > 1 and number(data, "PlanarConfiguration") is None:
        data.PlanarConfiguration = 0
    known = {item.value for item in PhotometricInterpretation} | {"PALETTE COLOR"}
    if word(data, "PhotometricInterpretation") not in known:
        data.PhotometricInterpretation = "MONOCHROME2" if told["samples"] == 1 else "RGB"


def _pixel_bytes(data: Any, path: Path) -> bytes:
    for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"):
        if keyword in data and data[keyword].value:
            return data[keyword].value
    raise FileError(path, "has a header but no pixels; it is cut off, or they lie in another file.")


def _check_length(data: Any, path: Path, told: dict[str, int]) -> None:
    """Uncompressed pixels have a length that is known beforehand."""
    have = len(_pixel_bytes(data, path))
    bits = told["rows"] * told["columns"] * told["samples"] * told["allocated"] * told["frames"]
    if data.PhotometricInterpretation == "YBR_FULL_422":  # two pixels share their colour
        bits = bits // 3 * 2
    if have < math.ceil(bits / 8):
        raise FileError(path, f"is cut off: {have} of {math.ceil(bits / 8)} bytes of pixels are there.")


def _check_encapsulated(data: Any, path: Path, told: dict[str, int]) -> None:
    """Every compressed frame has the size that the header gives, or its decoder would make something huge of it."""
    from pydicom.encaps import generate_frames

    from scanlearn.scans.dicom_codestream import frame_size

    pixels = _pixel_bytes(data, path)
    table = None
    if "ExtendedOffsetTable" in data and "ExtendedOffsetTableLengths" in data:
        table = data.ExtendedOffsetTable, data.ExtendedOffsetTableLengths
    count = 0
    try:
        streams = generate_frames(pixels, number_of_frames=told["frames"], extended_offsets=table)
        for stream in islice(streams, told["frames"]):
            count += 1
            size = frame_size(stream)
            if size is not None and size != (told["rows"], told["columns"]):
                raise FileError(
                    path,
                    f"says {told['rows']} x {told['columns']}, but a compressed frame in it is {size[0]} x {size[1]}.",
                )
    except (FileError, MemoryError, ImportError):
        raise
    except Exception as error:  # struct, offsets, missing items
        raise FileError(path, "is cut off or damaged: its compressed frames cannot be found.") from error
    if count < told["frames"]:
        raise FileError(path, f"is cut off: {count} of {told['frames']} compressed frames are there.")


def _counts_own_bits(data: Any, name: str) -> bool:
    """Whether stored bits are cut out here: JPEG decoders give values, everything else gives containers of bits."""
    return "PixelData" in data and not any(word in name for word in ("JPEG", "JPIP", "MPEG", "High-Throughput"))


def _stored_bits(array: np.ndarray, told: dict[str, int]) -> np.ndarray:
    """The stored bits of each container, whatever lies above and below them; signed ones keep their sign."""
    allocated, stored, high = told["allocated"], told["stored"], told["high"]
    if allocated == 1 or stored == allocated:
        return array
    if not stored - 1 <= high < allocated:
        high = stored - 1
    array = np.left_shift(array, allocated - 1 - high)
    return np.right_shift(array, allocated - stored, out=array)


def _name_of(syntax: Any) -> str:
    """The standard's name of a transfer syntax; a private one may be anything and is not quoted."""
    from pydicom.uid import UID_dictionary

    return UID_dictionary[syntax][0] if syntax in UID_dictionary else "an unknown transfer syntax"


def _failure(name: str, decoder: Any) -> str:
    """What to say when decoding failed: with a decoder missing, the file may be fine."""
    from importlib.util import find_spec

    lost = (
        decoder.is_encapsulated and "RLE" not in name and (find_spec("gdcm") is None or find_spec("openjpeg") is None)
    )
    advice = f"; if it is not damaged, {_INSTALL} may read it" if lost else "; it is damaged"
    return f"cannot be decoded ({name}){advice}."
