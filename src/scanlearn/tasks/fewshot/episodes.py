"""Episodes of few-shot diagnosis as row indices of a store: drawn once, saved, and used for everything compared.

Nothing here names a patient: a file of episodes holds rows and the content key of the store that they count in.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scanlearn.catalog.labels import Labels
from scanlearn.errors import ScanlearnError
from scanlearn.files import read_json, to_json, write_atomic
from scanlearn.scans.episodes import groups_of
from scanlearn.scans.store import Store

VERSION = 1
FILE = "episodes.json"  # beside the results


@dataclass(frozen=True)
class Episodes:
    """E episodes of W ways. The k-shot episode takes the first k support rows of each class.

    Attributes:
        store: content key of the store that the rows count in.
        target: the label column; ``names``: its classes, to which ``classes`` points.
        classes: int64 (E, W), the classes of each episode, rising.
        support: int64 (E, W, K), rows of each class for the largest number of shots K.
        query: int64 (E, W, Q), rows of each class; -1 where a class has fewer than Q.
        settings: how they were drawn (plain JSON).
    """

    store: str
    target: str
    names: list[str]
    classes: np.ndarray
    support: np.ndarray
    query: np.ndarray
    settings: dict[str, Any]

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def ways(self) -> int:
        return int(self.classes.shape[1])

    @property
    def most_shots(self) -> int:
        return int(self.support.shape[2])

    def rows(self) -> np.ndarray:
        """int64 (n,): every row that occurs, sorted."""
        found = np.unique(np.concatenate([self.support.ravel(), self.query.ravel()]))
        return found[found >= 0]

    def save(self, path: str | Path) -> None:
        """Write them as JSON: rows, settings, the store's key; queries that all episodes share stand there once."""
        official = self.settings["mode"] == "official"
        flat = zip(self.classes.ravel(), self.query.reshape(-1, self.query.shape[2]), strict=True)
        queries = {int(c): rows[rows >= 0] for c, rows in flat} if official else {}
        episodes = [
            {"classes": at.tolist(), "support": support.tolist()}
            | ({} if official else {"query": [rows[rows >= 0].tolist() for rows in query]})
            for at, support, query in zip(self.classes, self.support, self.query, strict=True)
        ]
        data = {
            "version": VERSION,
            "store": self.store,
            "target": self.target,
            "names": self.names,
            "settings": self.settings,
            "query_of_class": {str(c): queries[c].tolist() for c in sorted(queries)} if official else None,
            "episodes": episodes,
        }
        write_atomic(Path(path), to_json(data) + "\n")


def load_episodes(path: str | Path, store: Store, column: Labels) -> Episodes:
    """Read what ``Episodes.save`` wrote, and check it against the store and its labels.

    Raises:
        ScanlearnError: the file is damaged or was made for another store, or ``check`` refuses what it says.
    """
    what = f"{path} (episodes)"
    data = read_json(Path(path), what)
    if data.get("version") != VERSION:
        raise ScanlearnError(f"{what} has version {data.get('version')!r}; this scanlearn reads version {VERSION}.")
    if data.get("store") != store.info["key"]:
        raise ScanlearnError(f"{what} was made for another store: its rows would be other scans here; draw new ones.")
    try:
        shared = data["query_of_class"]
        episodes = data["episodes"]
        classes = _whole([e["classes"] for e in episodes], 2)
        support = _whole([e["support"] for e in episodes], 3)
        query = [[shared[str(c)] for c in e["classes"]] if shared else e["query"] for e in episodes]
        loaded = Episodes(
            data["store"], data["target"], data["names"], classes, support, padded(query), data["settings"]
        )
        if loaded.classes.shape != loaded.support.shape[:2] or loaded.classes.shape != loaded.query.shape[:2]:
            raise ValueError("episodes of different sizes")
        if loaded.settings["mode"] not in ("resample", "official"):
            raise ValueError("an unknown mode")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ScanlearnError(f"{what} is damaged ({error}); draw new ones.") from error
    if loaded.names != column.classes:
        raise ScanlearnError(f"{what} tells {loaded.names} apart, and you ask for {column.classes}: ask for the same.")
    check(loaded, store, column)
    return loaded


def check(episodes: Episodes, store: Store, column: Labels) -> None:
    """Refuse episodes with rows of another class, or with a patient (or a file) in both support and query."""
    for rows in (episodes.support, episodes.query):
        there = rows >= 0
        if rows.size == 0 or rows.min() < -1 or rows.max() >= len(store) or not there.any(axis=2).all():
            raise ScanlearnError(
                "The episodes name rows that the store has not, or a class without any; draw new ones."
            )
        truth = np.broadcast_to(episodes.classes[:, :, None], rows.shape)
        if (column.codes[rows[there]] != truth[there]).any():
            raise ScanlearnError("The episodes put scans into other classes than the store does; draw new ones.")
    if (episodes.support < 0).any():
        raise ScanlearnError("The episodes lack scans in their support; draw new ones.")
    group = groups_of(store)
    count = int(group.max()) + 1
    base = np.arange(len(episodes))[:, None] * count
    support = group[episodes.support.reshape(len(episodes), -1)] + base
    rows = episodes.query.reshape(len(episodes), -1)
    query = (group[rows] + base)[rows >= 0]
    if np.isin(query, support).any():
        raise ScanlearnError("An episode has a patient in both its support and its query; draw new ones.")


def padded(lists: Any) -> np.ndarray:
    """int64 (E, W, Q) of lists of rows, filled up with -1."""
    ways = {len(row) for row in lists}
    if len(ways) != 1:
        raise ValueError("episodes of different sizes")
    longest = max(len(part) for row in lists for part in row)
    out = np.full((len(lists), ways.pop(), longest), -1, np.int64)
    for e, row in enumerate(lists):
        for w, part in enumerate(row):
            out[e, w, : len(part)] = _whole(part, 1)
    return out


def _whole(values: Any, dims: int) -> np.ndarray:
    array = np.array(values)
    if array.ndim != dims or array.dtype.kind != "i":
        raise ValueError("rows that are no whole numbers, or lists of different lengths")
    return array.astype(np.int64)
