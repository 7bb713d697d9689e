"""Does a crop show anything worth a word? The lung test of the original, and one for scans of any kind."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from scanlearn.errors import ScanlearnError, unknown
from scanlearn.scans.intensity import WINDOWS
from scanlearn.scans.store import Store

LOOKED_AHEAD = 3  # slices that the original reads behind a crop; only the first of them counts


def tissue_score(crop: np.ndarray, threshold: float, slices: int | None = None) -> np.ndarray:
    """How much of a crop is brighter than ``threshold``, looking one slice ahead along the last axis.

    A voxel counts 1 where it is bright itself, one half where it is not but the voxel of the next slice is. Source:
    Models Genesis' cube extraction (spec_genesis §2.2), whose four nested loops give the same.

    Args:
        crop: (..., X, Y, Z); slices from ``slices`` on are only looked ahead to.
        threshold: bright is this or more.
        slices: how many slices are scored, Z by default; there is nothing ahead of the last slice of all.

    Returns:
        float64 (...), between 0 and 1.
    """
    bright = np.asarray(crop) >= threshold
    slices = bright.shape[-1] if slices is None else slices
    now, ahead = bright[..., :slices], bright[..., 1 : slices + 1]
    score = now.mean(axis=(-3, -2, -1))
    only_ahead = ahead & ~now[..., : ahead.shape[-1]]
    return score + 0.5 * only_ahead.sum(axis=(-3, -2, -1)) / np.prod(now.shape[-3:])


@dataclass(frozen=True)
class Tissue:
    """A test of crops in [0, 1], and how far from the edge of a scan a crop must lie for it.

    Attributes:
        name: as settings give it.
        threshold: a voxel of this brightness or more counts; 0 tests nothing.
        at_least, at_most: the share of a crop that must count.
        contrast: standard deviation that a crop must have.
        ahead: score as ``tissue_score`` does (3D), which reads three more slices than the crop has.
        margin: voxels (from 1 on) or shares of a scan's side between its edge and the crop, for each axis; one number
            stands for all.
        window: in which store the threshold means what it should, as (low, high) in the units of the files; None: any.
    """

    name: str
    threshold: float
    at_least: float = 0.0
    at_most: float = 1.0
    contrast: float = 0.0
    ahead: bool = False
    margin: tuple[float, ...] = (0.0,)
    window: tuple[float, float] | None = None

    def passes(self, crops: np.ndarray, slices: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(which of the crops (n, *spatial) pass, bool (n,); their scores (n,))."""
        axes = tuple(range(1, crops.ndim))
        if self.ahead:
            score, shown = tissue_score(crops, self.threshold, slices), crops[..., :slices]
        else:
            score, shown = (crops >= self.threshold).mean(axis=axes), crops
        fine = (score >= self.at_least) & (score <= self.at_most)
        return fine & (shown.std(axis=axes) >= self.contrast), score

    def told(self) -> dict[str, Any]:
        """For the table of words."""
        return {key: value for key, value in asdict(self).items() if key != "margin"}


PRESETS = {
    # Lung: at most 15 % of the crop has -150 HU or more, 100 voxels from the sides, 30 from the ends (512² chest CT).
    "lung": Tissue("lung", 0.425, at_most=0.15, ahead=True, margin=(100, 100, 30), window=WINDOWS["genesis"]),
    # Any scan: half of the crop lies clearly above the low end of its window (air, black borders), not all of one grey.
    "general": Tissue("general", 0.05, at_least=0.5, contrast=0.01),
    "none": Tissue("none", 0.0),
}


def tissue_of(name: str, store: Store, rows: np.ndarray) -> Tissue:
    """The preset of that name, refused for scans in which its threshold means something else."""
    if name not in PRESETS:
        raise unknown("tissue test", name, PRESETS)
    tissue = PRESETS[name]
    if tissue.ahead and store.spatial_dims != 3:
        raise ScanlearnError(f"The tissue test {name!r} is for volumes and this store is 2D: use --tissue general.")
    if tissue.window is not None:
        _check_window(tissue, tissue.window, store, rows)
    return tissue


def _check_window(tissue: Tissue, window: tuple[float, float], store: Store, rows: np.ndarray) -> None:
    """The original, given scans in another range, searches for ever."""
    factor = np.array([store.factor(int(row)) for row in rows])
    low, high = (bound * factor for bound in store.window(rows))
    other = ~(np.isclose(low, window[0], atol=1.0) & np.isclose(high, window[1], atol=1.0))
    if other.any():
        first = int(np.flatnonzero(other)[0])
        raise ScanlearnError(
            f"The tissue test {tissue.name!r} is for CT in the window {window[0]:g}..{window[1]:g} HU, but {other.sum()} "
            f"of {len(rows)} scans are in {low[first]:g}..{high[first]:g}: prepare them with --window genesis, or use "
            "--tissue general."
        )
