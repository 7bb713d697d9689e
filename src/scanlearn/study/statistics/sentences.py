"""Verdicts in plain English: one sentence that says no more than the figures do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scanlearn.study.statistics.verdict import ALPHA, FEWEST_SEEDS, Verdict

MOST_NAMES = 5  # in one sentence


def verdict_sentence(verdict: Verdict) -> str:
    """What one label count shows: who beats whom by how much, or why no method can be called better."""
    if verdict.winner:
        beaten = verdict.beaten
        pairs = [f"{name} by {_difference(verdict, name)}" for name in beaten]
        return f"{_with(verdict.labels)}, {verdict.winner} beats {_list(pairs)}."
    if reason := _refusal(verdict):
        return f"{_with(verdict.labels)} no method can be called better: {reason}."
    first = verdict.tied[0]
    names = _list(verdict.tied) if len(verdict.tied) <= MOST_NAMES else f"any of {len(verdict.tied)} others"
    told = (
        f"{verdict.best} has the best mean {verdict.figure} ({verdict.means[verdict.best]:.3f}) but is not told apart "
        f"from {names}: it leads {first} by {_difference(verdict, first)}"
    )
    if alone := [name for name in verdict.tied if verdict.against[name]["p"] < ALPHA]:
        told += f"; that it leads {_list(alone)} does not hold against the number of comparisons"
    if verdict.beaten:
        pairs = [f"{name} by {_difference(verdict, name)}" for name in verdict.beaten]
        return f"{_with(verdict.labels)} no single method can be called best: {told}; it beats {_list(pairs)}."
    return f"{_with(verdict.labels)} no method can be called better: {told}; {_power(verdict)}."


def worth_sentence(method: str, labels: int, worth: Mapping[str, Any]) -> str:
    """How many labels a method's ``labels`` are worth from scratch, said with its interval (``worth_labels``)."""
    value, low, high = (worth[k] for k in ("value", "low", "high"))
    counts = worth["counts"]
    said = f"{method} with {_count(labels)} labels scores like scratch with {_labels(value, counts)}"
    if not worth["covers"]:
        return f"{said}; with one seed and no resampled patients there is no interval."
    if low == high:
        return f"{said} labels (95 % interval: the same)."
    covers = "" if len(worth["covers"]) == 2 else f", which covers chance in {worth['covers'][0]} only"
    return f"{said} labels (95 % interval {_labels(low, counts)} to {_labels(high, counts)}{covers})."


def p_text(p: float) -> str:
    """``p = 0.03``, ``p < 0.001``, never ``p = 0``; two digits where they matter."""
    if p < 0.001:
        return "p < 0.001"
    return f"p = {p:.3f}" if p < 0.0095 or 0.045 <= p < 0.055 else f"p = {p:.2f}"


def _difference(verdict: Verdict, name: str) -> str:
    comparison = verdict.against[name]
    d, family = comparison["difference"], comparison["family"]
    after = f" after Holm over {family} comparisons" if family > 1 else ""
    size = abs(d["value"])
    # A distance is better when it is small: its interval is turned with it, so that it reads like the size.
    low, high = (d["low"], d["high"]) if d["value"] >= 0 else (-d["high"], -d["low"])
    return f"{size:.3f} {verdict.figure} (95 % interval {_number(low)} to {_number(high)}; {p_text(comparison['p_holm'])}{after})"


def _refusal(verdict: Verdict) -> str:
    again = f"run {FEWEST_SEEDS} seeds or more"
    texts = {
        "one seed": f"they were run with one seed, and its luck cannot be told from the method; {again}",
        "few seeds": f"two seeds do not show how much their luck matters; {again}",
        "one patient": "the test part is known as one patient, which says nothing about others; "
        "give the patients of the test part",
        "seeds do nothing": "the networks of all seeds scored exactly alike, so the seeds changed nothing; "
        "check that each run has a seed of its own",
        "no test": "a difference is the same for every seed and patient, which no test can judge; "
        "check that the results are what they should be",
    }
    return next((text for reason, text in texts.items() if reason in verdict.reasons), "")


def _power(verdict: Verdict) -> str:
    first = next(iter(verdict.against.values()))
    return (
        f"{first['seeds']} seeds and {first['patients']:,} patients like these would show a difference of "
        f"{verdict.smallest_shown:.3f} in four of five studies"
    )


def _with(labels: int | str) -> str:
    return "With all labels" if labels == "all" else f"With {_count(labels)} labels"


def _count(labels: int | str) -> str:
    return f"{labels:,}" if isinstance(labels, int) else labels


def _labels(answer: Mapping[str, Any], counts: Sequence[int]) -> str:
    if answer["sign"] == "=":
        return f"{answer['labels']:,.0f}"
    return f"more than {counts[-1]:,}" if answer["sign"] == ">" else f"fewer than {counts[0]:,}"


def _number(value: float) -> str:
    return f"{value:.3f}".replace("-0.000", "0.000").replace("-", "−")


def _list(items: Sequence[str]) -> str:
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)
