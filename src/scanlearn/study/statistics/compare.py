"""Is one method better than another, over the seeds and patients that could have been drawn?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from scanlearn.errors import ScanlearnError
from scanlearn.study.statistics.delong import delong_test, exchange_terms
from scanlearn.study.statistics.effects import case_effects, separation
from scanlearn.study.statistics.holm import holm, simultaneous_level
from scanlearn.study.statistics.runs import Runs, on_common_cases
from scanlearn.study.statistics.two_way import TwoWay, two_way
from scanlearn.tasks.compare import paired_comparison

Facts = dict[str, Any]


def mean_over_seeds(runs: Runs, *, within: tuple[float, float] | None = (0.0, 1.0)) -> Facts:
    """The mean figure of one method with its 95 % interval over seeds and patients: a point and its band on a curve.

    Args:
        within: (0, 1) for AUROC, Dice and their like, whose interval is made on the logit scale and stays inside;
            None for a figure without bounds, like a distance.

    Returns:
        ``value``, ``low``, ``high``, ``covers`` (which chance the interval speaks of: of seeds, patients, both) and
        ``by_seed`` {seed: figure}. Low and high are NaN where neither is covered.
    """
    way = two_way(runs.draws, runs.patients)
    low, high = way.bounded_interval() if within else way.interval()
    by_seed = {str(s): float(v) for s, v in zip(runs.seeds, runs.draws[:, 0], strict=True)}
    return {"value": float(way.value), "low": float(low), "high": float(high), "covers": way.covers, "by_seed": by_seed}


def compare_methods(a: Runs, b: Runs, *, bootstrap: int = 2000, permutations: int = 10_000, seed: int = 0) -> Facts:
    """Difference a - b of two methods with an interval over seeds and patients, paired tests and effect sizes.

    The interval and ``p`` treat seeds and patients as drawn by chance, see ``TwoWay``; they are what a claim about the
    *methods* rests on. The other tests hold one of the two fixed: with the seeds fixed they speak of these networks in
    new patients, with the patients fixed of new networks on these patients. What a seed does not change (the one
    pre-trained encoder that all seeds start from, the pool of labelled patients) is chance that no test here covers.

    Args:
        a, b: runs on the same patients with the same resamples. Seeds that only one of them has are left out and named.
        bootstrap, seed: of the effects, and of means over cases that have to be drawn again (``on_common_cases``).
        permutations: sign patterns tried where there are too many to try all.

    Returns:
        - ``mean_a``, ``mean_b``, ``difference`` {value, low, high}, ``p``, ``standard_error``, ``covers`` (["seeds",
          "patients"]; with one seed patients only), ``seeds``, ``patients``, ``seed_part`` and ``patient_part`` of the
          variance, ``seeds_left_out``, ``cases_left_out`` (not finite somewhere), ``seeds_matter`` (False: all networks
          of a method answered alike, the seed did nothing).
        - ``over_seeds``: ``p_permutation`` (exact; 5 seeds reach 0.0625 at best, ``smallest_p``), ``p_wilcoxon``.
        - ``over_patients``: for a mean over cases ``p_permutation`` and ``p_wilcoxon`` of the figures averaged over
          seeds; for an AUROC ``p_permutation`` (Bandos, Rockette and Gur 2005) and ``p_delong`` (by patient), both
          NaN with fewer than two patients of a kind; {} for figures that come as draws alone.
        - ``effects``: ``case_effects`` for a mean over cases, ``separation`` for an AUROC, else {}, as with one patient.

        Refuses methods without a common seed, and runs of different patients, cases or resamples.
    """
    common = [s for s in a.seeds if s in b.seeds]
    if not common:
        raise ScanlearnError("The two methods have no seed in common: run both with the same seeds.")
    alone = sorted(set(a.seeds) ^ set(b.seeds))
    (a, b), left_out = on_common_cases([a.of_seeds(common), b.of_seeds(common)], bootstrap, seed)
    facts = facts_of(two_way(a.draws - b.draws, a.patients))
    first, second = a.draws[:, 0], b.draws[:, 0]
    seeds = paired_comparison(first, second, bootstrap=2)
    return {
        "mean_a": float(first.mean()),
        "mean_b": float(second.mean()),
        **facts,
        "seeds_left_out": alone,
        "cases_left_out": left_out,
        "seeds_matter": _seeds_matter(a) and _seeds_matter(b),
        "over_seeds": {name: seeds[name] for name in ("p_permutation", "p_wilcoxon", "smallest_p")},
        "over_patients": _over_patients(a, b, permutations, seed),
        "effects": _effects(a, b, bootstrap, seed),
    }


def facts_of(way: TwoWay, p: float | None = None) -> Facts:
    """A difference as plain figures: what ``compare_methods`` says of it and ``verdict`` reads; p where it is known."""
    low, high = way.interval()
    return {
        "difference": {"value": float(way.value), "low": float(low), "high": float(high)},
        "p": float(way.p_value()) if p is None else p,
        "standard_error": float(way.standard_error),
        "covers": way.covers,
        "seeds": way.seeds,
        "patients": way.patients,
        "seed_part": float(way.seed_part),
        "patient_part": float(way.patient_part),
    }


def way_of(facts: Mapping[str, Any]) -> TwoWay:
    """The inverse of ``facts_of``."""
    parts = (facts[name] for name in ("seed_part", "patient_part", "seeds", "patients"))
    return TwoWay(facts["difference"]["value"], *parts)


def compare_all(runs: Mapping[str, Runs], **options: Any) -> list[Facts]:
    """``compare_methods`` of every pair of methods, with their names as ``a`` and ``b``; options as there."""
    pairs = combinations(runs, 2)
    return [{"a": a, "b": b, **compare_methods(runs[a], runs[b], **options)} for a, b in pairs]


def correct(comparisons: Sequence[Mapping[str, Any]]) -> list[Facts]:
    """The comparisons as one family: each with ``p_holm``, ``family`` (how many there are) and ``simultaneous``.

    Which comparisons form a family is for the reader of the report to know and for the caller to choose: those at one
    label count, or all of a study. ``simultaneous`` {low, high} are Bonferroni's intervals, see ``simultaneous_level``.
    """
    adjusted = holm([c["p"] for c in comparisons])
    corrected = []
    for comparison, p in zip(comparisons, adjusted, strict=True):
        low, high = way_of(comparison).interval(simultaneous_level(len(comparisons)))
        both = {"low": float(low), "high": float(high)}
        corrected.append({**comparison, "p_holm": float(p), "family": len(comparisons), "simultaneous": both})
    return corrected


def _seeds_matter(runs: Runs) -> bool:
    answers = next(v for v in (runs.scores, runs.cases, runs.draws) if v is not None)
    return len(answers) < 2 or bool((answers != answers[0]).any())


def _over_patients(a: Runs, b: Runs, permutations: int, seed: int) -> Facts:
    if a.cases is not None and b.cases is not None:
        tests = paired_comparison(
            a.cases.mean(axis=0), b.cases.mean(axis=0), a.groups, bootstrap=2, permutations=permutations, seed=seed
        )
        return {name: tests[name] for name in ("p_permutation", "p_wilcoxon")}
    if a.scores is None or b.scores is None or a.positive is None:
        return {}
    try:
        delong = delong_test(a.scores, b.scores, a.positive, a.groups)["p"]
    except ScanlearnError:  # too few patients of a kind; the AUROC itself may still be defined
        return {"p_permutation": float("nan"), "p_delong": float("nan")}
    terms = sum(exchange_terms(x, y, a.positive) for x, y in zip(a.scores, b.scores, strict=True))
    tests = paired_comparison(terms, np.zeros_like(terms), a.groups, bootstrap=2, permutations=permutations, seed=seed)
    return {"p_permutation": tests["p_permutation"], "p_delong": delong}


def _effects(a: Runs, b: Runs, bootstrap: int, seed: int) -> Facts:
    if a.patients < 2:
        return {}
    if a.cases is not None and b.cases is not None and a.groups is not None:
        return case_effects(a.cases, b.cases, a.groups, bootstrap=bootstrap, seed=seed)
    return {} if a.scores is None else {"separation": separation(a.draws, b.draws, a.patients)}
