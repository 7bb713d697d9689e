"""What fine-tuning left of the features that it began with, as a small diagram."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from scanlearn.study.figures import ACCENT, STYLE, one_row_each, plottable, svg
from scanlearn.study.page import Panel, count, number


def reuse_panel(reuse: Mapping[str, Any], init: str) -> Panel:
    """A bar for each stage of the encoder: linear CKA with the weights that the run began from.

    Args:
        reuse: ``feature_reuse`` of results.json.
        init: the name of those weights.
    """
    labels = [f"stage {i}, 1/{stride}" for i, stride in enumerate(reuse["strides"])]
    values = [plottable(value) for value in reuse["stages"]]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.3, 0.75 + 0.3 * len(values)), layout="constrained")
        axes = figure.add_subplot()
        axes.barh(range(len(values)), values, height=0.6, color=ACCENT)
        axes.set_xlim(0, 1)
        one_row_each(axes, labels, "linear CKA")
        words = ", ".join(f"{label} {number(value)}" for label, value in zip(labels, values, strict=True))
        picture = svg(figure, f"Linear CKA of features before and after fine-tuning: {words}.")
    note = (
        f"Likeness to the features of {init}, which it began from, on {count(reuse['scans'], 'test scan')}, fine to coarse: "
        "1 is the same but for rotation and scale."
    )
    return Panel("Features kept in fine-tuning", picture, note)
