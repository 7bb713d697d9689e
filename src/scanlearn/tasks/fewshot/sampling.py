"""Drawing episodes so that no patient is in both the support and the query, across classes too."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scanlearn.catalog.labels import Labels
from scanlearn.errors import ScanlearnError, unknown
from scanlearn.scans.store import Store
from scanlearn.tasks.fewshot.episodes import Episodes, check, groups_of

MODES = ("resample", "official")


def draw_episodes(
    store: Store,
    target: str,
    column: Labels,
    *,
    ways: int = 2,
    shots: Sequence[int] = (1, 2, 5, 10),
    queries: int = 15,
    episodes: int = 600,
    mode: str = "resample",
    part: str = "test",
    per_patient: int = 1,
    strict: bool = False,
    seed: int = 0,
) -> Episodes:
    """Draw episodes; a function of the arguments and the store alone, and the first of many are those of few.

    Support: a random walk over the patients of each class, ``per_patient`` random images of each, until the largest
    number of shots is there; fewer shots are the start of the same walk. Query: one image of each patient that no class
    has in its support, then a second one of each, until ``queries`` a class; fewer where there are no more.

    Args:
        mode: ``resample`` draws both from ``part``; ``official`` draws the support from the store's train part and asks
            about every labelled scan of its test part.
        part: train | val | test | all.
        strict: refuse a class with fewer than ``queries`` images left instead of taking what there is.

    Raises:
        ScanlearnError: too few classes or patients; says of which class how many there are.
    """
    if mode not in MODES:
        raise unknown("mode", mode, MODES)
    if part not in ("train", "val", "test", "all"):
        raise unknown("part", part, ("train", "val", "test", "all"))
    if min(ways - 1, queries, episodes, per_patient, *shots) < 1 or not shots:
        raise ScanlearnError("Episodes need at least 2 ways, 1 shot, 1 query, 1 image per patient and 1 episode.")
    if ways > len(column.classes):
        raise ScanlearnError(f"{target!r} has {len(column.classes)} classes, too few for {ways} ways.")
    official = mode == "official"
    rows = np.arange(len(store)) if part == "all" and not official else store.splits["train" if official else part]
    asked = store.splits["test"] if official else None
    group = groups_of(store)
    where = f"the {'train' if official else part} part" if part != "all" or official else "the store"
    sampler = _Sampler(column, group, rows, asked, max(shots), queries, per_patient, strict, where)
    drawn = [sampler.draw(np.random.default_rng([seed, e]), ways) for e in range(episodes)]
    longest = max(len(rows) for _, _, query in drawn for rows in query)
    query = np.full((episodes, ways, longest), -1, np.int64)
    for e, (_, _, lists) in enumerate(drawn):
        for w, found in enumerate(lists):
            query[e, w, : len(found)] = found
    settings = {
        "mode": mode,
        "part": "train -> test" if official else part,
        "per_patient": per_patient,
        "queries": longest if official else queries,
        "seed": seed,
    }
    classes, support = (np.stack([d[i] for d in drawn]) for i in (0, 1))
    made = Episodes(store.info["key"], target, column.classes, classes, support, query, settings)
    check(made, store, column)
    return made


class _Sampler:
    def __init__(
        self,
        column: Labels,
        group: np.ndarray,
        rows: np.ndarray,
        asked: np.ndarray | None,
        shots: int,
        queries: int,
        per_patient: int,
        strict: bool,
        where: str,
    ):
        self.group, self.shots, self.queries, self.per_patient = group, shots, queries, per_patient
        self.strict, self.where, self.names = strict, where, column.classes
        of_class = lambda rows: [rows[column.codes[rows] == c] for c in range(len(column.classes))]  # noqa: E731
        self.rows = of_class(np.asarray(rows))
        self.asked = None if asked is None else of_class(np.asarray(asked))

    def draw(self, rng: np.random.Generator, ways: int) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """(classes (W,), support (W, K), W arrays of queries)."""
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
