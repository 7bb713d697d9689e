"""Does the anatomy recur? Crops of one word, in different patients, against crops of different words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from scanlearn.scans.intensity import to_unit
from scanlearn.scans.resample import resample
from scanlearn.scans.store import Store

CROPS = 400  # that are compared with each other
PER_WORD = 10
LONGEST = 32  # voxels per side at which they are compared: noise is no anatomy
AT_ONCE = 16


def recurrence(store: Store, columns: Mapping[str, np.ndarray], size: tuple[int, ...]) -> dict[str, Any]:
    """How alike the crops of a word are, on an even sample of training crops at base scale.

    Args:
        columns: the table of words.
        size: voxels of a crop.

    Returns:
        ``within``: mean normalised cross-correlation of pairs of one word and two patients; ``between``: of two words
        and two patients; ``own``: share of crops whose most similar crop of another patient is of their own word;
        ``chance``: that share if similarity told nothing; ``words``, ``crops``, ``size``: of the sample; ``by_word``:
        the words of the sample and ``within`` for each. None for what has no pairs.
    """
    at = sample(columns)
    rows, word = np.asarray(columns["row"][at], np.int64), np.asarray(columns["word"][at])
    shape = tuple(min(int(n), LONGEST) for n in size)
    vectors = _unit(store, rows, columns["start"][at], columns["side"][at], shape)
    patient = store.catalog.codes("patient_id")[rows]
    words = np.unique(word)
    figures = compare(vectors @ vectors.T, word, patient)
    by_word = [_mean(_within(vectors[word == w], patient[word == w])) for w in words]
    return {
        **figures,
        "words": len(words),
        "crops": len(at),
        "size": list(shape),
        "by_word": {"word": words.tolist(), "within": by_word},
    }


def compare(similarity: np.ndarray, word: np.ndarray, patient: np.ndarray) -> dict[str, float | None]:
    """``within``, ``between``, ``own`` and ``chance`` of a matrix of similarities (n, n)."""
    apart = patient[:, None] != patient
    same = word[:, None] == word
    among = np.where(apart, similarity, -np.inf)
    asked = (apart & same).any(axis=1) & (apart & ~same).any(axis=1)
    own = same[np.arange(len(word)), among.argmax(axis=1)][asked]
    share = (apart & same).sum(axis=1)[asked] / np.maximum(apart.sum(axis=1)[asked], 1)
    return {
        "within": _mean(similarity[apart & same]),
        "between": _mean(similarity[apart & ~same]),
        "own": _mean(own),
        "chance": _mean(share),
    }


def sample(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Lines of the table, ascending: training crops at base scale, evenly over words and over near and far patients."""
    base = np.flatnonzero((columns["part"] == 0) & (columns["scale"] == 0))
    word = np.asarray(columns["word"])[base]
    words = np.unique(word)
    kept = words[evenly(len(words), CROPS // PER_WORD)]
    chosen = []
    for w in kept:
        lines = base[word == w]
        lines = lines[np.argsort(columns["rank"][lines], kind="stable")]
        chosen.append(lines[evenly(len(lines), PER_WORD)])
    return np.sort(np.concatenate(chosen))


def evenly(count: int, wanted: int) -> np.ndarray:
    """At most ``wanted`` of 0..count-1, evenly, the first and the last among them."""
    return np.unique(np.rint(np.linspace(0, count - 1, min(count, wanted))).astype(np.int64))


def _unit(store: Store, rows: np.ndarray, start: np.ndarray, side: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """float32 (n, voxels): crops without their mean and of length 1, so that products are correlations; 0 if constant.

    Scan after scan, so that each is opened once.
    """
    vectors = np.zeros((len(rows), int(np.prod(shape))), np.float32)
    order = np.argsort(rows, kind="stable")
    for first in range(0, len(order), AT_ONCE):
        part = order[first : first + AT_ONCE]
        boxes = [(start[i], start[i] + side[i]) for i in part]
        low, high = (torch.from_numpy(bound) for bound in store.window(rows[part]))
        for k, (i, raw) in enumerate(zip(part, store.read(rows[part], boxes), strict=True)):
            crop = to_unit(torch.from_numpy(raw)[None], low[k : k + 1], high[k : k + 1]).mean(dim=1, keepdim=True)
            flat = resample(crop, shape).double().flatten()
            flat -= flat.mean()
            length = float(flat.norm())
            vectors[i] = (flat / length).numpy() if length > 1e-6 * len(flat) ** 0.5 else 0.0
    return vectors


def _within(vectors: np.ndarray, patient: np.ndarray) -> np.ndarray:
    similarity = vectors @ vectors.T
    return similarity[patient[:, None] != patient]


def _mean(values: np.ndarray) -> float | None:
    return round(float(np.mean(values, dtype=np.float64)), 4) if len(values) else None


def recurrence_line(found: Mapping[str, Any]) -> str:
    """The figures in one line for a person."""
    told = {key: "-" if found[key] is None else f"{found[key]:.2f}" for key in ("within", "between")}
    shares = {key: "-" if found[key] is None else f"{found[key]:.0%}" for key in ("own", "chance")}
    return (
        f"Does it recur? Crops of one word correlate by {told['within']} across patients, crops of different words by "
        f"{told['between']}; {shares['own']} of crops are most like one of their own word (chance {shares['chance']})."
    )
