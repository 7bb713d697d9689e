"""Diagrams as small vector pictures with a sentence beside each, for those who cannot see it.

They are drawn small (about 300 points wide), so that their letters are still readable where a phone shrinks them.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from scanlearn.study.page import Picture, percent, spoken

INK, MUTED, RULE, ACCENT = "#1b2126", "#5a6570", "#d9dee2", "#0b6272"
# The accent first, then colours that stay apart for colour-blind readers; each class also has its own marker.
COLOURS = (ACCENT, "#d97b17", "#7b4ea3", "#7d9b1f", "#c33c60", "#4a7ad1", "#8a6a4a", "#6d7881")
MARKERS = "osD^vP*X"
LONGEST_NAME, MOST_POINTS = 22, 400
_FONT = "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif"

STYLE: Any = {
    "font.size": 8.5,
    "text.color": INK,
    "text.parse_math": False,  # a class may be called "$x$"
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#edf0f2",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.fonttype": "none",  # letters stay letters
    "svg.hashsalt": "scanlearn",
}


class Line(NamedTuple):
    """One line of a diagram: y over x, both (n,); None and NaN leave a gap."""

    label: str
    x: Sequence[float]
    y: Sequence[float | None]


def short(name: str, length: int = LONGEST_NAME) -> str:
    """A name that fits beside a diagram."""
    return name if len(name) <= length else name[: length - 1] + "…"


def svg(figure: Figure, alt: str) -> Picture:
    """The diagram as a picture. Takes the maker's marks out, so that equal diagrams are equal bytes."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"(font: (?:\w+ )*[\d.]+px|font-family:) [^;\"]+", rf"\1 {_FONT}", text)
    source = "data:image/svg+xml;base64," + base64.b64encode(text.encode()).decode()
    width, height = figure.get_size_inches() * 96
    return Picture(source, alt, round(width), round(height))


def _axes(width: float, height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def curve_figure(
    lines: Sequence[Line],
    *,
    x_label: str = "step",
    percent: bool = False,
    zero: bool = False,
    reference: float | None = None,
    name: str = "",
) -> Picture:
    """Lines over steps, the first in the accent colour; a logarithmic axis where they span more than three decades.

    ``percent``: the axis goes from 0 to 100 %; ``zero``: it begins at 0. ``reference`` draws a dashed line (0.5 is
    guessing for an AUROC); ``name`` is what a single line shows, for the alt text. Long logs are averaged into at most
    400 points.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes(3.3, 2.05 if len(lines) == 1 else 2.25)
        lowest, highest = np.inf, -np.inf
        for i, line in enumerate(lines):
            x, y = thinned(line)
            lone = {"marker": "o", "markersize": 3.5} if np.isfinite(y).sum() <= 12 else {}
            axes.plot(x, y, color=COLOURS[i % len(COLOURS)], label=short(line.label), zorder=5 - i * 0.1, **lone)
            if np.isfinite(y).any():
                lowest, highest = min(lowest, np.nanmin(y)), max(highest, np.nanmax(y))
        if lowest > 0 and highest > 1000 * lowest and not (zero or percent):
            axes.set_yscale("log")
        else:
            axes.yaxis.set_major_locator(MaxNLocator(4))
        if zero:
            axes.set_ylim(bottom=0)
        if percent:
            axes.set_ylim(0, 1)
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol="\u00a0%"))
        if reference is not None:
            axes.axhline(reference, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        steps = sorted({x for line in lines for x in line.x})
        if len(steps) > 1:
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        else:
            axes.set_xticks(steps)
        axes.set_xlabel(x_label)
        if len(lines) > 1:
            _legend_above(axes)
        return svg(figure, curve_words(lines, x_label, name))


def _legend_above(axes: Any, columns: int = 2) -> None:
    handles, labels = axes.get_legend_handles_labels()
    place = {"loc": "lower left", "bbox_to_anchor": (-0.02, 1.0), "borderaxespad": 0.1}
    axes.legend(handles, labels, ncols=columns, handlelength=1.2, columnspacing=1.2, **place)


def thinned(line: Line) -> tuple[np.ndarray, np.ndarray]:
    """x and y as float64, averaged over neighbours where there are more points than a small diagram shows."""
    x = np.asarray(line.x, np.float64)
    y = np.array([np.nan if value is None else value for value in line.y], np.float64)
    if len(x) <= MOST_POINTS:
        return x, y
    groups = np.array_split(np.arange(len(x)), MOST_POINTS)
    known = [g[np.isfinite(y[g])] for g in groups]
    return np.array([x[g].mean() for g in groups]), np.array([y[g].mean() if len(g) else np.nan for g in known])


def curve_words(lines: Sequence[Line], x_label: str, name: str = "") -> str:
    """A diagram of lines in words: where each begins and ends, and its extremes."""
    words = []
    for line in lines:
        known = [(x, y) for x, y in zip(line.x, line.y, strict=True) if y is not None and np.isfinite(y)]
        label = line.label if len(lines) > 1 or not name else name
        if not known:
            words.append(f"{label}: nothing was measured.")
            continue
        values = [y for _, y in known]
        if len(known) == 1:
            words.append(f"{label}: {_plain(values[0])} at {x_label} {known[0][0]:,.0f}.")
            continue
        (x0, y0), (x1, y1) = known[0], known[-1]
        words.append(
            f"{label}: from {_plain(y0)} at {x_label} {x0:,.0f} to {_plain(y1)} at {x_label} {x1:,.0f}, "
            f"lowest {_plain(min(values))}, highest {_plain(max(values))}."
        )
    return "Line chart. " + " ".join(words)


def _plain(value: float) -> str:
    return f"{value:,.4g}"


Curves = Mapping[str, tuple[np.ndarray, np.ndarray]]


def roc_figure(curves: Curves, points: Mapping[str, tuple[float, float]]) -> Picture:
    """Receiver operating characteristics: name -> (false alarms, sensitivity), each (n,) rising in [0, 1].

    ``points`` marks the chosen working point of a curve.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes(3.3, 3.3 + 0.17 * ((len(curves) + 1) // 2))
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
        for i, (name, (false_alarms, found)) in enumerate(curves.items()):
            keep = np.unique(np.linspace(0, len(found) - 1, MOST_POINTS).astype(int))
            colour = COLOURS[i % len(COLOURS)]
            axes.plot(false_alarms[keep], found[keep], color=colour, label=short(name), zorder=5)
            if name in points:
                axes.plot(*points[name], "o", color=colour, markersize=7, markeredgecolor="white", zorder=6)
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
        axes.set_xlabel("false alarms (1 − specificity)")
        axes.set_ylabel("found (sensitivity)")
        if len(curves) > 1:
            _legend_above(axes)
        return svg(figure, roc_words(curves, points))


def roc_words(curves: Curves, points: Mapping[str, tuple[float, float]]) -> str:
    """ROC curves in words."""
    words = ["ROC curves on the test part."]
    for name, (alarms, found) in curves.items():
        words.append(f"{name}: at 10 % false alarms {percent(float(np.interp(0.1, alarms, found)))} are found.")
    for name, (alarm, hit) in points.items():
        words.append(f"Chosen working point of {name}: {percent(hit)} found, {percent(alarm)} false alarms.")
    return " ".join(words)


def interval_figure(
    rows: Sequence[tuple[str, dict[str, Any]]], *, name: str, reference: float | None = None
) -> Picture:
    """A dot and its interval for each (label, ``{"value", "low", "high"}``), the last one a summary, top to bottom."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes(3.3, 0.75 + 0.3 * len(rows))
        for i, (_, figures) in enumerate(rows):
            value, low, high = (plottable(figures.get(key)) for key in ("value", "low", "high"))
            last = i == len(rows) - 1 and len(rows) > 1
            colour = INK if last else ACCENT
            axes.plot([low, high], [i, i], color=colour, linewidth=2.2, alpha=0.45)
            axes.plot([value], [i], "D" if last else "o", color=colour, markersize=6)
        if reference is not None:
            axes.axvline(reference, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        one_row_each(axes, [short(label) for label, _ in rows], f"{name}, 95 % interval")
        words = [f"{label} {spoken(found)}." for label, found in rows]
        return svg(figure, f"{name} with 95 % intervals. " + " ".join(words))


def one_row_each(axes: Any, labels: Sequence[str], x_label: str) -> None:
    """Rows 0, 1, ... from top to bottom with their names, over a numbered axis."""
    axes.set_yticks(range(len(labels)), labels, color=INK)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.grid(False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel(x_label)


def plottable(value: Any) -> float:
    """A figure for a diagram: NaN, which leaves a gap, for what is not known."""
    return float("nan") if value is None else float(value)


def dots_figure(groups: Mapping[str, np.ndarray], *, name: str, each: str = "case") -> Picture:
    """Every ``each`` as a dot, one row for each group, the median as a bar; at most 400 dots of a row are drawn."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes(3.3, 0.85 + 0.42 * len(groups))
        generator = np.random.default_rng(0)
        words = []
        for i, (label, values) in enumerate(groups.items()):
            known = np.sort(values[np.isfinite(values)])
            if not len(known):
                words.append(f"{label}: none has a figure.")
                continue
            shown = known[np.unique(np.linspace(0, len(known) - 1, MOST_POINTS).astype(int))]
            heights = i + generator.uniform(-0.24, 0.24, len(shown))
            axes.plot(shown, heights, "o", color=ACCENT, markersize=3.6, alpha=0.45, markeredgewidth=0)
            median = float(np.median(known))
            axes.plot([median, median], [i - 0.36, i + 0.36], color=INK, linewidth=2)
            words.append(f"{label}: {len(known)} from {known[0]:.2f} to {known[-1]:.2f}, median {median:.2f}.")
        axes.set_yticks(range(len(groups)), [short(label) for label in groups], color=INK)
        axes.set(ylim=(len(groups) - 0.5, -0.5), xlim=(-0.02, 1.02))
        axes.grid(False, axis="y")
        axes.set_xlabel(f"{name}, bar: median")
        return svg(figure, f"{name} of each {each}. " + " ".join(words))


def map_figure(points: np.ndarray, groups: Sequence[str], shares: Sequence[float], *, what: str) -> Picture:
    """Points (n, 2) coloured, and shaped, by their group (n,). ``shares``: of the variance that each axis holds.

    More groups than there are colours: the largest keep theirs, the rest is called "other".
    """
    names, counts = np.unique(np.asarray(groups), return_counts=True)
    kept = [str(names[i]) for i in np.argsort(-counts, kind="stable")[: len(COLOURS) - 1]]
    if len(names) == len(COLOURS):
        kept = [str(names[i]) for i in np.argsort(-counts, kind="stable")]
    shown = np.array([group if group in kept else "other" for group in groups])
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes(3.9, 3.5)
        for i, name in enumerate([*kept, *(["other"] if "other" in shown and "other" not in kept else [])]):
            at = points[shown == name]
            style = {"s": 17, "alpha": 0.75, "linewidths": 0, "color": COLOURS[i % len(COLOURS)]}
            axes.scatter(*at.T, marker=MARKERS[i % len(MARKERS)], label=f"{short(name)} ({len(at)})", **style)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.grid(False)
        axes.set_xlabel(f"first direction, {percent(shares[0])} of the spread")
        axes.set_ylabel(f"second direction, {percent(shares[1])}")
        _legend_above(axes, columns=3)
        words = ", ".join(f"{name} {count}" for name, count in zip(names, counts, strict=True))
        return svg(figure, f"Scatter plot of {len(points)} scans by their features, coloured by {what}: {words}.")
