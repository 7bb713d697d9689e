"""What a classifier is taught, and what it is tested by: the labels as they are, or as a policy reads the uncertain."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from scanlearn.catalog.labels import Labels
from scanlearn.console import say
from scanlearn.engine.device import default_device
from scanlearn.engine.embedding import CROPS
from scanlearn.engine.recipe import Recipe
from scanlearn.errors import ScanlearnError, unknown
from scanlearn.scans.store import Store
from scanlearn.tasks.class_sets import class_names
from scanlearn.tasks.classify import PER, scan_scores
from scanlearn.tasks.targets import class_labels
from scanlearn.tasks.trained import load_trained
from scanlearn.tasks.uncertain import first_pass, policies_of, training_targets

UNMENTIONED = {"absent": 0.0, "unknown": float("nan")}
Again = Callable[[str, dict[str, Any]], Path]  # the same fine-tuning with other settings: see ``kinds.Kind.teach``


def taught_labels(
    store: Store, target: str | None, column: Labels, plan: Recipe, seed: int, again: Again
) -> tuple[Labels, Labels]:
    """(the labels that count in the test, the labels that are learned) of the classes of ``column``.

    In the first, what is uncertain stays so and does not count; in the second, the policies of ``plan`` have decided.
    """
    how = plan.classification
    if how.unmentioned not in UNMENTIONED:
        raise unknown("reading of what is not mentioned", how.unmentioned, UNMENTIONED)
    if column.kind != "multilabel":
        if (how.uncertain, how.unmentioned, how.per) != ("ignore", "absent", "scan"):
            raise ScanlearnError(
                f"The column {target!r} has one label a scan: uncertain, unmentioned and per are for several labels."
            )
        return column, column
    policies = policies_of(how.uncertain, column.classes)
    truth = column
    if how.unmentioned != "absent":
        truth = class_labels(store, target, column.classes, unmentioned=UNMENTIONED[how.unmentioned])
    found = None
    if "self_trained" in policies:
        found = np.full(truth.codes.shape, np.nan, np.float32)
        relabelled = np.flatnonzero((truth.codes == -1).any(axis=1))
        relabelled = np.setdiff1d(relabelled, store.splits["test"])
        before = dict(zip(column.classes, first_pass(policies), strict=True))
        first = again("first_pass", {"classification.uncertain": before})
        say(f"second pass: {len(relabelled)} scans with uncertain labels get the probabilities of the first.")
        if len(relabelled):
            trained = load_trained(first, default_device())
            device = next(trained.network.parameters()).device
            found[relabelled] = scan_scores(
                trained.network, trained.class_logits, store, relabelled, {**trained.facts, "crops": 1}, device
            )
    return truth, Labels("multilabel", column.classes, training_targets(truth.codes, policies, seed, found))


def testing_facts(plan: Recipe, labels: Labels) -> dict[str, Any]:
    """What results.json says of how a classifier was taught and tested; checked here, before the training."""
    how = plan.classification
    if how.per not in PER:
        raise unknown("unit of the test", how.per, PER)
    if how.crops not in CROPS or (how.crops > 1 and plan.spatial_dims != 2):
        raise ScanlearnError("crops is 1, or 10 for 2D scans: the corners, the centre and their mirror images.")
    facts: dict[str, Any] = {"crops": how.crops}
    if labels.kind == "multilabel":
        over = labels.classes if how.mean_over is None else class_names(how.mean_over)
        for name in over:
            if name not in labels.classes:
                raise unknown("class", name, labels.classes)
        policies = dict(zip(labels.classes, policies_of(how.uncertain, labels.classes), strict=True))
        facts |= {"per": how.per, "uncertain": policies, "unmentioned": how.unmentioned, "mean_over": over}
    return facts
