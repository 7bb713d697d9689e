"""Predicted boxes as a table in the submission format of the RSNA pneumonia challenge."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from scanlearn.files import replacing
from scanlearn.tasks.detection_metrics import Boxes


def prediction_string(corners: np.ndarray, score: np.ndarray) -> str:
    """``conf x y width height ...`` of one image, most confident first, in pixels of its file; "" without boxes."""
    order = np.argsort(-score, kind="stable")
    sides = [(left, top, right - left, bottom - top) for top, left, bottom, right in corners[order]]
    return " ".join(
        f"{conf:.4f} " + " ".join(f"{v:.1f}" for v in box) for conf, box in zip(score[order], sides, strict=True)
    )


def write_submission(path: Path, names: Sequence[str], found: Boxes, threshold: float) -> None:
    """A row for each image: patientId (its name), PredictionString (its boxes from ``threshold`` on)."""
    assert found.score is not None
    kept = found.rows(found.score >= threshold)
    assert kept.score is not None
    parts = [kept.image == i for i in range(len(names))] if len(kept) else [np.zeros(0, bool)] * len(names)
    strings = [prediction_string(kept.corners[part], kept.score[part]) for part in parts]
    with replacing(path) as temporary:
        pacsv.write_csv(pa.table({"patientId": list(names), "PredictionString": strings}), temporary)
