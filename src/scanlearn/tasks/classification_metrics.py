"""How good a classifier is, each figure with a 95 % interval from resampled patients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np

from scanlearn.errors import ScanlearnError
from scanlearn.tasks.bootstrap import PatientBootstrap, estimate, mean_of_defined, ratio

FIGURES = ("auroc", "ap", "accuracy", "balanced_accuracy", "sensitivity", "specificity")


def classification_metrics(
    scores: Any,
    codes: Any,
    classes: Sequence[str],
    patients: Any,
    *,
    bootstrap: int = 2000,
    seed: int = 0,
    threshold: float | Sequence[float] | np.ndarray = 0.5,
    mean_over: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Figures of a classifier on N cases, for each class and as the mean over classes ("macro").

    Two classes are judged as one question, "is it the last class?". With three and more every class is judged against
    the rest, and a case belongs to the class with the highest score. With several labels a case each label is a
    question of its own. Cases (or cells) without a label do not count.

    Args:
        scores: probabilities (N, K); for two classes also (N,), the probability of the last class.
        codes: int (N,) with -1 for missing, or float (N, K) for several labels a case: 0, 1, and what does not count, -1
            (uncertain) and NaN.
        classes: the K names.
        patients: (N,) whose cases they are. Patients are resampled, all cases of one together.
        threshold: a case is positive from this score on; one for all, or one for each label. Choose it on the
            validation part with ``youden_threshold``, never on the cases that are judged. Unused with three and more
            classes.
        mean_over: of several labels, those that "macro" is the mean of; None: all.

    Returns:
        ``{"kind", "cases", "patients", "missing", "threshold", "classes": {name: {"positives", "negatives", "uncertain"
        where some are, figure: estimate}}, "macro": {figure: estimate}, "bootstrap": {...}}`` with the names in
        ``FIGURES`` and estimates ``{"value", "low", "high", "skipped"}``. ``skipped`` counts resamples without a positive
        or without a negative, which have no such figure. A class without a positive or a negative case has NaN and is
        left out of the mean; ``macro`` of three and more classes has as accuracy the share of all cases that is right.
    """
    cases = _Cases(scores, codes, classes, patients, threshold)
    resamples = PatientBootstrap(cases.patients, bootstrap, seed)
    by_class, macro = _resampled(cases, resamples, mean_over)
    return {
        "kind": cases.kind,
        "cases": len(cases.scores),
        "patients": resamples.patients,
        "missing": cases.missing,
        "threshold": None if cases.kind == "multiclass" else dict(zip(cases.names, cases.threshold, strict=True)),
        "classes": {
            name: {
                "positives": int((cases.targets[:, i] == 1).sum()),
                "negatives": int((cases.targets[:, i] == 0).sum()),
                **({"uncertain": int(cases.uncertain[i])} if cases.uncertain[i] else {}),
                **{figure: estimate(by_class[figure][:, i]) for figure in FIGURES},
            }
            for i, name in enumerate(cases.names)
        },
        "macro": {figure: estimate(macro[figure]) for figure in FIGURES},
        "bootstrap": {"resamples": bootstrap, "unit": "patient", "level": 0.95, "seed": seed},
    }


def macro_draws(
    scores: Any, codes: Any, classes: Sequence[str], patients: Any, figure: str, bootstrap: int, seed: int
) -> np.ndarray:
    """(1 + bootstrap,) macro figure of the sample and of its resamples; the same seed gives the same patients."""
    cases = _Cases(scores, codes, classes, patients, 0.5)
    return _resampled(cases, PatientBootstrap(cases.patients, bootstrap, seed))[1][figure]


def youden_threshold(scores: Any, codes: Any, classes: Sequence[str]) -> np.ndarray:
    """Thresholds with the largest sensitivity + specificity - 1, one for each question; give it *validation* cases.

    Halfway between the two neighbouring scores; of equally good thresholds the highest; NaN for a question whose cases
    are all of one kind. Arguments as ``classification_metrics``; with three and more classes there is none to choose.
    """
    cases = _Cases(scores, codes, classes, np.arange(len(codes)), 0.5)
    if cases.kind == "multiclass":
        raise ScanlearnError("A threshold can be chosen for two classes or for several labels, not for three classes.")
    chosen = np.full(len(cases.names), np.nan)
    for i in range(len(cases.names)):
        known = ~np.isnan(cases.targets[:, i])
        score, positive = cases.scores[known, i], cases.targets[known, i] == 1
        if positive.all() or not positive.any():
            continue
        levels = np.unique(score)[::-1]
        order = np.sort(score[positive]), np.sort(score[~positive])
        sensitivity, false_alarms = (1 - np.searchsorted(part, levels, "left") / len(part) for part in order)
        best = int(np.argmax(sensitivity - false_alarms))
        below = levels[best + 1] if best + 1 < len(levels) else 0.0
        chosen[i] = (levels[best] + below) / 2
    return chosen


class _Cases:
    """The labelled cases in one shape: scores (n, Q) and targets (n, Q) in {0, 1, NaN} of Q questions called names."""

    def __init__(self, scores: Any, codes: Any, classes: Sequence[str], patients: Any, threshold: Any):
        scores, codes, patients = (np.asarray(v) for v in (scores, codes, patients))
        scores = scores.astype(np.float64)
        several = codes.ndim == 2
        if scores.ndim == 1 or scores.shape[1] == 1:
            scores = scores.reshape(-1, 1) if several else np.stack([1 - scores.ravel(), scores.ravel()], axis=1)
        _check(scores, codes, classes, patients)
        keep = (codes >= 0).any(axis=1) if several else codes >= 0
        self.uncertain = (codes == -1).sum(axis=0) if several else np.zeros(len(classes), np.int64)
        self.missing = int((~keep).sum())
        self.scores, self.patients = scores[keep], patients[keep]
        self.names = list(classes)
        self.kind = "multilabel" if several else "binary" if len(classes) == 2 else "multiclass"
        if several:
            self.targets = np.where(codes[keep] < 0, np.nan, codes[keep].astype(np.float64))
        else:
            self.targets = (codes[keep, None] == np.arange(len(classes))).astype(np.float64)
        if self.kind == "binary":
            self.scores, self.targets, self.names = self.scores[:, 1:], self.targets[:, 1:], self.names[1:]
        self.threshold = [float(t) for t in np.broadcast_to(np.asarray(threshold, np.float64), len(self.names))]

    def predicted(self) -> np.ndarray:
        """bool (n, Q): which questions the classifier answers with yes."""
        if self.kind == "multiclass":
            return self.scores.argmax(1)[:, None] == np.arange(len(self.names))
        return self.scores >= np.array(self.threshold)


def _check(scores: np.ndarray, codes: np.ndarray, classes: Sequence[str], patients: np.ndarray) -> None:
    if scores.shape != (len(codes), len(classes)) or len(patients) != len(codes):
        raise ValueError(
            f"scores {scores.shape}, codes {codes.shape}, patients {patients.shape} do not fit {len(classes)} classes"
        )
    if codes.ndim == 2 and codes.shape != scores.shape:
        raise ValueError(f"scores {scores.shape} and labels {codes.shape} differ in shape")
    if codes.ndim == 1 and len(codes) and codes.max() >= len(classes):
        raise ValueError(f"code {codes.max()} has no name among {len(classes)} classes")
    if not np.isfinite(scores).all():
        bad = int((~np.isfinite(scores)).any(axis=1).sum())
        raise ScanlearnError(f"{bad} of {len(scores)} cases have a score that is no number: the network has diverged.")
    if len(scores) and (scores.min() < -1e-3 or scores.max() > 1 + 1e-3):
        raise ValueError(f"scores are no probabilities: they lie in {scores.min():.3g}..{scores.max():.3g}")


def _resampled(
    cases: _Cases, resamples: PatientBootstrap, mean_over: Sequence[str] | None = None
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Every figure in the sample (row 0) and in each resample: of each question (1+B, Q), and their mean (1+B,)."""
    known, positive, answer = ~np.isnan(cases.targets), cases.targets == 1, cases.predicted()
    positives = resamples.totals(positive)
    negatives = resamples.totals(known & ~positive)
    found, cleared = resamples.totals(positive & answer), resamples.totals(known & ~positive & ~answer)
    sensitivity, specificity = ratio(found, positives), ratio(cleared, negatives)
    by_class = {
        "auroc": np.full(positives.shape, np.nan),
        "ap": np.full(positives.shape, np.nan),
        "accuracy": ratio(found + cleared, positives + negatives),
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "sensitivity": sensitivity,
        "specificity": specificity,
    }
    for i in range(len(cases.names)):
        rows = np.flatnonzero(known[:, i])
        by_class["auroc"][:, i], by_class["ap"][:, i] = ranking(
            cases.scores[rows, i], positive[rows, i], resamples.counts, resamples.index[rows]
        )
    counted = [i for i, name in enumerate(cases.names) if mean_over is None or name in mean_over]
    macro = {figure: mean_of_defined(draws[:, counted]) for figure, draws in by_class.items()}
    if cases.kind == "multiclass":
        right = (answer & positive).any(axis=1)
        macro["accuracy"] = ratio(resamples.totals(right), resamples.totals(np.ones(len(right))))
        macro["balanced_accuracy"] = macro["sensitivity"]  # the usual meaning with three and more classes
    return by_class, macro


def ranking(
    scores: np.ndarray, positive: np.ndarray, counts: np.ndarray, patient: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """AUROC (ties count half) and average precision of scores (N,) against positive (N,) bool in each resample.

    A case counts as often as its patient (N,) was drawn, counts (B, P). Returns two arrays (B,); NaN where a resample
    has no positive or no negative case. The cases are sorted once for all resamples.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.diff(scores[order], append=np.inf) != 0
    return _ranking(counts, patient[order], positive[order], ends)


@numba.njit(cache=True, nogil=True)
def _ranking(counts, patient, positive, ends):  # type: ignore[no-untyped-def]
    # Cases come in falling order of score; ends marks the last of each group of equal scores.
    auroc, ap = np.full(len(counts), np.nan), np.full(len(counts), np.nan)
    for b in range(len(counts)):
        hits, misses, pairs, precision = 0.0, 0.0, 0.0, 0.0
        group_hits, group_misses = 0.0, 0.0
        for i in range(len(patient)):
            weight = counts[b, patient[i]]
            if positive[i]:
                group_hits += weight
            else:
                group_misses += weight
            if ends[i]:
                pairs += group_misses * (hits + group_hits / 2)
                hits, misses = hits + group_hits, misses + group_misses
                if group_hits > 0:
                    precision += group_hits * hits / (hits + misses)
                group_hits, group_misses = 0.0, 0.0
        if hits > 0 and misses > 0:
            auroc[b], ap[b] = pairs / (hits * misses), precision / hits
    return auroc, ap
