"""The results of a study for other programs and for papers: CSV of every cell, LaTeX of the means."""

from __future__ import annotations

import csv
import io
from typing import Any

from scanlearn.study.analysis import NAMES

_ESCAPES = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def results_csv(facts: dict[str, Any]) -> str:
    """One line for each cell with every figure and the ends of its interval over patients."""
    columns = list(dict.fromkeys(name for row in facts["cells"] for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(facts["cells"])
    return text.getvalue()


def latex_table(facts: dict[str, Any]) -> str:
    """A booktabs table: methods by label counts, mean and 95 % interval, the best bold only where it is shown to be."""
    counts = [entry["asked"] for entry in facts["labels"]]
    head = " & ".join(["Method", *(_column(entry) for entry in facts["labels"])])
    rows = []
    for method in facts["methods"]:
        cells = [_cell(facts, method, str(count)) for count in counts]
        rows.append(" & ".join([escape(method), *cells]) + r" \\")
    figure = NAMES.get(facts["figure"], facts["figure"])
    caption = (
        f"{escape(figure)}, mean of {facts['question']['seeds']} seeds with its 95\\,\\% interval over seeds and patients, on "
        f"{facts['test']['scans']} test scans of {facts['test']['patients']} patients. Bold: better than every other method "
        r"($p < 0.05$ after Holm's correction)."
    )
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{caption}}}",
            rf"\begin{{tabular}}{{l{'c' * len(counts)}}}",
            r"\toprule",
            head + r" \\",
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _column(entry: dict[str, Any]) -> str:
    return f"all ({entry['scans']:,} labels)" if entry["asked"] == "all" else f"{entry['asked']:,} labels"


def _cell(facts: dict[str, Any], method: str, count: str) -> str:
    found = facts["means"].get(count, {}).get(method)
    if found is None:
        return "--"
    value = f"{found['value']:.3f}"
    if facts["verdicts"].get(count, {}).get("winner") == method:
        value = rf"\textbf{{{value}}}"
    known = found["low"] == found["low"] and found["low"] is not None
    return value + (rf" {{\small ({found['low']:.3f}--{found['high']:.3f})}}" if known else "")


def escape(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return "".join(_ESCAPES.get(c, c) for c in text)
