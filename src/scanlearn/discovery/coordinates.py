"""Places on reference scans: away from the edges, apart from each other, and where there is something to see."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

from scanlearn.console import track
from scanlearn.discovery.frame import Frame
from scanlearn.discovery.tissue import LOOKED_AHEAD, Tissue
from scanlearn.errors import ScanlearnError, unknown
from scanlearn.keys import key_of
from scanlearn.randomness import Draws
from scanlearn.scans.intensity import to_unit
from scanlearn.scans.store import Store

REFERENCES = ("per_class", "shared")
AT_ONCE = 8  # crops that are read before the next are


@dataclass(frozen=True)
class Search:
    """How places are looked for.

    Attributes:
        frame: what the same place is in scans of different shapes.
        tissue: what a crop must show.
        margin: as ``Tissue.margin``, one number for each axis.
        apart: voxels, at least, between the places of two words.
        tries: random places looked at on one scan before another scan is taken.
        seed: of the references and of the places.
    """

    frame: Frame
    tissue: Tissue
    margin: tuple[float, ...]
    apart: float = 5.0
    tries: int = 200
    seed: int = 0


@dataclass
class Places:
    """What was found: a scan and a point on it for each word."""

    rows: list[int] = field(default_factory=list)  # (C,) references, rows of the store
    points: list[np.ndarray] = field(default_factory=list)  # (C, D) in the frame's space
    small: int = 0  # scans that were too small to be references
    crowded: int = 0  # scans on which every place that was tried lay too near to an earlier one
    failed: int = 0  # scans on which no crop passed the tissue test
    scores: tuple[float, float] = (np.inf, -np.inf)  # lowest and highest of the crops that did not pass


def find_places(
    store: Store, rows: np.ndarray, patients: np.ndarray, count: int, search: Search, reference: str = "per_class"
) -> Places:
    """A reference and a place for each of ``count`` words.

    ``per_class``: a new reference patient for each word, as the released code has it. ``shared``: all places on one, as
    the paper's figure has it. Where no place is found within the tries, the next reference is taken.

    Args:
        rows: (M,) scans that can be references.
        patients: (M,) whose they are; nobody is the reference of two words.

    Raises:
        ScanlearnError: there are not so many places; says why.
    """
    if reference not in REFERENCES:
        raise unknown("reference", reference, REFERENCES)
    found = Places()
    candidates = _candidates(rows, patients, search.seed)
    if reference == "shared":
        for row in candidates:
            found.rows, found.points = [], []
            if all(_found(store, row, found, search, word) for word in range(count)):
                return found
    else:
        for word in track(range(count), count, "places"):
            if not any(_found(store, row, found, search, word) for row in candidates):
                break
        if len(found.rows) == count:
            return found
    raise _too_few(store, rows, len(np.unique(patients)), found, count, search, reference)


def _candidates(rows: np.ndarray, patients: np.ndarray, seed: int) -> Iterator[int]:
    """The scans in random order, one of each patient."""
    seen = set()
    for at in Draws([key_of(seed, "references")]).permutation(len(rows))[0].tolist():
        if patients[at] not in seen:
            seen.add(patients[at])
            yield int(rows[at])


def _found(store: Store, row: int, found: Places, search: Search, word: int) -> bool:
    """Look for one more place on a scan."""
    shape = np.array(store.shape(row))
    spacing = np.array(store.spacing(row))
    side = search.frame.sides(spacing[None])[0]
    low, high = _room(shape, side, search)
    if (high < low).any():
        found.small += 1
        return False
    draws = Draws([key_of(search.seed, "places", word, row)])
    starts = draws.integers(torch.from_numpy(low), torch.from_numpy(high), search.tries, len(low))[0].numpy()
    for point in found.points:
        taken = search.frame.starts(point, shape[None], spacing[None])
        starts = starts[np.square(starts - taken).sum(axis=1) >= search.apart**2]
    if not len(starts):
        found.crowded += 1
        return False
    for first in range(0, len(starts), AT_ONCE):
        part = starts[first : first + AT_ONCE]
        passes, score = search.tissue.passes(_crops(store, row, part, side, search.tissue), int(side[-1]))
        if passes.any():
            found.rows.append(row)
            found.points.append(search.frame.point(part[int(passes.argmax())], shape, spacing))
            return True
        found.scores = min(found.scores[0], float(score.min())), max(found.scores[1], float(score.max()))
    found.failed += 1
    return False


def _room(shape: np.ndarray, side: np.ndarray, search: Search) -> tuple[np.ndarray, np.ndarray]:
    """First and last voxel at which a crop may begin, both ends included."""
    margin = np.asarray(search.margin, np.float64)
    margin = np.where(margin < 1, np.rint(margin * shape), margin).astype(np.int64)
    high = shape - side - margin
    if search.tissue.ahead:  # as the original counts: one voxel less, and the slices that are looked ahead to
        high = high - 1
        high[-1] -= LOOKED_AHEAD
    return margin, high


def _crops(store: Store, row: int, starts: np.ndarray, side: np.ndarray, tissue: Tissue) -> np.ndarray:
    """The crops in 0..1, float32 (n, *side), channels averaged; with the slices that the test looks ahead to."""
    side = side.copy()
    if tissue.ahead:
        side[-1] += LOOKED_AHEAD
    rows = np.full(len(starts), row)
    raw = torch.from_numpy(np.stack(store.read(rows, [(start, start + side) for start in starts])))
    low, high = (torch.from_numpy(bound) for bound in store.window(rows))
    return to_unit(raw, low, high).mean(dim=1).numpy()


def _too_few(
    store: Store, rows: np.ndarray, patients: int, found: Places, count: int, search: Search, reference: str
) -> ScanlearnError:
    """Why there are no more places: the original searches on for ever."""
    crop = "x".join(map(str, search.frame.size))
    if found.small and not found.failed + found.crowded + len(found.rows):
        shapes = store.shapes(rows)
        largest = "x".join(map(str, shapes[shapes.prod(axis=1).argmax()].tolist()))
        margin = " ".join(f"{m:g}" for m in search.margin)
        return ScanlearnError(
            f"No scan has room for a crop of {crop} voxels and margins of {margin}, the largest has {largest}: choose a "
            "smaller --size or smaller --margins."
        )
    reasons = [f"{found.small} are too small for crops of {crop}"] if found.small else []
    if found.failed:
        reasons.append(f"on {found.failed} no place in {search.tries} tries passed {_limits(search, found)}")
    if found.crowded:
        reasons.append(f"on {found.crowded} all places lay within {search.apart:g} voxels of earlier ones")
    why = "; ".join([f"there are {patients} patients", *reasons])
    advice = "fewer --classes, smaller --size, --margins or --apart, another --tissue"
    if reference == "shared":
        return ScanlearnError(f"No scan has places for {count} words: {why}; try {advice}.")
    return ScanlearnError(
        f"{len(found.rows)} of {count} words were found, each on a patient of its own: {why}; try --reference shared, "
        f"{advice}."
    )


def _limits(search: Search, found: Places) -> str:
    """The test in words, with the scores that it gave."""
    tissue = search.tissue
    lowest, highest = found.scores
    seen = f", scores were {lowest:.2f} to {highest:.2f}" if lowest <= highest else ""
    return (
        f"the tissue test {tissue.name} (share above {tissue.threshold:g} from {tissue.at_least:g} to "
        f"{tissue.at_most:g}{seen})"
    )
