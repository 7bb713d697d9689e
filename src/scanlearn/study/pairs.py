"""Pairs of methods as tables: those that answer the question of the study open, all others folded."""

from __future__ import annotations

import math
from typing import Any

from scanlearn.study.page import MISSING, Cell, Measured, Table, count, measured
from scanlearn.study.statistics.sentences import p_text

MOST = 15  # pairs in one table; with more, those that nobody asked for first are folded


def comparison_tables(facts: dict[str, Any], name: str) -> list[Table]:
    """Every pair of methods at every label count: one table, or with many pairs the asked ones and, folded, the others.

    Asked are the pairs of a method with its twin from scratch; in a study without any, those with the best method of a
    label count. However they are shown, Holm's correction is over all pairs of a label count.

    Args:
        facts: what ``analyse`` returns.
        name: of the figure, for people.
    """
    pairs = [(entry, c) for entry in facts["labels"] for c in facts["comparisons"].get(str(entry["asked"]), [])]
    asked = [pair for pair in pairs if _is_asked(facts, *pair)]
    if len(pairs) <= MOST or not asked:
        return [_table("Every pair of methods", pairs, name, _note(facts))]
    caption = (
        "Each method against its twin from scratch" if facts["twins"] else "The best method against each other one"
    )
    others = [pair for pair in pairs if not _is_asked(facts, *pair)]
    return [
        _table(caption, asked, name, _note(facts)),
        _table(f"The other {count(len(others), 'pair')}", others, name, "", folded=True),
    ]


def to_twins(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """The comparisons of each pre-trained method with its twin, as pre-trained minus scratch."""
    found = []
    for entry in facts["labels"]:
        for c in facts["comparisons"].get(str(entry["asked"]), []):
            for one, other, sign in ((c["a"], c["b"], 1), (c["b"], c["a"], -1)):
                if facts["twins"].get(one) == other:
                    turned = _turned(c["difference"], sign)
                    found.append({"method": one, "labels": entry["scans"], "difference": turned})
    return found


def effect_size(effects: dict[str, Any]) -> float:
    """Hedges' g of a - b, or the separation of AUROCs; NaN where there is neither."""
    found = effects.get("hedges_g") or effects.get("separation") or {}
    value = found.get("value")
    return float("nan") if value is None else float(value)


def _is_asked(facts: dict[str, Any], entry: dict[str, Any], c: dict[str, Any]) -> bool:
    if facts["twins"]:
        return facts["twins"].get(c["a"]) == c["b"] or facts["twins"].get(c["b"]) == c["a"]
    return facts["verdicts"][str(entry["asked"])]["best"] in (c["a"], c["b"])


def _table(
    caption: str, pairs: list[tuple[dict[str, Any], dict[str, Any]]], name: str, note: str, folded: bool = False
) -> Table:
    head = ["methods", "labels", f"difference in {name}", "p", "p, Holm", "effect size"]
    return Table(caption, head, [_row(entry, c) for entry, c in pairs], note=note, folded=folded)


def _row(entry: dict[str, Any], c: dict[str, Any]) -> list[Cell]:
    """The better-looking method first, with the difference, its interval and the effect size turned with it."""
    sign = -1 if c["difference"]["value"] < 0 else 1
    first, second = (c["a"], c["b"]) if sign > 0 else (c["b"], c["a"])
    difference = _turned(c["difference"], sign)
    return [
        f"{first} − {second}",
        f"{entry['scans']:,}",
        Measured(_signed(difference["value"], 3), measured(difference).interval),
        _p(c["p"]),
        _p(c["p_holm"]),
        _signed(sign * effect_size(c["effects"]), 2),
    ]


def _turned(difference: dict[str, float], sign: int) -> dict[str, float]:
    low, high = (sign * difference[end] for end in (("low", "high") if sign > 0 else ("high", "low")))
    return {"value": sign * difference["value"], "low": low, "high": high}


def _signed(value: float, digits: int) -> str:
    return MISSING if math.isnan(value) else f"{value:+.{digits}f}"


def _p(value: float) -> str:
    return MISSING if math.isnan(value) else p_text(value).removeprefix("p = ").removeprefix("p ")


def _note(facts: dict[str, Any]) -> str:
    sizes = sorted({len(pairs) for pairs in facts["comparisons"].values()}, reverse=True)
    family = f"all {count(sizes[0], 'pair')}" if len(sizes) == 1 else "all pairs"
    return (
        f"p and interval: seeds and patients both taken as drawn by chance. Holm: over {family} at one label count, shown "
        "or folded. Effect size: Hedges' g of the cases, or the separation of AUROCs in standard deviations of a patient."
    )
