"""Diagrams of a study: figures over label counts with bands, differences to the twin, mean ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator

from scanlearn.study.figures import COLOURS, INK, MARKERS, MUTED, STYLE, one_row_each, plottable, short, svg
from scanlearn.study.page import Picture, spoken


def colours_of(methods: Sequence[str]) -> dict[str, str]:
    """One colour for each method, the same in every diagram of a page."""
    return {method: COLOURS[i % len(COLOURS)] for i, method in enumerate(methods)}


def label_figure(facts: Mapping[str, Any], means: Mapping[str, Any], *, name: str) -> Picture:
    """The mean of each method over label counts (logarithmic), its 95 % band, and every seed as a dot."""
    counts = [(str(entry["asked"]), entry["scans"]) for entry in facts["labels"]]
    colours = colours_of(facts["methods"])
    words = []
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.4, 3.0), layout="constrained")
        axes = figure.add_subplot()
        shown = [m for m in facts["methods"] if any(m in means.get(count, {}) for count, _ in counts)]
        for i, method in enumerate(shown):
            points = [(scans, means[c][method]) for c, scans in counts if method in means.get(c, {})]
            # Beside each other, not on each other: the marks of one label count stand in the order of the methods.
            x = np.array([scans for scans, _ in points]) * 1.035 ** (i - (len(shown) - 1) / 2)
            value, low, high = (np.array([plottable(f[key]) for _, f in points]) for key in ("value", "low", "high"))
            style: Any = {"color": colours[method], "marker": MARKERS[i % len(MARKERS)], "markersize": 5}
            axes.errorbar(
                x, value, (value - low, high - value), capsize=2.5, elinewidth=1, label=short(method, 30), **style
            )
            for at, (_, found) in zip(x, points, strict=True):
                seeds = list(found["by_seed"].values())
                axes.plot([at] * len(seeds), seeds, "_", color=colours[method], alpha=0.55, markersize=5, zorder=2)
            words += [_words(method, scans, found) for scans, found in points]
        if len(counts) > 1:
            axes.set_xscale("log")
        axes.set_xticks([scans for _, scans in counts], [f"{scans:,}" for _, scans in counts])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("labelled scans")
        axes.set_ylabel(name)
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, borderaxespad=0.1, columnspacing=1.2)
        return svg(figure, f"{name} over the number of labelled scans, with 95 % intervals. " + " ".join(words))


def _words(method: str, scans: int, found: Mapping[str, Any]) -> str:
    return f"{method}, {scans:,} labels: {spoken(found)}."


def difference_figure(rows: Sequence[tuple[str, Mapping[str, Any]]], *, name: str) -> Picture:
    """The difference of each (label, ``{"value", "low", "high"}``) to its twin from scratch; the line is no difference."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.4, 0.8 + 0.3 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        for i, (_, found) in enumerate(rows):
            value, low, high = (plottable(found[key]) for key in ("value", "low", "high"))
            # Filled where the interval leaves 0 out, so that it can be seen without colour.
            clear = bool(low > 0 or high < 0)
            axes.plot([low, high], [i, i], color=COLOURS[0], linewidth=2.2, alpha=0.5)
            axes.plot(
                [value], [i], "o", color=COLOURS[0], markersize=6, markerfacecolor=COLOURS[0] if clear else "white"
            )
        axes.axvline(0, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        one_row_each(axes, [short(label, 34) for label, _ in rows], f"difference in {name}, 95 % interval")
        told = [f"{label}: {spoken(found)}." for label, found in rows]
        return svg(figure, f"Difference in {name} to the twin from scratch. " + " ".join(told))


def ranks_figure(ranks: Mapping[str, Any]) -> Picture:
    """Mean ranks on a line, best to the left; bars join methods that do not differ (critical-difference diagram)."""
    names, places = list(ranks["ranks"]), list(ranks["ranks"].values())
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.4, 1.1 + 0.24 * len(names) + 0.12 * len(ranks["groups"])), layout="constrained")
        axes = figure.add_subplot()
        bars = len(ranks["groups"])
        for i, (name, place) in enumerate(zip(names, places, strict=True)):
            height = -(bars + 1) * 0.5 - i
            axes.plot([place, place], [0, height], color=MUTED, linewidth=0.9)
            axes.plot([place], [0], "o", color=COLOURS[0], markersize=5)
            axes.annotate(
                f"{short(name, 30)}  {place:.2f}",
                (place, height),
                va="center",
                xytext=(5, 0),
                textcoords="offset points",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},  # the lines of others pass behind
            )
        for i, group in enumerate(ranks["groups"]):
            ends = [ranks["ranks"][name] for name in group]
            axes.plot([min(ends) - 0.04, max(ends) + 0.04], [-(i + 1) * 0.5] * 2, color=INK, linewidth=4)
        axes.set_xlim(0.8, len(names) + 1.1)
        axes.set_xticks(range(1, len(names) + 1))
        axes.xaxis.tick_top()
        axes.set_yticks([])
        axes.grid(False)
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
        groups = "; ".join(", ".join(group) for group in ranks["groups"]) or "none"
        told = ", ".join(f"{name} {place:.2f}" for name, place in ranks["ranks"].items())
        return svg(figure, f"Mean ranks, 1 is best: {told}. Methods that do not differ from each other: {groups}.")
