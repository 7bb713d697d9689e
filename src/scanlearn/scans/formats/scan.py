"""What a scan is in memory."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from scanlearn.scans.geometry import spacing_of


@dataclass
class Scan:
    """One scan in memory.

    array: (C, *S), S = (row, column) as displayed, or (i, j, k); native dtype, or rescaled values (HU int16/float32).
    spacing: mm along each axis of S. affine: 4x4, indices -> RAS+ mm. modality: as the file says, "" if it does not.
    located: False where the file does not say where in space the scan lies, so that the affine is only a convention.
    notes: sentences without a subject that a person should see ("was taken with a tilted gantry ..."), free of names.
    """

    array: np.ndarray
    affine: np.ndarray = field(default_factory=lambda: np.eye(4))
    modality: str = ""
    source: str = ""
    located: bool = True
    notes: list[str] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, ...]:
        """The spatial shape S."""
        return self.array.shape[1:]

    @property
    def spacing(self) -> tuple[float, ...]:
        """mm between neighbours along each axis of S."""
        return spacing_of(self.affine, self.array.ndim - 1)
