import base64

import numpy as np
import pytest

from scanlearn.study import figures
from scanlearn.study.figures import (
    Line,
    curve_figure,
    curve_words,
    dots_figure,
    interval_figure,
    map_figure,
    roc_figure,
)


def drawn(picture):
    return base64.b64decode(picture.src.partition(",")[2]).decode()


def test_a_curve_is_told_in_words_with_its_gaps_left_out():
    words = curve_words([Line("loss", [1, 2, 3, 4], [3.0, None, float("nan"), 1.5])], "step", "Loss")
    assert words == "Line chart. Loss: from 3 at step 1 to 1.5 at step 4, lowest 1.5, highest 3."
    assert "0.7 at step 9." in curve_words([Line("auroc", [9], [0.7])], "step", "AUROC")
    assert "nothing was measured" in curve_words([Line("auroc", [], [])], "step", "AUROC")


@pytest.mark.parametrize(
    "lines",
    [
        [Line("a", [1, 2], [1.0, 2.0])],
        [Line("a", [1], [1.0]), Line("_b", [1, 2], [None, 2.0])],
        [Line("a", [], [])],
        [Line("wide", [1, 2], [1e-6, 1e3])],
        [Line("$\\frac{", [1, 2], [0.0, 0.0]), Line("<script>", [1], [None])],
    ],
)
def test_every_log_gives_a_picture_with_letters_that_stay_letters(lines):
    text = drawn(curve_figure(lines, reference=0.5))
    assert text.startswith("<svg") and "<script" not in text and "<metadata" not in text
    assert "system-ui" in text and "DejaVu" not in text


def test_equal_diagrams_are_equal_bytes():
    lines = [Line("a", list(range(50)), list(np.linspace(2, 1, 50)))]
    assert curve_figure(lines) == curve_figure(lines)


def test_long_logs_are_averaged_over_neighbours():
    x, y = figures.thinned(Line("a", list(range(100_000)), [float(i % 2) for i in range(100_000)]))
    assert len(x) == figures.MOST_POINTS and np.allclose(y, 0.5) and (np.diff(x) > 0).all()


def test_the_other_figures_draw_what_they_say():
    roc = roc_figure({"a 0.80": (np.array([0, 0.1, 1.0]), np.array([0, 0.7, 1.0]))}, {"a 0.80": (0.1, 0.7)})
    assert "at 10 % false alarms 70\xa0% are found" in roc.alt and "working point" in roc.alt
    none = {"value": None, "low": None, "high": None}
    intervals = interval_figure([("a", {"value": 0.8, "low": 0.7, "high": 0.9}), ("b", none)], name="AUROC")
    assert "a 0.800 (0.700 to 0.900)" in intervals.alt and intervals.alt.endswith(" b –.")
    dots = dots_figure({"1": np.array([0.5, 0.7, np.nan]), "2": np.array([np.nan])}, name="Dice")
    assert "1: 2 from 0.50 to 0.70, median 0.60." in dots.alt and "2: none has a figure" in dots.alt


def test_a_map_of_many_groups_keeps_the_largest_and_calls_the_rest_other():
    groups = [f"g{min(i // 2, 20)}" for i in range(60)]
    points = np.random.default_rng(0).normal(size=(60, 2))
    text = drawn(map_figure(points, groups, [0.5, 0.2], what="site"))
    assert "g20 (20)" in text and "other (" in text
