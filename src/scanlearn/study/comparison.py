"""One page for a pre-trained network beside its from-scratch twin: the answer in a sentence, every seed, pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from scanlearn import __version__
from scanlearn.files import write_atomic
from scanlearn.scans.store import Store
from scanlearn.study import cases, looks
from scanlearn.study.facts import read_facts
from scanlearn.study.figures import dots_figure
from scanlearn.study.page import Measured, Panel, Strip, Table, number, render


def write_comparison(out: Path, facts: dict[str, Any], store: Store, minutes: float) -> Path:
    """Write ``out``/report.html from the summary of a demo (see ``scanlearn.demo.summary``) and return its path."""
    pretrained = read_facts(out / "pretrained")
    views, views_note = looks.view_strips(pretrained, store, looks.trained_network(pretrained))
    dice = {"from scratch": np.array(facts["dice"]["scratch"]), "pre-trained": np.array(facts["dice"]["pretrained"])}
    page = render(
        "comparison.html.jinja",
        title="One brain, few labels",
        version=__version__,
        sentence=sentence(facts),
        key_figures=[
            ("from scratch", number(float(dice["from scratch"].mean())), "mean Dice"),
            ("pre-trained", number(float(dice["pre-trained"].mean())), "mean Dice"),
            ("labelled cubes", str(facts["labelled"]), f"of {facts['training_cubes']} for training"),
            ("minutes", f"{minutes:.1f}", "for everything, on this machine"),
        ],
        panel=Panel(
            "Dice of each seed",
            dots_figure(dice, name="Dice", each="seed"),
            "Every dot is one fine-tuning, tested once.",
        ),
        table=seed_table(facts),
        views=views,
        views_note=views_note,
        examples=example_strips(out, facts),
        runs=[(f"{words(run['method'])}, seed {run['seed']}", f"{run['folder']}/report.html") for run in facts["runs"]],
        facts=facts,
    )
    write_atomic(out / "report.html", page)
    return out / "report.html"


def words(method: str) -> str:
    """A method's name for a reader."""
    return "from scratch" if method == "scratch" else "pre-trained"


def sentence(facts: dict[str, Any]) -> str:
    """The answer, no more certain than the seeds allow."""
    found = facts["comparison"]
    difference, seeds = found["difference"]["value"], facts["seeds"]
    wins = found["a_better"]
    if wins == seeds:
        verdict = f"pre-training helped on each of {seeds} seeds"
    elif wins == 0:
        verdict = f"pre-training helped on none of {seeds} seeds"
    else:
        verdict = f"pre-training helped on {wins} of {seeds} seeds, so nothing is settled"
    return (
        f"With {facts['labelled']} labelled cubes, {verdict}: mean Dice {found['mean_a']:.3f} after pre-training without "
        f"labels, {found['mean_b']:.3f} from scratch (difference {difference:+.3f}) on {facts['test_cubes']} held-out cubes."
    )


def seed_table(facts: dict[str, Any]) -> Table:
    """A row for each seed and the mean with the interval of the difference over seeds."""
    scratch, pretrained = facts["dice"]["scratch"], facts["dice"]["pretrained"]
    rows: list[list[Any]] = [
        [f"seed {i}", number(a), number(b), f"{b - a:+.3f}"]
        for i, (a, b) in enumerate(zip(scratch, pretrained, strict=True))
    ]
    found = facts["comparison"]
    low, high = found["difference"]["low"], found["difference"]["high"]
    interval = f"{low:+.3f} to {high:+.3f}" if low is not None and np.isfinite(low) else ""
    rows.append(
        [
            "mean",
            number(found["mean_b"]),
            number(found["mean_a"]),
            Measured(f"{found['difference']['value']:+.3f}", interval),
        ]
    )
    note = (
        f"Same labelled cubes, steps and order for both at each seed. A sign test over {facts['seeds']} seeds gives "
        f"p = {found['p_permutation']:.2f}; {found['smallest_p']:.2f} is the smallest that so few seeds can give, and the "
        "interval, of resampled seeds, is too narrow for so few."
    )
    return Table(
        "Mean Dice of grey and white matter on the test cubes",
        ["", "from scratch", "pre-trained", "difference"],
        rows,
        total=True,
        note=note,
    )


def example_strips(out: Path, facts: dict[str, Any]) -> list[Strip]:
    """Worst and best test cubes of the first seed of both methods."""
    strips = []
    for method in ("scratch", "pretrained"):
        folder = next(run["folder"] for run in facts["runs"] if run["method"] == method)
        for strip in cases.example_strips(read_facts(out / folder).run, 3):
            strips.append(Strip(f"{words(method).capitalize()}: {strip.title}", strip.pictures, strip.columns))
    return strips
