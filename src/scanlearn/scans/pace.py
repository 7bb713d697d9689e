"""How many samples of the walk over a data set each step takes, where the batch changes its size on the way."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from scanlearn.errors import ScanlearnError


class Pace:
    """Batches of one size, or of sizes written as (first step, size), in order, the first step of all being 0.

    >>> pace = Pace([(0, 8), (3, 2)])
    >>> [pace.size(step) for step in range(5)], [pace.before(step) for step in range(5)]
    ([8, 8, 8, 2, 2], [0, 8, 16, 24, 26])
    """

    def __init__(self, batch_size: int | Sequence[tuple[int, int]]):
        changes = [(0, batch_size)] if isinstance(batch_size, int) else list(batch_size)
        self._first = [first for first, _ in changes]
        self.sizes = [size for _, size in changes]
        if self._first != sorted(set(self._first)) or self._first[0] != 0:
            raise ValueError(f"batch sizes begin at the steps {self._first}, which must rise from 0")
        self._walked = [0]
        for (first, size), (end, _) in pairwise(changes):
            self._walked.append(self._walked[-1] + (end - first) * size)

    def size(self, step: int) -> int:
        """Samples in the global batch of this step."""
        return self.sizes[bisect_right(self._first, step) - 1]

    def before(self, step: int) -> int:
        """Samples in all batches before this step."""
        part = bisect_right(self._first, step) - 1
        return self._walked[part] + (step - self._first[part]) * self.sizes[part]

    def positions(self, step: int, rank: int, world_size: int) -> np.ndarray:
        """int64 (n,): which places of the global batch a rank owns, one of ``world_size`` equal chunks."""
        share = self.size(step) // world_size
        return np.arange(rank * share, (rank + 1) * share)

    def check(self, world_size: int) -> None:
        """Refuse a batch that ranks cannot share."""
        for size in self.sizes:
            if size % world_size:
                raise ScanlearnError(f"A batch of {size} cannot be shared by {world_size} ranks; use a multiple of it.")
