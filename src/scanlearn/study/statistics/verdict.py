"""What the data say about which method is best, and what they do not say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scanlearn.study.statistics.compare import correct, way_of

ALPHA = 0.05
POWER = 0.8
# With two seeds corrected tests of three methods err in up to 10 % of simulated families, with three in up to 5.5 %.
FEWEST_SEEDS = 3


@dataclass(frozen=True)
class Verdict:
    """The facts of one label count; ``sentences.verdict_sentence`` puts them into words.

    Attributes:
        labels: the label count, or "all".
        figure: what was measured.
        means: {method: mean}, best first.
        best: the method with the best mean, which may owe it to chance.
        winner: the method that beats every other one, None where the data do not show any.
        tied: the methods that cannot be told from ``best``, best first.
        beaten: the methods that ``best`` beats.
        against: {method: its comparison with ``best``}, differences and intervals turned to best - method.
        smallest_shown: the smallest true difference from ``against``'s first method that as many seeds and patients
            would have shown in four of five studies; NaN where no test was possible.
        reasons: why there is no winner, one or more of "one seed", "few seeds", "one patient", "seeds do nothing",
            "no test", "correction" (a difference without it), "not shown"; empty where there is one.
    """

    labels: int | str
    figure: str
    means: dict[str, float]
    best: str
    winner: str | None
    tied: list[str]
    beaten: list[str]
    against: dict[str, dict[str, Any]]
    smallest_shown: float
    reasons: list[str] = field(default_factory=list)


def verdict(
    comparisons: Sequence[Mapping[str, Any]], labels: int | str, figure: str, *, higher_is_better: bool = True
) -> Verdict:
    """Whether one method is better than every other one, at one label count.

    A method wins when it has the best mean and each of its comparisons has p below 0.05 after Holm's correction, with
    an interval that covers both seeds (3 or more, that change something) and patients. As Holm's correction counts
    *all* pairs, choosing the best first costs nothing: where all methods are alike, a winner is called in less than 5 %
    of the studies.

    Args:
        comparisons: of all pairs, from ``compare_all``. Where they were ``correct``-ed already, together with others,
            that correction counts; else they are a family of their own.

    Returns:
        the facts. Refuses pairs that are missing with a ValueError.
    """
    comparisons = list(comparisons) if all("p_holm" in c for c in comparisons) else correct(comparisons)
    means = _means(comparisons)
    order = sorted(means, key=lambda m: -means[m] if higher_is_better else means[m])
    best, pairs = order[0], {frozenset((c["a"], c["b"])): c for c in comparisons}
    if len(pairs) != len(means) * (len(means) - 1) // 2:
        raise ValueError(f"{len(pairs)} comparisons are not all pairs of {len(means)} methods")
    against = {name: _turned(pairs[frozenset((best, name))], best) for name in order[1:]}
    doubts = {name: _doubts(c, higher_is_better) for name, c in against.items()}
    tied = [name for name in against if doubts[name]]
    first = against[order[1]]
    return Verdict(
        labels=labels,
        figure=figure,
        means={name: means[name] for name in order},
        best=best,
        winner=None if tied else best,
        tied=tied,
        beaten=[name for name in against if not doubts[name]],
        against=against,
        smallest_shown=way_of(first).smallest_shown(ALPHA / first["family"], POWER),
        reasons=sorted({doubt for name in tied for doubt in doubts[name]}),
    )


def _means(comparisons: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    means: dict[str, float] = {}
    for c in comparisons:
        for side in ("a", "b"):
            means.setdefault(c[side], c[f"mean_{side}"])
    return means


def _turned(comparison: Mapping[str, Any], best: str) -> dict[str, Any]:
    turned = {k: comparison[k] for k in ("difference", "p", "p_holm", "family", "seeds", "patients", "covers")}
    turned |= {k: comparison[k] for k in ("seed_part", "patient_part")}
    turned["seeds_matter"] = comparison.get("seeds_matter", True)
    if comparison["a"] != best:
        d = comparison["difference"]
        turned["difference"] = {"value": -d["value"], "low": -d["high"], "high": -d["low"]}
    return turned


def _doubts(comparison: Mapping[str, Any], higher_is_better: bool) -> list[str]:
    # Why this comparison shows no difference between the methods; [] where it does.
    if comparison["patients"] < 2:
        return ["one patient"]
    if comparison["seeds"] < FEWEST_SEEDS:
        return ["one seed" if comparison["seeds"] < 2 else "few seeds"]
    if not comparison["seeds_matter"]:
        return ["seeds do nothing"]
    if not comparison["p_holm"] <= 1:
        return ["no test"]
    # Where a pair left out cases of its own, its difference may even point the other way than the means.
    favours = (comparison["difference"]["value"] > 0) == higher_is_better
    if comparison["p_holm"] < ALPHA and favours:
        return []
    return ["correction"] if comparison["p"] < ALPHA else ["not shown"]
