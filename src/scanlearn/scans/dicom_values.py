"""From stored numbers to physical values: slope and intercept, modality tables, inverted images, padding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from scanlearn.catalog.dicom_planes import of_group
from scanlearn.catalog.dicom_tags import BadTag, items, number, word

VALUE_TAGS = (
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "Modality", "PhotometricInterpretation"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit"),
)
# Their values are measurements: MONOCHROME1 only asks for another display.
_MEASURED = frozenset(("CT", "MR", "PT", "NM"))


@dataclass(frozen=True)
class Transform:
    """How the stored values of one frame become physical ones.

    inverted_below: the sum of the smallest and the largest stored value where more is darker, else None. padding:
    (lowest, highest) stored value of pixels outside the image, or None. table: the header with a modality table.
    """

    slope: float = 1.0
    intercept: float = 0.0
    inverted_below: int | None = None
    padding: tuple[int, int] | None = None
    table: Any = None

    def padded(self, raw: np.ndarray) -> np.ndarray | None:
        """Where the pixels are padding, None where none is."""
        if self.padding is None:
            return None
        outside = (raw >= self.padding[0]) & (raw <= self.padding[1])
        return outside if outside.any() else None

    def apply(self, raw: np.ndarray) -> np.ndarray:
        """The physical values: whole numbers stay integers (HU as int16), else float32."""
        if self.table is not None:
            from pydicom.pixels import apply_modality_lut

            values = np.asarray(apply_modality_lut(raw, self.table))
            if self.inverted_below is not None and values.dtype.kind == "u":
                values = np.iinfo(values.dtype).max - values
            return values
        if self.inverted_below is not None:
            raw = self.inverted_below - raw.astype(np.int64)
        return rescale(raw, self.slope, self.intercept)


def transform_of(data: Any, frame_groups: list[Any], told: dict[str, int]) -> Transform:
    """The transform of a frame. frame_groups: functional groups of the frame, then shared ones, [] for single images.

    Slope 1 and intercept 0 are taken where the file is silent (or gives a slope of zero). Raises BadTag.
    """
    sequence = "PixelValueTransformationSequence"
    slope = of_group(frame_groups, sequence, "RescaleSlope")
    intercept = of_group(frame_groups, sequence, "RescaleIntercept")
    slope = number(data, "RescaleSlope") if slope is None else slope
    intercept = number(data, "RescaleIntercept") if intercept is None else intercept
    inverted = None
    dark = word(data, "PhotometricInterpretation") == "MONOCHROME1" and word(data, "Modality") not in _MEASURED
    if dark and told["samples"] == 1:
        inverted = -1 if told["signed"] else 2 ** told["stored"] - 1
    return Transform(
        slope=slope or 1.0,
        intercept=intercept or 0.0,
        inverted_below=inverted,
        padding=_padding(data, told) if told["samples"] == 1 else None,
        table=data if items(data, "ModalityLUTSequence") else None,
    )


def rescale(raw: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    """raw * slope + intercept: the dtype is kept for (1, 0), an integer for whole numbers, else float32."""
    if (slope, intercept) == (1.0, 0.0) and raw.dtype.itemsize <= 2:
        return raw
    if raw.dtype.kind in "iu" and slope.is_integer() and intercept.is_integer():
        # The products of 16-bit numbers fit 32 bits, which is twice as fast as 64.
        short = raw.dtype.itemsize <= 2 and max(abs(slope), abs(intercept)) < 2**15
        wide = raw.astype(np.int32 if short else np.int64)
        if slope != 1:
            np.multiply(wide, int(slope), out=wide)
        if intercept != 0:
            np.add(wide, int(intercept), out=wide)
        low, high = int(wide.min()), int(wide.max())
        for dtype in (np.int16, np.uint16, np.int32):
            if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
                return wide.astype(dtype)
    return (raw.astype(np.float64) * slope + intercept).astype(np.float32)


def _padding(data: Any, told: dict[str, int]) -> tuple[int, int] | None:
    """The range of stored values that mark padding; written signed or unsigned, whatever the pixels are."""
    try:
        value, limit = number(data, "PixelPaddingValue"), number(data, "PixelPaddingRangeLimit")
    except BadTag:  # of several values, or text: nobody can tell which pixels are meant
        return None
    if value is None:
        return None
    ends = [_as_stored(int(end), told) for end in (value, value if limit is None else limit)]
    return min(ends), max(ends)


def _as_stored(value: int, told: dict[str, int]) -> int:
    value %= 2 ** told["allocated"]
    return value - 2 ** told["allocated"] if told["signed"] and value >= 2 ** (told["allocated"] - 1) else value
