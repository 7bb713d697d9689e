"""Episodes: a few labelled scans of each of some classes, and others that are asked about, apart by patient.

Training walks over them (``EpisodeWalk``), few-shot diagnosis draws and keeps them (``tasks/fewshot``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scanlearn.catalog.groups import first_seen, patient_groups
from scanlearn.errors import ScanlearnError
from scanlearn.keys import key_of
from scanlearn.scans.store import Store


def groups_of(store: Store) -> np.ndarray:
    """int64 (N,): the patient of each scan, those who share a file taken together; numbered as they first appear."""
    return first_seen(patient_groups(store.catalog).of_row)


class EpisodeSampler:
    """Draws one episode, so that no patient is in both its support and its query, across classes too.

    Support: a random walk over the patients of each class, ``per_patient`` random images of each, until ``shots`` are
    there; fewer shots are the start of the same walk. Query: one image of each patient that no class has in its
    support, then a second one of each, until ``queries`` a class; fewer where there are no more.

    Args:
        codes: int (N,), the class of each scan, an index into ``names``, or -1.
        group: int64 (N,), whose it is.
        rows: those that are drawn from.
        where: what they are, for sentences: "the test part".
        asked: the rows that every episode asks about; None draws the query from ``rows``.
        strict: refuse a class with fewer than ``queries`` images left instead of taking what there is.
    """

    def __init__(
        self,
        codes: np.ndarray,
        names: Sequence[str],
        group: np.ndarray,
        rows: np.ndarray,
        where: str,
        *,
        shots: int,
        queries: int,
        per_patient: int = 1,
        strict: bool = False,
        asked: np.ndarray | None = None,
    ):
        self.group, self.shots, self.queries, self.per_patient = group, shots, queries, per_patient
        self.strict, self.where, self.names = strict, where, names
        of_class = lambda rows: [rows[codes[rows] == c] for c in range(len(names))]  # noqa: E731
        self.rows = of_class(np.asarray(rows))
        self.asked = None if asked is None else of_class(np.asarray(asked))

    def draw(self, rng: np.random.Generator, ways: int) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """(classes (W,) rising, support (W, K), W arrays of queries), all rows.

        Raises:
            ScanlearnError: too few patients; says of which class how many there are.
        """
        classes = np.sort(rng.permutation(len(self.names))[:ways])
        support = np.stack([self._support(rng, c) for c in classes])
        if self.asked is not None:
            return classes, support, [self._enough(self.asked[c], c, "the test part") for c in classes]
        used = self.group[support.ravel()]
        free = [self.rows[c][~np.isin(self.group[self.rows[c]], used)] for c in classes]
        return classes, support, [self._query(rng, rows, c) for rows, c in zip(free, classes, strict=True)]

    def _support(self, rng: np.random.Generator, c: int) -> np.ndarray:
        place, turn, rows = self._walk(rng, self.rows[c])
        order = np.lexsort((turn, place))
        chosen = rows[order][turn[order] < self.per_patient][: self.shots]
        if len(chosen) < self.shots:
            patients = len(np.unique(self.group[self.rows[c]]))
            raise ScanlearnError(
                f"The class {self.names[c]!r} has {patients} patients in {self.where}, which give {len(chosen)} of "
                f"{self.shots} shots: ask for fewer shots, more images of each patient (--per-patient) or --part all."
            )
        return chosen

    def _query(self, rng: np.random.Generator, rows: np.ndarray, c: int) -> np.ndarray:
        place, turn, rows = self._walk(rng, rows)
        return self._enough(rows[np.lexsort((place, turn))][: self.queries], c, self.where)

    def _enough(self, rows: np.ndarray, c: int, where: str) -> np.ndarray:
        short = self.strict and self.asked is None and len(rows) < self.queries
        if len(rows) == 0 or short:
            raise ScanlearnError(
                f"The class {self.names[c]!r} has {len(rows)} scans in {where} for queries, of patients outside the "
                "support: ask for fewer shots or queries, or take --part all."
            )
        return rows

    def _walk(self, rng: np.random.Generator, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(place of each row's patient in a random order, which image of the patient it is, rows), all (n,)."""
        rows = rows[rng.permutation(len(rows))]
        _, patient = np.unique(self.group[rows], return_inverse=True)
        place = rng.permutation(int(patient.max(initial=-1)) + 1)[patient]
        order = np.argsort(place, kind="stable")
        first = np.searchsorted(place[order], place[order])  # where the patient's images start
        turn = np.empty(len(rows), np.int64)
        turn[order] = np.arange(len(rows)) - first
        return place, turn, rows


class EpisodeWalk:
    """An endless walk over scans in episodes: episode e is a function of (seed, e) alone.

    It takes ``size`` = ways * (shots + queries) samples: first the support, way by way, then the queries, way by way.

    Args:
        codes: int64 (n,), the class of each entry that is walked over, an index into ``names``.
        group: int64 (n,), whose it is.
        names: the base classes.

    Raises:
        ScanlearnError: more ways than classes, or a class that might not fill its queries in some episode.
    """

    def __init__(
        self,
        codes: np.ndarray,
        group: np.ndarray,
        names: Sequence[str],
        *,
        ways: int,
        shots: int,
        queries: int,
        seed: int,
    ):
        if not 2 <= ways <= len(names):
            raise ScanlearnError(
                f"Episodes of {ways} ways cannot be drawn from {len(names)} classes: set episodes.ways to 2 to {len(names)}."
            )
        self.ways, self.seed = ways, seed
        self.size = ways * (shots + queries)
        for c, name in enumerate(names):
            _refuse_too_few(codes, group, c, name, ways, shots, queries)
        rows = np.arange(len(codes))
        self.sampler = EpisodeSampler(
            codes, names, group, rows, "the training scans", shots=shots, queries=queries, strict=True
        )

    def items(self, times: np.ndarray) -> np.ndarray:
        """int64, shape of ``times``: which entry each of these samples is."""
        episode, place = np.divmod(times, self.size)
        items = np.empty(times.shape, np.int64)
        for e in np.unique(episode):
            now = episode == e
            items[now] = self.episode(int(e))[place[now]]
        return items

    def episode(self, e: int) -> np.ndarray:
        """int64 (size,): the entries of episode e, in order."""
        rng = np.random.Generator(np.random.Philox(key=np.array([key_of(self.seed, "episode"), e], np.uint64)))
        _, support, queries = self.sampler.draw(rng, self.ways)
        return np.concatenate([support.ravel(), *queries])


def _refuse_too_few(
    codes: np.ndarray, group: np.ndarray, c: int, name: str, ways: int, shots: int, queries: int
) -> None:
    """Whatever patients an episode takes for its supports, the class must have its queries left."""
    patients, images = np.unique(group[codes == c], return_counts=True)
    shared = int(np.isin(patients, group[(codes >= 0) & (codes != c)]).sum())
    taken = shots + min(shared, shots * (ways - 1))  # by its own support, and by those of other classes
    left = int(np.sort(images)[: max(len(images) - taken, 0)].sum())
    if len(patients) < shots or left < queries:
        raise ScanlearnError(
            f"The class {name!r} has {len(patients)} patients with {int(images.sum())} training scans; an episode may leave "
            f"{left} of these for {queries} queries: ask for fewer shots or queries, or leave the class out with --classes."
        )
