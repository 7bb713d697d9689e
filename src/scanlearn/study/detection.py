"""The tested images of a detector: the worst and the best as pictures with their boxes, and the guess to beat."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from scanlearn.engine.run_folder import RunFolder
from scanlearn.scans.laid_boxes import to_grid
from scanlearn.scans.store import Store
from scanlearn.study.facts import Facts
from scanlearn.study.page import Strip, measured
from scanlearn.study.pictures import box_tile
from scanlearn.tasks.detect import labelled_test_rows, reference
from scanlearn.tasks.detection_metrics import Boxes, challenge_scores
from scanlearn.tasks.segment import read_unit

SHOWN = 4  # worst and best images


def detected(facts: Facts, store: Store | None) -> dict[str, Any]:
    """What is special about a detector, for its page."""
    return {
        "threshold": threshold_words(facts.results),
        "panels": [],
        "confusions": None,
        "cases": [] if store is None else box_strips(facts.run, facts.results["score_threshold"], store),
        "legend": True,
    }


def threshold_words(results: dict[str, Any]) -> str:
    """From which confidence boxes are handed in, and what a guess that never looks would score."""
    value, cases = results["score_threshold"], results["test"]["cases"]
    said = []
    for name in ("mean_box", "mean_boxes"):
        guess = results[name]
        ap50, challenge = (measured(guess[figure]).value for figure in ("ap50", "challenge"))
        each = boxes_in_words(guess["boxes"] // cases)
        said.append(f"{each} an AP50 of {ap50} and a challenge score of {challenge}")
    return (
        f"Boxes count from a confidence of {value:g}: {results['threshold']}. Guessing the training part's mean on every "
        f"image without looking gives, with {'; with '.join(dict.fromkeys(said))}."
    )


def boxes_in_words(number: int) -> str:
    """ "1 box", "2 boxes"."""
    return "1 box" if number == 1 else f"{number} boxes"


def read_boxes(run: RunFolder, rows: np.ndarray) -> Boxes:
    """The boxes that the run found on these test scans; ``image`` counts the entries of ``rows``."""
    table = pq.read_table(run.path / "predictions.parquet", filters=[("part", "==", "test")])
    corners = np.stack([table[edge].to_numpy() for edge in ("top", "left", "bottom", "right")], axis=1)
    where = np.full(int(rows.max(initial=-1)) + 1, -1)
    where[rows] = np.arange(len(rows))
    return Boxes(where[table["row"].to_numpy()], corners, table["score"].to_numpy())


def box_strips(run: RunFolder, threshold: float, store: Store) -> list[Strip]:
    """The images with the lowest and the highest challenge score, with the boxes of both sides."""
    rows = labelled_test_rows(store)
    found, truth = read_boxes(run, rows), reference(store, rows)
    assert found.score is not None
    found = found.rows(np.flatnonzero(found.score >= threshold))
    scores = challenge_scores(found, truth, len(rows))
    order = np.argsort(scores, kind="stable")[: int((~np.isnan(scores)).sum())]
    half = min(SHOWN, len(order) // 2) or len(order)
    strips = []
    for title, chosen in (("Worst images", order[:half]), ("Best images", order[::-1][:half])):
        pictures = []
        for i in chosen:
            here = np.full(len(truth), rows[i]), np.full(len(found), rows[i])
            sides = [to_grid(store, r, b.corners)[b.image == i] for r, b in zip(here, (truth, found), strict=True)]
            alt = (
                f"Test image {i + 1:,} with {boxes_in_words(len(sides[0]))} of the reference and "
                f"{boxes_in_words(len(sides[1]))} predicted; challenge score {scores[i]:.2f}"
            )
            image = read_unit(store, int(rows[i]), torch.device("cpu"))[0].numpy()
            pictures.append(box_tile(image, sides[0], sides[1], alt, caption=f"score {scores[i]:.2f}"))
        if pictures:
            strips.append(Strip(title, pictures, columns=SHOWN))
    return strips
