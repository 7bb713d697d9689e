"""The page of predictions that were held against masks: the figures, and every case with its picture."""

from __future__ import annotations

from pathlib import Path

from scanlearn import __version__
from scanlearn.files import read_json, write_atomic
from scanlearn.study.case_table import case_table
from scanlearn.study.page import count, render
from scanlearn.study.tables import metric_table
from scanlearn.tasks.predict_compared import RESULTS


def predicted_page(out: str | Path) -> Path:
    """Write OUT/report.html from what ``predict`` with masks left in OUT, and return its path."""
    out = Path(out)
    test = read_json(out / RESULTS, f"{out.name}/{RESULTS}")["test"]
    page = render(
        "predicted.html.jinja",
        title=out.resolve().name,
        version=__version__,
        sentence=f"{count(test['cases'], 'scan')} predicted and compared with their masks.",
        metrics=metric_table(test),
        every=case_table(out),
    )
    write_atomic(out / "report.html", page)
    return out / "report.html"
