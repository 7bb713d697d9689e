"""Unlabelled scans beside those whose masks are seen: which they are, and how often they come."""

from __future__ import annotations

from typing import Any

import numpy as np

from scanlearn.engine.recipe import Recipe
from scanlearn.errors import ScanlearnError
from scanlearn.scans.sampling import Shares
from scanlearn.scans.store import Store

NONE, NATURAL = "none", "natural"


def unlabelled_share(plan: Recipe) -> float | str:
    """The recipe's ``segmentation.unlabelled``, checked: natural, a share of each batch, or none, also where unsaid."""
    asked = NONE if plan.segmentation.unlabelled is None else plan.segmentation.unlabelled
    if asked in (NONE, NATURAL):
        return str(asked)
    try:
        share = float(asked)
    except (TypeError, ValueError):
        share = 0.0
    if not 0 < share < 1 or isinstance(asked, bool):
        raise ScanlearnError(
            f"segmentation.unlabelled is none, natural, or a share of each batch between 0 and 1, not {asked!r}."
        )
    return share


def with_unlabelled(store: Store, plan: Recipe, rows: np.ndarray) -> dict[str, Any]:
    """The fields of ``Training`` for these labelled rows and, where the recipe wants them, the rest of the train part.

    natural: all scans are walked over alike, so a batch has as many labelled ones as chance gives (the published way).
    A share: every batch has the same number of them, and each of the two kinds is walked over at its own pace.

    Raises ScanlearnError where no scan is left, or where a batch would have none of one kind.
    """
    share = unlabelled_share(plan)
    if share == NONE:
        return {"rows": rows}
    others = np.setdiff1d(np.asarray(store.splits["train"]), rows)
    if not len(others):
        raise ScanlearnError(
            "No training scan is left unlabelled: give fewer --labels, or --segmentation.unlabelled none."
        )
    both = np.concatenate([rows, others])
    labelled = np.zeros(len(store), bool)
    labelled[rows] = True
    mixed: dict[str, Any] = {"rows": both, "labelled": labelled}
    if not isinstance(share, str):
        mixed["shares"] = Shares((~labelled[both]).astype(np.int64), (1 - share, share), block=plan.batch_size)
        count = mixed["shares"].quotas()
        if (count < 1).any():
            raise ScanlearnError(
                f"A batch of {plan.batch_size} has no room for both kinds of scans: set a larger batch_size."
            )
    return mixed
