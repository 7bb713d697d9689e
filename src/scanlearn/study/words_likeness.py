"""Whether anatomy recurs, in figures: how alike the crops of a word are across patients, and how alike those of others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from scanlearn.discovery.recurrence import compare
from scanlearn.study.figures import ACCENT, MUTED, STYLE, svg
from scanlearn.study.page import Panel, number, percent

EXTREMES = 5  # words whose crops are most, and least, alike
CLEARLY, SLIGHTLY = 0.25, 0.05  # correlation within words above that between them
FIGURES = ("within", "between", "own", "chance")


@dataclass(frozen=True)
class Likeness:
    """How alike the crops of the words on a page are: mean correlations, float64 (n,), NaN where there is no pair.

    ``within``: of two patients' crops of one word; ``between``: of another patient's crop of another word. ``overall``:
    what ``scanlearn.discovery.recurrence.compare`` says of all of them.
    """

    words: np.ndarray
    within: np.ndarray
    between: np.ndarray
    overall: dict[str, float | None]

    def of(self, word: int) -> tuple[float, float]:
        """(within, between) of one word."""
        (at,) = np.flatnonzero(self.words == word)
        return float(self.within[at]), float(self.between[at])


def likeness(crops: Mapping[int, tuple[np.ndarray, np.ndarray]]) -> Likeness:
    """Compare the crops of some words; each word has (unit vectors (n, d), patients int (n,)).

    A crop of one grey (a vector of NaN) is compared with nothing, and no patient with themselves.
    """
    vectors = np.concatenate([v for v, _ in crops.values()])
    patient = np.concatenate([p for _, p in crops.values()])
    word = np.repeat(list(crops), [len(v) for v, _ in crops.values()])
    known = np.isfinite(vectors).all(axis=1)
    vectors, patient, word = vectors[known], patient[known], word[known]
    similarity = vectors @ vectors.T
    apart, same = patient[:, None] != patient, word[:, None] == word
    within, between = (
        np.array([mean_of(similarity[word == one][pairs[word == one]]) for one in crops])
        for pairs in (apart & same, apart & ~same)
    )
    overall = compare(similarity, word, patient) if len(word) else dict.fromkeys(FIGURES)
    return Likeness(np.array(list(crops)), within, between, overall)


def mean_of(values: np.ndarray) -> float:
    """The mean, NaN of nothing."""
    return float(values.mean()) if values.size else float("nan")


def correlation(value: float | None) -> str:
    """A correlation as text, with a true minus sign and never a minus zero."""
    return number(None if value is None else round(value, 2) + 0.0, 2).replace("-", "\u2212")


def recurrence(measured: Any, found: Likeness | None) -> dict[str, float | None]:
    """The figures under ``FIGURES``: as discovery measured them, else as the page did, None where neither."""
    known = measured if isinstance(measured, Mapping) else found.overall if found is not None else {}
    return {name: known.get(name) for name in FIGURES}


def recurrence_sentence(told: Mapping[str, float | None]) -> str:
    """Whether the anatomy recurs, with the figures that say so; "" where nobody looked."""
    within, between, own, chance = (told[name] for name in FIGURES)
    if within is None or between is None:
        return ""
    gap = within - between
    verdict = "clearly more" if gap >= CLEARLY else "a little more" if gap >= SLIGHTLY else "hardly more"
    text = (
        f"Crops of one word are {verdict} alike than crops of different words: mean correlation {correlation(within)} "
        f"against {correlation(between)}"
    )
    if own is not None:
        text += f"; for {percent(own)} the most similar crop of another patient is of the same word"
        text += f" (by chance {percent(chance)})" if chance is not None else ""
    return f"{text}."


def likeness_panel(found: Likeness) -> Panel:
    """Each word as a dot: how alike its crops are, over how alike they are to those of other words."""
    known = np.isfinite(found.within) & np.isfinite(found.between)
    x, y = found.between[known], found.within[known]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.3, 2.6), layout="constrained")
        axes = figure.add_subplot()
        low, high = min([0.0, *x, *y]), max([0.2, *x, *y])
        axes.plot([low, high], [low, high], color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        axes.plot(x, y, "o", color=ACCENT, markersize=4.2, alpha=0.55, markeredgewidth=0)
        axes.set_xlabel("likeness to crops of other words")
        axes.set_ylabel("likeness within the word")
        words = f"Scatter plot of {known.sum()} words. {told(y, 'Within a word')} {told(x, 'To other words')}"
        above = f"{(y > x).sum()} of them are more alike within than to other words."
        picture = svg(figure, f"{words} {above}")
    note = "A dot is a word. Above the dashed line its crops are more alike than crops of different words."
    return Panel("How alike the crops are", picture, note)


def told(values: np.ndarray, what: str) -> str:
    """The range of some figures in words."""
    if not len(values):
        return f"{what}: not known."
    low, middle, high = (correlation(float(v)) for v in (values.min(), np.median(values), values.max()))
    return f"{what}: from {low} to {high}, median {middle}."


def extremes(found: Likeness) -> list[tuple[str, Sequence[int]]]:
    """The words whose crops are most and least alike, against their likeness to other words; none where there are few."""
    gap = found.within - found.between
    order = found.words[np.argsort(-gap, kind="stable")][: np.isfinite(gap).sum()]
    if len(order) < 2 * EXTREMES:
        return []
    return [("Most alike", order[:EXTREMES].tolist()), ("Least alike", order[::-1][:EXTREMES].tolist())]
