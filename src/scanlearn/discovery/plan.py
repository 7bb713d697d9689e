"""How many words, neighbours and voxels: what was asked for, or what suits the store, said aloud where that differs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scanlearn.console import say, warn
from scanlearn.errors import ScanlearnError
from scanlearn.scans.store import Store

# By number of axes: neighbours, words and the crop of the paper; K = 200 were 45 % of its 445 training patients.
NEIGHBOURS, CLASSES = {2: 1000, 3: 200}, {2: 100, 3: 44}
NEIGHBOURS_VAL = 30
CROP = {2: (224, 224), 3: (64, 64, 32)}
SHARE = 0.45
ROOM = 0.75  # of a scan's side that a crop by default may take
MULTIPLE = 8  # voxels, which networks like
LOOKED_AT = 1000  # scans whose spacing and axes are looked up


@dataclass(frozen=True)
class Part:
    """The scans of one part: rows of the store, ascending, and the patient of each."""

    name: str
    rows: np.ndarray
    patients: np.ndarray

    def units(self, per_patient: int | None) -> int:
        """How many of the scans can be neighbours of one reference."""
        if per_patient is None:
            return len(self.rows)
        return int(np.minimum(np.unique(self.patients, return_counts=True)[1], per_patient).sum())


def part_of(store: Store, name: str, per_patient: int | None) -> Part:
    """A part of the store; with ``per_patient`` None every scan counts as a patient."""
    rows = np.sort(np.asarray(store.splits[name], np.int64))
    patients = rows if per_patient is None else store.catalog.codes("patient_id")[rows].astype(np.int64)
    return Part(name, rows, patients)


def neighbours_of(asked: float | None, default: int, part: Part, per_patient: int | None, option: str) -> int:
    """K as a number, from a number, a share (below 1) of the patients, or nothing."""
    units = part.units(per_patient)
    if units == 0:
        return 0
    if asked is None:
        count = max(min(default, round(SHARE * units)), min(2, units))
        if count < default:
            few = f"{count} neighbours of {units} in the {part.name} part"
            say(f"{few}, as {default} would be too many; {option} changes it.")
        return count
    if asked <= 0 or (asked > 1 and asked != int(asked)):
        raise ScanlearnError(
            f"{option} takes a number of neighbours or a share of the patients below 1, not {asked:g}."
        )
    count = max(round(asked * units), 1) if asked < 1 else int(asked)
    if count > units:
        raise ScanlearnError(
            f"{count} neighbours are wanted and the {part.name} part has {units}: give {option} {units} or less, or a "
            "share such as 0.5."
        )
    return count


def classes_of(asked: int | None, dims: int, train: Part, reference: str) -> int:
    """C, from what was asked for or, where every word needs a patient of its own, half of these at most."""
    patients = len(np.unique(train.patients))
    default = CLASSES[dims]
    if asked is None:
        count = default if reference == "shared" else max(min(default, patients // 2), 1)
        if count < default:
            say(f"{count} words instead of {default}, as each has a patient of its own and there are {patients}.")
        return count
    if asked < 1:
        raise ScanlearnError(f"--classes takes a number of words from 1 on, not {asked}.")
    if reference == "per_class" and asked > patients:
        raise ScanlearnError(
            f"{asked} words need {asked} reference patients and the train part has {patients}: give --classes {patients} "
            "or less, or --reference shared."
        )
    return asked


def size_of(asked: Sequence[float] | float | None, store: Store, rows: np.ndarray) -> tuple[int, ...]:
    """Voxels of a crop, from voxels, shares (at most 1) of the median scan, or nothing."""
    dims = store.spatial_dims
    median = np.median(store.shapes(rows), axis=0)
    if asked is None:
        size = CROP[dims]
        if (np.array(size) <= ROOM * median).all():
            return size
        fitting = np.minimum(np.array(size), np.maximum(median / 2 // MULTIPLE, 1) * MULTIPLE).astype(int)
        shown, wanted = ("x".join(map(str, numbers)) for numbers in (fitting.tolist(), size))
        say(
            f"Crops of {shown}, as {wanted} do not fit into scans of {'x'.join(f'{n:g}' for n in median)}; --size changes it."
        )
        return tuple(fitting.tolist())
    given = [asked] * dims if isinstance(asked, int | float) else list(asked)
    if len(given) == 1:
        given = given * dims
    if len(given) != dims or min(given) <= 0:
        raise ScanlearnError(f"--size takes {dims} numbers, voxels or shares of a scan up to 1, not {asked}.")
    return tuple(
        max(round(share * side), 1) if share <= 1 else int(share) for share, side in zip(given, median, strict=True)
    )


def margin_of(asked: Sequence[float] | float | None, default: Sequence[float], dims: int) -> tuple[float, ...]:
    """Margins for each axis, from one number or one for each."""
    given = default if asked is None else [asked] if isinstance(asked, int | float) else asked
    margin = tuple(float(m) for m in (list(given) * dims if len(given) == 1 else given))
    if len(margin) != dims or min(margin) < 0:
        raise ScanlearnError(f"--margins takes one number or {dims}, voxels or shares of a scan below 1, not {asked}.")
    return margin


def check_options(
    store: Store, train: Part, extra_crops: int, per_patient: int | None, apart: float, tries: int
) -> None:
    """Refuse numbers that no discovery can have."""
    if not len(train.rows):
        raise ScanlearnError(f"The train part of {store.path.name} is empty: prepare it with patients to learn from.")
    for option, value, least, most in (
        ("--extra-crops", extra_crops, 0, 254),
        ("--tries", tries, 1, 1_000_000),
        ("--apart", apart, 0, 1_000_000),
        ("--per-patient", per_patient or 1, 1, 1_000_000),
    ):
        if not least <= value <= most:
            raise ScanlearnError(f"{option} must be from {least} to {most:,}, not {value:g}.")


def warn_of_axes(store: Store, rows: np.ndarray) -> None:
    """The same place of two volumes is the same anatomy only if their axes point the same way."""
    if store.spatial_dims != 3:
        return
    seen = set()
    for row in rows[:LOOKED_AT].tolist():
        axes = store.affine(row)[:3, :3]
        main = np.abs(axes).argmax(axis=0)
        seen.add((*main.tolist(), *np.sign(axes[main, range(3)]).astype(int).tolist()))
    if len(seen) > 1:
        warn(
            f"the scans' axes point {len(seen)} different ways, so that the same place is not the same anatomy: bring "
            "them to one orientation before `prepare`."
        )


def median_spacing(store: Store, rows: np.ndarray) -> tuple[float, ...]:
    """mm between voxels, the median of the first scans."""
    return tuple(np.median([store.spacing(row) for row in rows[:LOOKED_AT].tolist()], axis=0).tolist())
