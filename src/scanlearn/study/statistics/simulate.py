"""Simulated studies whose truth is known: what the intervals and tests of this package are checked against."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit
from scipy.stats import norm

from scanlearn.tasks.bootstrap import PatientBootstrap
from scanlearn.tasks.classification_metrics import ranking


@dataclass(frozen=True)
class Design:
    """How a study is drawn; standard deviations are on the scale of the score before it becomes a figure.

    Attributes:
        seeds, patients: S and P.
        seed_sd: of what a seed adds to one method's networks.
        patient_sd: of what a patient adds to all networks (a hard case).
        method_sd: of what a patient adds to all networks of one method (what a method finds hard).
        rest_sd: of what a patient adds to a single network.
        scans: cases of each patient.
    """

    seeds: int = 5
    patients: int = 120
    seed_sd: float = 0.1
    patient_sd: float = 0.8
    method_sd: float = 0.5
    rest_sd: float = 0.5
    scans: int = 1


def dice_studies(rng: np.random.Generator, studies: int, design: Design, levels: np.ndarray) -> np.ndarray:
    """Dice-like figures (studies, methods, S, P): expit(level + seed + patient + ...), left-skewed near 1."""
    shape = (studies, len(levels), design.seeds, design.patients)
    latent = _noise(rng, shape, design) + rng.normal(0, design.rest_sd, shape)
    latent += rng.normal(0, design.seed_sd, (*shape[:3], 1))
    return expit(latent + np.asarray(levels)[:, None, None])


def dice_truth(design: Design, levels: np.ndarray) -> np.ndarray:
    """(methods,) the mean Dice over all seeds and patients that could be drawn, by Gauss-Hermite quadrature."""
    points, weights = np.polynomial.hermite_e.hermegauss(80)
    sd = np.sqrt(design.seed_sd**2 + design.patient_sd**2 + design.method_sd**2 + design.rest_sd**2)
    return expit(np.asarray(levels, np.float64)[:, None] + sd * points) @ weights / weights.sum()


def score_studies(
    rng: np.random.Generator, studies: int, design: Design, levels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(scores (studies, methods, S, N), positive (N,), patient (N,)): binormal, every second patient is positive.

    A seed changes how far a network holds positive and negative cases apart.
    """
    patient = np.repeat(np.arange(design.patients), design.scans)
    positive = patient % 2 == 1
    noise = _noise(rng, (studies, len(levels), design.seeds, design.patients), design)
    shape = (studies, len(levels), design.seeds, len(patient))
    scores = noise[..., patient] + rng.normal(0, design.rest_sd, shape)
    apart = np.asarray(levels)[:, None] + rng.normal(0, design.seed_sd, shape[:3])
    return scores + apart[..., None] * positive, positive, patient


def score_truth(design: Design, levels: np.ndarray) -> np.ndarray:
    """(methods,) the mean AUROC over all seeds and patients that could be drawn: Phi(level / sd of a difference)."""
    case = design.patient_sd**2 + design.method_sd**2 + design.rest_sd**2
    return norm.cdf(np.asarray(levels) / np.sqrt(2 * case + design.seed_sd**2))


def study_draws(
    kind: str, rng: np.random.Generator, studies: int, design: Design, levels: np.ndarray, bootstrap: int
) -> tuple[np.ndarray, np.ndarray]:
    """What ``Runs.draws`` holds, of many simulated studies at once, and the truth.

    Args:
        kind: "dice" or "auroc".
        levels: (M,) how good each method is, before the figure.
        bootstrap: B, the number of resamples.

    Returns:
        draws (studies, M, S, 1 + B) and the true mean figures (M,).
    """
    if kind == "dice":
        values = dice_studies(rng, studies, design, levels)
        totals = PatientBootstrap(np.arange(design.patients), bootstrap, 0).totals(np.moveaxis(values, -1, 0))
        return np.moveaxis(totals, 0, -1) / design.patients, dice_truth(design, levels)
    scores, positive, patient = score_studies(rng, studies, design, levels)
    counts = PatientBootstrap(patient, bootstrap, 0).counts
    draws = np.stack([ranking(s, positive, counts, patient)[0] for s in scores.reshape(-1, len(patient))])
    return draws.reshape(*scores.shape[:3], -1), score_truth(design, levels)


def _noise(rng: np.random.Generator, shape: tuple[int, ...], design: Design) -> np.ndarray:
    studies, methods, _, patients = shape
    hard = rng.normal(0, design.patient_sd, (studies, 1, 1, patients))
    return hard + rng.normal(0, design.method_sd, (studies, methods, 1, patients))
