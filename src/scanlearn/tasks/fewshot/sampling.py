"""Drawing episodes so that no patient is in both the support and the query, across classes too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from scanlearn.catalog.labels import Labels
from scanlearn.errors import ScanlearnError, unknown
from scanlearn.scans.episodes import EpisodeSampler, groups_of
from scanlearn.scans.store import Store
from scanlearn.tasks.fewshot.episodes import Episodes, check

SHOTS = (1, 2, 5, 10)
MODES = ("resample", "official")


class Drawing(TypedDict, total=False):
    """How episodes are drawn, for who hands it on to ``draw_episodes``, which describes it."""

    ways: int
    queries: int
    episodes: int
    mode: str
    part: str
    per_patient: int
    strict: bool


def draw_episodes(
    store: Store,
    target: str,
    column: Labels,
    *,
    shots: Sequence[int] = SHOTS,
    seed: int = 0,
    without: np.ndarray | None = None,
    ways: int = 2,
    queries: int = 15,
    episodes: int = 600,
    mode: str = "resample",
    part: str = "test",
    per_patient: int = 1,
    strict: bool = False,
) -> Episodes:
    """Draw episodes; a function of the arguments and the store alone, and the first of many are those of few.

    How one is drawn says ``EpisodeSampler``; fewer shots are the start of more.

    Args:
        shots: numbers of images of each class in the support; the largest is drawn, the others are its start.
        without: bool (N,), scans of the store that are neither in the support nor asked about.
        ways: classes of an episode.
        queries: images of each class that are asked about.
        episodes: how many.
        mode: ``resample`` draws both from ``part``; ``official`` draws the support from the store's train part and asks
            about every labelled scan of its test part.
        part: train | val | test | all.
        per_patient: images of one patient in the support.
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
    if without is not None:
        rows = rows[~without[rows]]
        asked = None if asked is None else asked[~without[asked]]
    where = f"the {'train' if official else part} part" if part != "all" or official else "the store"
    sampler = EpisodeSampler(
        column.codes,
        column.classes,
        groups_of(store),
        rows,
        where,
        shots=max(shots),
        queries=queries,
        per_patient=per_patient,
        strict=strict,
        asked=asked,
    )
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
    } | ({} if without is None else {"left_out": int(without.sum())})
    classes, support = (np.stack([d[i] for d in drawn]) for i in (0, 1))
    made = Episodes(store.info["key"], target, column.classes, classes, support, query, settings)
    check(made, store, column)
    return made
