"""Confidence intervals by resampling patients: scans of one patient resemble each other, so it is patients that a new
study would draw anew, and intervals from resampled scans come out too narrow."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from scanlearn.catalog.groups import first_seen

LEVEL = 0.95
ONE_PATIENT = "one patient says nothing about others: an interval takes at least two"


class PatientBootstrap:
    """How often each patient is drawn in each resample; resample 0 is the sample itself, every patient once.

    Whatever is computed from ``counts`` therefore gives the estimate in row 0 and its bootstrap distribution in the
    rows below, by the same code. The draws depend on (seed, number of patients) alone, so that two models judged on the
    same patients, in one order, see the same resamples and their differences are paired. Patients are numbered as they
    first appear, not by their names, which another salt would change.

    Attributes:
        index: int (N,), the patient of each case, 0..P-1.
        counts: int16 (1 + resamples, P).
    """

    def __init__(self, patients: Any, resamples: int, seed: int):
        self.index = first_seen(patients)
        self.patients = int(self.index.max(initial=-1)) + 1
        if self.patients < 2:
            resamples = 0  # drawing one patient again and again says nothing about others: no interval
        generator = np.random.default_rng(seed)
        self.counts = np.ones((1 + resamples, self.patients), np.int16)
        for rows in self._blocks(first=1):
            shape = (rows.stop - rows.start, self.patients)
            slot = generator.integers(0, max(1, self.patients), shape) + np.arange(shape[0])[:, None] * self.patients
            self.counts[rows] = np.bincount(slot.ravel(), minlength=slot.size).reshape(shape)

    def totals(self, values: np.ndarray) -> np.ndarray:
        """Sums of values (N, ...) over the cases of each resample, (1 + resamples, ...): every mean is made of them."""
        per_patient = np.zeros((self.patients, *values.shape[1:]))
        np.add.at(per_patient, self.index, values)
        parts = [np.tensordot(self.counts[rows].astype(np.float64), per_patient, axes=1) for rows in self._blocks()]
        return np.concatenate(parts)

    def _blocks(self, first: int = 0) -> Iterator[slice]:
        size = max(1, 2**20 // max(1, self.patients))  # 8 MB of float64 at a time, however many patients there are
        for start in range(first, len(self.counts), size):
            yield slice(start, min(start + size, len(self.counts)))


def estimate(draws: np.ndarray) -> dict[str, float]:
    """``value`` and its 95 % percentile interval ``low``..``high`` from draws (1 + resamples,), row 0 the value itself.

    Draws that are NaN (a resample in which the figure is not defined) do not count and are reported as ``skipped``.
    The interval is NaN where the value is, or where fewer than two draws are left.
    """
    value, valid = float(draws[0]), draws[1:][~np.isnan(draws[1:])]
    low = high = float("nan")
    if not np.isnan(value) and len(valid) > 1:
        low, high = (float(v) for v in np.quantile(valid, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    return {"value": value, "low": low, "high": high, "skipped": len(draws) - 1 - len(valid)}


def in_words(found: Mapping[str, float]) -> str:
    """A figure and its interval for the console, where what cannot be told is said and not printed as nan.

    >>> in_words({"value": 0.8125, "low": 0.75, "high": 0.875})
    '0.812  (95 % interval 0.750 to 0.875)'
    """
    if math.isnan(found["value"]):
        return "not defined on these scans"
    if math.isnan(found["low"]):
        return f"{found['value']:.3f}  (no interval)"
    return f"{found['value']:.3f}  (95 % interval {found['low']:.3f} to {found['high']:.3f})"


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotient with NaN, and no warning, where the denominator is 0: there the figure is not defined."""
    shape = np.broadcast_shapes(np.shape(numerator), np.shape(denominator))
    return np.divide(numerator, denominator, out=np.full(shape, np.nan), where=np.asarray(denominator) > 0)


def mean_of_defined(draws: np.ndarray) -> np.ndarray:
    """(1+B,) mean over those columns of draws (1+B, K) that are defined in the sample, which is row 0.

    NaN in a resample that lacks one of them: a mean over changing classes would mix their difference into the interval.
    """
    defined = draws[:, ~np.isnan(draws[0])]
    return defined.mean(axis=1) if defined.shape[1] else np.full(len(draws), np.nan)
