"""The results of one method at one label count: one network for each seed, all judged on the same patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scanlearn.errors import ScanlearnError
from scanlearn.tasks.bootstrap import PatientBootstrap, ratio
from scanlearn.tasks.classification_metrics import macro_draws


@dataclass(frozen=True, eq=False)
class Runs:
    """What the networks of S seeds scored; made by ``case_runs`` and ``score_runs``.

    A figure that neither of them knows comes in as draws alone. Draws of two methods belong together only when they
    were made with the same patients, number of resamples and bootstrap seed.

    Attributes:
        draws: (S, 1 + B) the figure of each network, on the test patients in column 0 and in B resamples of the
            patients, the same for every network (``PatientBootstrap``). B = 0: nothing is known about patients.
        patients: how many there are.
        seeds: the S seeds; networks of two methods with the same seed are a pair.
        groups: (N,) the patient of each case.
        cases: (S, N) the figure of each case, where the figure is a mean over cases (Dice); else None.
        scores, positive: (S, N) and bool (N,), where the figure is the AUROC of one yes-no question; else None.
    """

    draws: np.ndarray
    patients: int
    seeds: tuple[int, ...]
    groups: np.ndarray | None = None
    cases: np.ndarray | None = None
    scores: np.ndarray | None = None
    positive: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.draws.ndim != 2 or len(self.draws) != len(self.seeds) or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"draws {self.draws.shape} do not fit the seeds {self.seeds}")

    def of_seeds(self, seeds: Sequence[int]) -> Runs:
        """The runs of these seeds, in this order."""
        rows = [self.seeds.index(s) for s in seeds]
        cases, scores = (None if v is None else v[rows] for v in (self.cases, self.scores))
        return replace(self, draws=self.draws[rows], seeds=tuple(seeds), cases=cases, scores=scores)


def case_runs(
    values: Any, patients: Any, *, seeds: Sequence[int] | None = None, bootstrap: int = 2000, seed: int = 0
) -> Runs:
    """Runs whose figure is the mean over cases, like Dice.

    Args:
        values: (S, N) the figure of each case under each seed. A case that is NaN in any seed counts in none: say
            first what an undefined figure is worth, or a method gains by failing.
        patients: (N,) whose cases they are; all cases of a patient are resampled together.
    """
    values, patients = np.atleast_2d(np.asarray(values, np.float64)), np.asarray(patients)
    if values.ndim != 2 or values.shape[1:] != patients.shape:
        raise ValueError(f"values {values.shape} and patients {patients.shape} do not fit")
    draws, count = case_draws(values, patients, bootstrap, seed)
    return Runs(draws, count, _names(seeds, len(values)), groups=patients, cases=values)


def case_draws(values: np.ndarray, patients: np.ndarray, bootstrap: int, seed: int) -> tuple[np.ndarray, int]:
    """((S, 1 + B) means over those cases of values (S, N) that are finite under every seed, how many patients)."""
    whole = np.isfinite(values).all(axis=0)
    resamples = PatientBootstrap(patients[whole], bootstrap, seed)
    totals, cases = resamples.totals(values[:, whole].T), resamples.totals(np.ones((int(whole.sum()), 1)))
    return ratio(totals, cases).T, resamples.patients


def on_common_cases(runs: Sequence[Runs], bootstrap: int = 2000, seed: int = 0) -> tuple[list[Runs], int]:
    """(the runs as they are on the cases that have a figure under every seed of all, how many cases that leaves out).

    Means over cases are resampled again where that changes them; other figures stay. Refuses, with a ValueError, runs
    of other cases, patients or resamples, and with a ScanlearnError those without a common case.
    """
    first = runs[0]
    for name in ("groups", "positive"):
        ours = [getattr(r, name) for r in runs]
        if any((a is None) != (ours[0] is None) or (a is not None and not np.array_equal(a, ours[0])) for a in ours):
            raise ValueError(f"the methods were not judged on the same cases: their {name} differ")
    cases = [r.cases for r in runs if r.cases is not None]
    if 0 < len(cases) < len(runs):
        raise ValueError("one method has a figure for each case, the other has not")
    alike = all(r.draws.shape[1] == first.draws.shape[1] and r.patients == first.patients for r in runs)
    if not cases or first.groups is None:
        if not alike:
            raise ValueError(f"draws {[r.draws.shape for r in runs]} of {[r.patients for r in runs]} patients differ")
        return list(runs), 0
    finite = np.stack([np.isfinite(c).all(axis=0) for c in cases])
    whole = finite.all(axis=0)
    if not whole.any():
        raise ScanlearnError("No case has a figure under every seed of all methods: there is nothing to compare.")
    groups, kept = first.groups[whole], []
    for r, values in zip(runs, cases, strict=True):
        r = replace(r, groups=groups, cases=values[:, whole])
        if not alike or (finite != whole).any():
            draws, patients = case_draws(values[:, whole], groups, bootstrap, seed)
            r = replace(r, draws=draws, patients=patients)
        kept.append(r)
    return kept, int((~whole).sum())


def score_runs(
    scores: Any,
    codes: Any,
    classes: Sequence[str],
    patients: Any,
    *,
    figure: str = "auroc",
    seeds: Sequence[int] | None = None,
    bootstrap: int = 2000,
    seed: int = 0,
) -> Runs:
    """Runs whose figure is a macro figure of a classifier: one of ``classification_metrics.FIGURES``.

    Args:
        scores: (S, N, K) probabilities under each seed; for two classes also (S, N), those of the last class.
        codes, classes, patients: as ``classification_metrics``, the same for all seeds.
    """
    scores, codes, patients = (np.asarray(v) for v in (scores, codes, patients))
    draws = np.stack([macro_draws(s, codes, classes, patients, figure, bootstrap, seed) for s in scores])
    labelled = ~np.isnan(codes.astype(float)).all(axis=1) if codes.ndim == 2 else codes >= 0
    runs = Runs(draws, len(np.unique(patients[labelled])), _names(seeds, len(scores)), groups=patients[labelled])
    if figure != "auroc" or codes.ndim == 2 or len(classes) != 2:
        return runs
    yes = scores[:, labelled] if scores.ndim == 2 else scores[:, labelled, -1]
    return replace(runs, scores=yes.astype(np.float64), positive=codes[labelled] == 1)


def _names(seeds: Sequence[int] | None, count: int) -> tuple[int, ...]:
    return tuple(range(count)) if seeds is None else tuple(seeds)
