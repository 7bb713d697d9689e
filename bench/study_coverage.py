"""Do the intervals and tests of a study keep their promise? Simulated studies with known truth, a few minutes.

    python bench/study_coverage.py [--studies 2000] [--out docs/results/coverage.json]

Each row names its design (``scanlearn.study.statistics.simulate.Design``). ``coverage`` is the share of 95 % intervals
that hold the truth, ``family_error`` the share of studies of three equal methods in which Holm's test sees any
difference, ``winner_called`` the share in which a winner is called, ``found`` how often a difference of the size that
the power statement names is found. Of 2,000 studies a share of 95 % is known to within 1 %.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from scanlearn.study.statistics.compare import facts_of
from scanlearn.study.statistics.delong import delong_test
from scanlearn.study.statistics.holm import holm
from scanlearn.study.statistics.runs import Runs
from scanlearn.study.statistics.simulate import Design, dice_truth, score_studies, score_truth, study_draws
from scanlearn.study.statistics.two_way import TwoWay, two_way
from scanlearn.study.statistics.verdict import verdict
from scanlearn.study.statistics.worth import worth_labels

BOOTSTRAP = 400
BLOCK = 250  # studies drawn at once
GRIDS = {
    "dice": [Design(s, p, seed_sd=sd) for s in (3, 5) for p in (40, 120, 600) for sd in (0.0, 0.1, 0.3)],
    "auroc": [
        *(Design(s, p, seed_sd=sd) for s in (3, 5) for p in (40, 120) for sd in (0.0, 0.2)),
        Design(5, 100, seed_sd=0.2, scans=2),
        Design(5, 600, seed_sd=0.1),
    ],
}
LEVELS = {"dice": (2.0, 1.8), "auroc": (2.0, 1.7)}


def main() -> None:
    """Run every simulation and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path("docs/results/coverage.json"))
    options = parser.parse_args()
    start, seed, rows = time.perf_counter(), 20_260, []
    for kind, grid in GRIDS.items():
        for design in grid:
            for part in (differences, null_studies):
                share = (
                    1 if kind == "dice" or design.patients == 40 else 2 if design.patients < 600 else 4
                )  # an AUROC takes longer
                studies = options.studies // share
                rows.append(_row(part, kind, design, studies, seed + len(rows)))
                print(rows[-1], flush=True)
    for design in (Design(3, 120), Design(5, 120), Design(5, 600)):
        rows.append(_row(labels_saved, "dice", design, options.studies // 5, seed + len(rows)))
        print(rows[-1], flush=True)
    for design in (Design(1, 60, seed_sd=0.0), Design(1, 40, seed_sd=0.0, scans=3)):
        rows.append(_row(delong_studies, "auroc", design, options.studies, seed + len(rows)))
        print(rows[-1], flush=True)
    text = ",\n".join("    " + json.dumps(row) for row in rows)
    head = {"command": f"python bench/study_coverage.py --studies {options.studies}", "bootstrap": BOOTSTRAP}
    options.out.write_text(json.dumps(head)[:-1] + f', "rows": [\n{text}\n]}}\n', encoding="utf-8")
    print(f"{time.perf_counter() - start:.0f} s")


def differences(kind: str, rng: np.random.Generator, studies: int, design: Design) -> dict[str, float]:
    """Coverage of the difference of two methods and of one method's mean, and of the ways that were not taken."""
    draws, truth = study_draws(kind, rng, studies, design, np.array(LEVELS[kind]), BOOTSTRAP)
    way, delta = two_way(draws[:, 0] - draws[:, 1], design.patients), truth[0] - truth[1]
    one = two_way(draws[:, 0], design.patients)
    satterthwaite = (way.seed_part + way.patient_part) ** 2 / (
        way.seed_part**2 / (design.seeds - 1) + way.patient_part**2 / (design.patients - 1)
    )
    half = student.ppf(0.975, satterthwaite) * way.standard_error
    weight = way.seed_part / (way.seed_part + way.patient_part)
    plain = weight * student.ppf(0.975, design.seeds - 1) + (1 - weight) * student.ppf(0.975, design.patients - 1)
    both = draws[:, 0] - draws[:, 1]
    picked = rng.integers(0, design.seeds, (BOOTSTRAP, design.seeds))
    resampled = both[:, picked, np.arange(1, BOOTSTRAP + 1)[:, None]].mean(-1)
    shown = _smallest_shown(way)
    found = np.abs(way.value - delta + shown) > way.critical(0.05) * way.standard_error
    return {
        "difference": round(float(delta), 4),
        "seed_share": _mean(weight),
        "coverage": _covered(delta, *way.interval()),
        "coverage_of_one_mean": _covered(truth[0], *one.bounded_interval()),
        "found": _mean(found),
        "tried_cochran_cox": _covered(
            delta, way.value - plain * way.standard_error, way.value + plain * way.standard_error
        ),
        "tried_satterthwaite": _covered(delta, way.value - half, way.value + half),
        "tried_percentiles": _covered(delta, *np.quantile(resampled, [0.025, 0.975], axis=1)),
        "tried_patients_only": _covered(
            delta, *TwoWay(way.value, 0 * way.seed_part, _patients(both), 1, 10**6).interval()
        ),
    }


def null_studies(kind: str, rng: np.random.Generator, studies: int, design: Design) -> dict[str, float]:
    """Three equal methods: how often Holm's test errs, and how often a winner is called."""
    draws, _ = study_draws(kind, rng, studies, design, np.full(3, LEVELS[kind][0]), BOOTSTRAP)
    names, pairs = "abc", list(combinations(range(3), 2))
    ways = [two_way(draws[:, i] - draws[:, j], design.patients) for i, j in pairs]
    p = np.stack([way.p_value() for way in ways], axis=-1)
    means, winners = draws[..., 0].mean(axis=2), 0
    for n in range(studies):
        comparisons = []
        for at, ((i, j), way) in enumerate(zip(pairs, ways, strict=True)):
            one = TwoWay(way.value[n], way.seed_part[n], way.patient_part[n], way.seeds, way.patients)
            sides = {"a": names[i], "b": names[j], "mean_a": means[n, i], "mean_b": means[n, j]}
            comparisons.append({**sides, **facts_of(one, float(p[n, at]))})
        winners += verdict(comparisons, 100, kind).winner is not None
    return {"family_error": _mean((holm(p) < 0.05).any(axis=-1)), "winner_called": round(winners / studies, 4)}


def labels_saved(kind: str, rng: np.random.Generator, studies: int, design: Design) -> dict[str, float]:
    """Coverage of the label count that a method is worth; the method at 100 labels scores like scratch with 224."""
    counts, levels = (50, 100, 500), np.array([1.2, 1.5, 2.1, 0.0])
    truth = dice_truth(design, levels)
    levels[3] = np.interp((truth[1] + truth[2]) / 2, *_truth_by_level(design))
    draws, _ = study_draws(kind, rng, studies, design, levels, BOOTSTRAP // 2)
    true = np.exp((np.log(100) + np.log(500)) / 2)
    held, open_ended, seeds = [], [], tuple(range(design.seeds))
    for study in draws:
        runs = [Runs(d, design.patients, seeds) for d in study]
        answer = worth_labels(dict(zip(counts, runs, strict=False)), runs[3])
        low, high = (answer[side] for side in ("low", "high"))
        held.append((low["sign"] == "<" or low["labels"] <= true) and (high["sign"] == ">" or high["labels"] >= true))
        open_ended.append(high["sign"] == ">")
    return {"coverage": _mean(held), "more_than_all": _mean(open_ended), "true_labels": round(float(true), 1)}


def delong_studies(kind: str, rng: np.random.Generator, studies: int, design: Design) -> dict[str, float]:
    """Coverage of DeLong's interval (by patient) for two fixed networks, and of one that takes scans for patients."""
    levels = np.array(LEVELS[kind])
    scores, positive, patient = score_studies(rng, studies, design, levels)
    delta, held = float(np.subtract(*score_truth(design, levels))), []
    for a, b in scores[:, :, 0]:
        tests = [delong_test(a, b, positive, groups) for groups in (patient, None)]
        held.append([test["low"] <= delta <= test["high"] for test in tests])
    return dict(zip(("coverage", "tried_scans_as_patients"), (_mean(h) for h in np.transpose(held)), strict=True))


def _row(part: Callable[..., dict[str, float]], kind: str, design: Design, studies: int, seed: int) -> dict[str, Any]:
    blocks = [min(BLOCK, studies - done) for done in range(0, studies, BLOCK)]
    streams = np.random.default_rng(seed).spawn(len(blocks))
    found = [part(kind, rng, size, design) for rng, size in zip(streams, blocks, strict=True)]
    means = {name: round(float(np.average([f[name] for f in found], weights=blocks)), 4) for name in found[0]}
    return {"simulation": part.__name__, "figure": kind, "studies": studies, "seed": seed, **asdict(design), **means}


def _smallest_shown(way: TwoWay) -> float:
    # Of the design: from the variances' means, as a study's own are a guess at them.
    parts = (float(np.mean(part)) for part in (way.seed_part, way.patient_part))
    return TwoWay(0.0, *parts, way.seeds, way.patients).smallest_shown(0.05)


def _patients(draws: np.ndarray) -> np.ndarray:
    return draws[..., 1:].mean(axis=1).var(axis=-1, ddof=1)


def _truth_by_level(design: Design) -> tuple[np.ndarray, np.ndarray]:
    levels = np.linspace(0, 4, 401)
    return dice_truth(design, levels), levels


def _covered(truth: float, low: np.ndarray, high: np.ndarray) -> float:
    return _mean((low <= truth) & (truth <= high))


def _mean(values: Any) -> float:
    return round(float(np.mean(values)), 4)


if __name__ == "__main__":
    main()
