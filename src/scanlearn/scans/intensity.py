"""Which raw values become 0 and 1: Hounsfield windows, percentiles, and the dtype a scan is kept in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from scanlearn.errors import ScanlearnError, unknown
from scanlearn.scans.geometry import to_dtype

if TYPE_CHECKING:
    from torch import Tensor

# (low, high) in Hounsfield units. The usual reading windows; "genesis" is the range of Models Genesis, in which
# networks are pre-trained by default, and "lung" the one whose window is 1,500 wide around -600.
WINDOWS: dict[str, tuple[float, float]] = {
    "abdomen": (-160, 240),
    "angio": (0, 600),
    "bone": (-450, 1050),
    "brain": (0, 80),
    "full": (-1024, 3071),
    "genesis": (-1000, 1000),
    "liver": (-45, 105),
    "lung": (-1350, 150),
    "mediastinum": (-125, 275),
    "soft_tissue": (-160, 240),
    "stroke": (8, 72),
}

# Ways to find the range in the scan itself, accepted wherever a window's name is.
RANGES = ("percentiles", "extremes")

PERCENTILES = (0.5, 99.5)

# Every CT of a body shows something darker: its fat has -50 to -120 HU, the air around and in it -1000.
FAT = 50

Window = str | tuple[float, float] | None
Windows = Window | dict[str, Window]  # one for all scans, or one for each data set that is named


def check_windows(windows: Any) -> Windows:
    """``check_window`` of one window, or of one for each data set by its name."""
    if isinstance(windows, Mapping):
        return {str(name): check_window(window) for name, window in windows.items()}
    return check_window(windows)


def for_all(windows: dict[str, Window], datasets: Iterable[str]) -> dict[str, Window]:
    """A window for each of the data sets, None for those that are not named; a name that is none of them is refused."""
    known = [name for name in datasets if name]
    for name in windows:
        if name not in known:
            raise unknown("data set", name, known)
    return {name: windows.get(name) for name in known}


def window_of(windows: Windows, dataset: str) -> Window:
    """The window of a data set; None, the usual one, for those that ``windows`` does not name."""
    return windows.get(dataset) if isinstance(windows, dict) else windows


def check_window(window: Any) -> Window:
    """A window as settings give it: a name of ``WINDOWS`` or ``RANGES``, two numbers low < high, or None."""
    if window is None:
        return None
    if isinstance(window, str):
        if window not in WINDOWS and window not in RANGES:
            raise unknown("window", window, [*WINDOWS, *RANGES])
        return window
    values = tuple(float(v) for v in window)
    if len(values) != 2 or not values[0] < values[1]:
        raise ScanlearnError(f"The window {window} must be two numbers, low < high, or one of {', '.join(WINDOWS)}.")
    return values


def settle_modality(told: str, of_file: str, array: np.ndarray) -> tuple[str, str]:
    """(modality, note or ""): as the catalogue tells it, else as the file does, else as its values do.

    "CT" means Hounsfield units, whose windows are absolute. A file that names itself a CT (DICOM) is believed; a column
    or a file name is, if the values can be Hounsfield units. Of what has 8 bits nobody is believed.
    """
    modality = told or of_file
    if not modality and guess_modality(array):
        return "CT", "does not say its modality; its values are those of a CT."
    if modality != "CT" or (of_file == "CT" and array.dtype.itemsize > 1) or _may_be_hounsfield(array):
        return modality, ""
    return "", f"is called a CT, but its values {array.min():g} to {array.max():g} are no Hounsfield units."


def guess_modality(array: np.ndarray) -> str:
    """ "CT" for values that only Hounsfield units take (air near -1000), else "" (unknown).

    NIfTI files do not say what they hold; the guess is written into ``store.json``. One odd voxel does not make a CT:
    half a percent of them must be darker than fat.
    """
    air = _may_be_hounsfield(array) and array.min() <= -900 and array.max() >= 0
    return "CT" if air and percentiles(array)[0] < -FAT else ""


def _may_be_hounsfield(array: np.ndarray) -> bool:
    """Whether some voxel is darker than fat, and none beyond what scanners write."""
    return array.dtype.kind != "u" and -8192 <= array.min() < -FAT and array.max() <= 32767


def percentiles(array: np.ndarray) -> tuple[float, float]:
    """The 0.5th and 99.5th percentile, of at most two million voxels evenly spaced through the array.

    Where they coincide (a scan that is almost everywhere one value) the smallest and the largest value.
    """
    flat = array.reshape(-1)
    step = 1 + flat.size // 2_000_000
    sample = flat[:: step + (step > 1 and step % 2 == 0)]
    low, high = _by_counting(sample) if array.dtype.itemsize <= 2 and array.dtype.kind in "iu" else _by_sorting(sample)
    if not low < high:
        low, high = flat.min(), flat.max()
    return float(low), float(high)


def _by_sorting(sample: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(sample, PERCENTILES)
    return low, high


def _by_counting(sample: np.ndarray) -> tuple[float, float]:
    """The same of integers of 8 or 16 bits, ten times as fast: between the two nearest ranks, as np.percentile does."""
    first = int(sample.min())
    below = np.bincount(sample.astype(np.int64) - first).cumsum()
    found = []
    for percent in PERCENTILES:
        rank = percent / 100 * (sample.size - 1)
        lower, upper = np.searchsorted(below, (int(rank), min(int(rank) + 1, sample.size - 1)), side="right").tolist()
        part = rank - int(rank)
        found.append(first + (lower + (upper - lower) * part if part < 0.5 else upper - (upper - lower) * (1 - part)))
    return found[0], found[1]


def window_for(modality: str, stats: dict[str, float], window: Window, *, all_8bit: bool) -> tuple[float, float]:
    """(low, high) in the scan's own units that are mapped to 0 and 1.

    ``stats`` holds minimum, maximum, p_low and p_high of the scan. Without a ``window``: CT -> the Genesis range;
    a data set of 8-bit images only (already made for the screen) -> 0..255; everything else -> its percentiles.
    """
    if isinstance(window, tuple):
        return window
    if window == "extremes":
        return stats["minimum"], stats["maximum"]
    if window is not None and window != "percentiles":
        return WINDOWS[window]
    if window is None and modality == "CT":
        return WINDOWS["genesis"]
    if window is None and all_8bit:
        return 0.0, 255.0
    return stats["p_low"], stats["p_high"]


def narrow(array: np.ndarray, modality: str = "") -> np.ndarray:
    """The same numbers in a small dtype: int16, uint16, int32 or float32; what has 8 bits keeps them.

    Floats that hold whole numbers become integers; CT is rounded to whole Hounsfield units (noise is ten times that).
    """
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    if array.dtype in (np.uint8, np.int16, np.uint16):
        return array
    low, high = array.min(), array.max()
    if array.dtype.kind == "f":
        whole = modality == "CT" or (_whole(array[..., :1]) and _whole(array))
        if not whole or low < -32768 or high > 65535 or (low < 0 and high > 32767):
            return array.astype(np.float32, copy=False)
    for dtype in ("int16", "uint16", "int32"):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return to_dtype(array, dtype)
    return array.astype(np.float32)


def _whole(array: np.ndarray) -> bool:
    return bool((np.rint(array) == array).all())


def to_storage(array: np.ndarray) -> tuple[np.ndarray, float]:
    """(stored array, factor) with ``array = stored * factor``: integers as they are, floats as float16.

    The factor is 1 where the largest magnitude lies in 1..65,504, else the power of two that brings it to about
    16,384..32,768, so that neither end of float16's range costs precision.
    """
    if array.dtype.kind != "f":
        return array, 1.0
    largest = float(np.abs(array).max())
    factor = 1.0 if 1.0 <= largest <= 65504.0 or largest == 0 else 2.0 ** np.ceil(np.log2(largest / 32768.0))
    return (array / np.float32(factor)).astype(np.float16), float(factor)


def common_dtype(dtypes: Iterable[np.dtype | str]) -> np.dtype:
    """The smallest dtype that holds the numbers of all of them."""
    return np.result_type(*[np.dtype(d) for d in dtypes])


def to_unit(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """(x - low) / (high - low), clipped to [0, 1].

    x: (N, C, *S) of any dtype; low, high: (N,). Returns float32 (N, C, *S), always a new tensor.
    """
    shape = (-1, *[1] * (x.ndim - 1))
    low, high = low.float().view(shape), high.float().view(shape)
    return x.float().sub(low).div_(high - low).clamp_(0.0, 1.0)
