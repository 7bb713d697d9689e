"""Predicted masks held against those that came with the scans: the figures of each case, as in a test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from scanlearn.console import say, warn
from scanlearn.errors import ScanlearnError
from scanlearn.files import write_json
from scanlearn.scans.conform import Conformed
from scanlearn.scans.geometry import spacing_of
from scanlearn.tasks.kept_cases import KeptCases
from scanlearn.tasks.segmentation_metrics import segmentation_case, segmentation_metrics

RESULTS = "results.json"


class Compared:
    """Holds each prediction against the mask of its scan, on the grid that the run was trained on.

    Used as a context around the predictions; ``finish`` says and writes the figures of those that have a mask.

    Args:
        facts: of the run, see ``tasks.finetune``.
        out: the folder of predictions: cases.parquet, examples.npz (see ``KeptCases``) and results.json are written.
    """

    def __init__(self, facts: Mapping[str, Any], out: Path):
        if facts["task"] != "segment":
            raise ScanlearnError(f"A run of the task {facts['task']} draws no masks to compare: leave --masks out.")
        names = facts["classes"][1:]
        self.facts, self.out = facts, out
        self.classes = facts.get("regions") or {name: [i + 1] for i, name in enumerate(names)}
        self.empty = facts.get("empty", "left_out")
        self.kept = KeptCases(out, list(self.classes), self.empty)
        self._number = np.zeros(256, np.uint8)
        self._number[facts["mask_values"]] = np.arange(1, len(names) + 1)
        self._known = {0, *facts["mask_values"]}
        self._odd: set[int] = set()
        self._patients: list[str] = []
        self._without = 0

    def __enter__(self) -> Compared:
        self.kept.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.kept.__exit__(*error)

    def add(self, name: str, row: int, patient: str, image: Tensor, found: np.ndarray, item: Conformed) -> None:
        """One scan: image (C, *S) in [0, 1] and classes (*S) on the run's grid, as ``item`` is."""
        if item.mask is None:
            self._without += 1
            return
        self._odd |= set(np.unique(item.mask).tolist()) - self._known
        truth = self._number[item.mask]
        case = segmentation_case(found, truth, self.classes, spacing_of(item.affine, truth.ndim))
        self.kept.add(name, row, case, image[0].cpu().numpy(), truth, found, item.affine)
        self._patients.append(patient)

    def finish(self, checked: Mapping[str, Any]) -> None:
        """results.json and a line for the screen; before the end of the context, so that nothing is left of no case.

        checked: what is known of these scans in the training of the run, see ``engine.leaks``.
        """
        if not self.kept.cases:
            raise ScanlearnError("None of the predicted scans has a mask to compare with: leave --masks out.")
        if self._without:
            warn(f"{self._without} scans have no mask and are not compared.")
        if self._odd:
            warn(
                f"the masks hold the values {sorted(self._odd)}, which the run does not know: they count as background."
            )
        metrics = segmentation_metrics(self.kept.cases, list(self.classes), np.array(self._patients), empty=self.empty)
        write_json(self.out / RESULTS, {"classes": self.facts["classes"], "test": metrics, "checked": checked})
        dice = metrics["macro"]["dice"]["value"]
        say(f"{len(self.kept.cases)} scans compared with their masks: mean Dice {dice:.3f}.")
