"""What is kept of every tested case of a segmentation: its figures, as a table, and one slice, as a picture to be."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scanlearn.errors import ScanlearnError
from scanlearn.files import replacing
from scanlearn.tasks.segmentation_metrics import PER_CASE, by_convention

TABLE, SLICES = "cases.parquet", "examples.npz"
LONGEST = 256  # pixels of a kept slice; longer sides are thinned out


class KeptCases:
    """Writes cases.parquet and examples.npz into a folder; slices go to the file as they come, so memory holds one.

    ``with KeptCases(folder, classes) as kept: kept.add(...)``. The k-th case is row k of cases.parquet (``row``, its
    name in ``scan_id``, and every figure of every class) and ``image_k``, ``truth_k``, ``found_k``, ``row_k``,
    ``dice_k`` and, of a volume, ``affine_k`` of examples.npz. An error leaves the files of before.

    Args:
        classes: names, in the order of the cases' arrays.
        empty: the figures of empty masks, as ``segmentation_metrics`` takes it.
    """

    def __init__(self, folder: Path, classes: list[str], empty: str = "left_out"):
        self.folder, self.classes, self.empty = folder, classes, empty
        self.cases: list[dict[str, np.ndarray]] = []
        self._names: list[str] = []
        self._rows: list[int] = []
        self._open = ExitStack()

    def __enter__(self) -> Self:
        temporary = self._open.enter_context(replacing(self.folder / SLICES))
        self._slices = self._open.enter_context(zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED))
        return self

    def __exit__(self, *error: Any) -> None:
        if error[0] is not None:
            self._open.__exit__(*error)
            return
        with self._open:
            self._write_table()

    def add(
        self,
        name: str,
        row: int,
        case: dict[str, np.ndarray],
        image: np.ndarray,
        truth: np.ndarray,
        found: np.ndarray,
        affine: np.ndarray,
    ) -> None:
        """One case: what ``segmentation_case`` gave, image in [0, 1] and integer masks (*S), affine voxel -> RAS+ mm."""
        k = len(self.cases)
        case = by_convention(case, self.empty)
        dice = float(np.nanmean(case["dice"])) if np.isfinite(case["dice"]).any() else 1.0
        volume = image.ndim == 3
        image, truth, found = (thinned(part) for part in example_slice(image, truth, found))
        parts = {"image": (image * 255).astype(np.uint8), "truth": truth, "found": found}
        parts |= {"row": np.array(row), "dice": np.array(dice)}
        if volume:
            parts["affine"] = np.asarray(affine, np.float64)
        for word, array in parts.items():
            with self._slices.open(f"{word}_{k}.npy", "w") as file:
                np.lib.format.write_array(file, np.asarray(array, order="C"), allow_pickle=False)  # 0-d stays 0-d
        self.cases.append(case)
        self._names.append(name)
        self._rows.append(row)

    def _write_table(self) -> None:
        columns: dict[str, Any] = {"scan_id": self._names, "row": self._rows}
        for figure in PER_CASE:
            for i, name in enumerate(self.classes):
                columns[f"{figure}_{name}"] = np.array([case[figure][i] for case in self.cases], np.float64)
        with replacing(self.folder / TABLE) as temporary:
            pq.write_table(pa.table(columns), temporary)


@contextmanager
def open_slices(folder: Path) -> Iterator[tuple[pa.Table, Any]]:
    """The table of a folder's cases, and their slices by the names that ``KeptCases`` gave them, while they are read.

    Raises ScanlearnError, also for what is read inside the ``with``, where they are damaged or lack a case.
    """
    try:
        table = pq.read_table(folder / TABLE)
        with np.load(folder / SLICES, allow_pickle=False) as kept:
            yield table, kept
    except (KeyError, ValueError, zipfile.BadZipFile, zlib.error, pa.ArrowException) as error:
        raise ScanlearnError(
            f"{TABLE} or {SLICES} in {folder.name} is damaged, or of another version of scanlearn: test again into a new "
            "folder."
        ) from error


def example_slice(image: np.ndarray, truth: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The slice (last axis) with most of the reference, of the prediction where there is none; 2D is its own slice."""
    if image.ndim == 2:
        return image, truth, found
    drawn = truth if truth.any() else found
    best = int((drawn > 0).sum(axis=(0, 1)).argmax()) if drawn.any() else image.shape[-1] // 2
    return image[..., best], truth[..., best], found[..., best]


def thinned(slice_: np.ndarray) -> np.ndarray:
    """Every n-th row and column, so that no side is longer than ``LONGEST``."""
    step = -(-max(slice_.shape) // LONGEST)
    return slice_[::step, ::step]
