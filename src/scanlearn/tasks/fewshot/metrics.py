"""Figures of each episode, and of each resample of the patients that the queries are of, by the same compiled loop."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from scipy.special import logsumexp
from scipy.stats import rankdata

from scanlearn.tasks.bootstrap import PatientBootstrap, estimate

FIGURES = ("accuracy", "precision", "recall", "specificity", "f1", "auc")


def judge(
    logits: np.ndarray, truth: np.ndarray, patients: np.ndarray, resamples: PatientBootstrap
) -> tuple[np.ndarray, np.ndarray, int]:
    """Judge E episodes of Q queries with logits (E, Q, W).

    Two ways are one question, "is it the last class?"; with three and more each class is asked about against the rest
    and the figures are their means, accuracy apart, which is the share of queries that is right. Precision and F1 of an
    episode without any positive answer are 0. Recall, specificity and AUC need queries of both kinds, else NaN.

    Args:
        truth: int (E, Q), the way 0..W-1; -1 where there is no query.
        patients: int (E, Q), numbers as in ``resamples``.

    Returns:
        float64 (E, 6), the figures of each episode in the order of ``FIGURES``; float64 (1 + B, 6), their means over
        episodes in the sample (row 0) and in each resample, where a query counts as often as its patient was drawn; and
        how many episodes have a question that was never answered with yes.
    """
    asked, margins = _margins(logits)
    margins = np.where(truth[:, None] >= 0, margins, -np.inf)
    order = np.argsort(-margins, axis=2, kind="stable")
    taken = lambda values: np.take_along_axis(np.broadcast_to(values, order.shape), order, axis=2)  # noqa: E731
    values, totals, silent = _judge(
        taken(margins),
        taken(truth[:, None] == asked[:, None]),
        taken(logits.argmax(2)[:, None] == asked[:, None]),
        np.where(taken(truth[:, None]) < 0, -1, taken(patients[:, None])),
        resamples.counts,
    )
    sums, defined = totals
    means = np.divide(sums, defined, out=np.full(sums.shape, np.nan), where=defined > 0)
    return values, means, int(silent)


def pooled_auc(logits: np.ndarray, truth: np.ndarray) -> float:
    """AUC of the queries of all episodes in one ranking, by the same margins as ``judge``; NaN without both kinds.

    With three ways and more every query is asked about each way, and all questions are in the one ranking. Episodes
    whose margins lie on other scales are compared as they are: the AUC of an episode does not feel that, this one does.
    """
    asked, margins = _margins(logits)
    there = np.broadcast_to((truth >= 0)[:, None], margins.shape)
    positive = (truth[:, None] == asked[:, None])[there]
    ranks = rankdata(margins[there])
    yes, no = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - yes * (yes + 1) / 2) / (yes * no)) if yes and no else float("nan")


def _margins(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ways that are asked about, and float64 (E, questions, Q): one against the rest.

    Monotone in the probability, and never saturated as that is.
    """
    ways = logits.shape[2]
    asked = np.arange(ways) if ways > 2 else np.array([1])
    rest = np.stack([logsumexp(np.delete(logits, w, axis=2), axis=2) for w in asked], axis=1)
    return asked, logits.transpose(0, 2, 1)[:, asked] - rest


@numba.njit(cache=True, nogil=True)
def _judge(margins, positive, answer, patient, counts):  # type: ignore[no-untyped-def]
    # All (E, questions, Q), queries in falling order of margin; patient -1 ends the list.
    episodes, questions, queries = margins.shape
    values = np.zeros((episodes, 6))
    totals = np.zeros((2, len(counts), 6))
    silent = 0
    figures = np.empty(6)
    for e in range(episodes):
        any_silent = False
        for b in range(len(counts)):
            figures[:] = 0.0
            for w in range(questions):
                tp, fp, fn, tn, pairs = 0.0, 0.0, 0.0, 0.0, 0.0
                hits, misses, group_hits, group_misses = 0.0, 0.0, 0.0, 0.0
                for i in range(queries):
                    if patient[e, w, i] < 0:
                        break
                    weight = counts[b, patient[e, w, i]]
                    if positive[e, w, i]:
                        group_hits += weight
                        if answer[e, w, i]:
                            tp += weight
                        else:
                            fn += weight
                    else:
                        group_misses += weight
                        if answer[e, w, i]:
                            fp += weight
                        else:
                            tn += weight
                    last = i + 1 == queries or patient[e, w, i + 1] < 0
                    if last or margins[e, w, i] != margins[e, w, i + 1]:
                        pairs += group_misses * (hits + group_hits / 2)  # ties count half
                        hits, misses = hits + group_hits, misses + group_misses
                        group_hits, group_misses = 0.0, 0.0
                total = tp + fp + fn + tn
                right = tp if questions > 1 else tp + tn
                figures[0] += right / total * questions if total > 0 else np.nan
                no_positive = hits == 0.0
                figures[1] += np.nan if no_positive else tp / (tp + fp) if tp + fp > 0 else 0.0
                figures[2] += np.nan if no_positive else tp / hits
                figures[3] += np.nan if misses == 0.0 else tn / misses
                figures[4] += np.nan if no_positive else 2 * tp / (2 * tp + fp + fn)
                figures[5] += np.nan if no_positive or misses == 0.0 else pairs / (hits * misses)
                if b == 0 and tp + fp == 0:
                    any_silent = True
            figures /= questions
            if b == 0:
                values[e] = figures
            for f in range(6):
                if not np.isnan(figures[f]):
                    totals[0, b, f] += figures[f]
                    totals[1, b, f] += 1.0
        if any_silent:
            silent += 1
    return values, totals, silent


def summary(values: np.ndarray, means: np.ndarray) -> dict[str, dict[str, Any]]:
    """Per figure: ``mean`` and ``std`` over episodes, ``low``..``high`` of the episodes (1.96 std / sqrt(E)) and of the
    patients (95 % of the resamples), and how many ``episodes`` have the figure at all."""
    found = {}
    for f, figure in enumerate(FIGURES):
        each = values[~np.isnan(values[:, f]), f]
        mean = float(each.mean()) if len(each) else float("nan")
        std = float(each.std(ddof=1)) if len(each) > 1 else float("nan")
        half = 1.96 * std / np.sqrt(max(len(each), 1))
        by_patient = estimate(means[:, f])
        found[figure] = {
            "mean": mean,
            "std": std,
            "episodes": len(each),
            "episode_interval": {"low": mean - half, "high": mean + half},
            "patient_interval": {name: by_patient[name] for name in ("low", "high", "skipped")},
        }
    return found
