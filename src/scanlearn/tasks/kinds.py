"""The tasks that a network can be fine-tuned for, and all that differs between them, as one table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from scanlearn.catalog.labels import Labels
from scanlearn.engine.beside import unlabelled_share, with_unlabelled
from scanlearn.engine.masks import drawn_classes, fill_in_classes, mask_labels
from scanlearn.engine.recipe import Recipe
from scanlearn.errors import unknown
from scanlearn.objectives.regions import checked_regions
from scanlearn.scans.store import Store
from scanlearn.tasks.classify import classification_loss, test_classifier
from scanlearn.tasks.detect import FIGURES, detection_loss, grid_labels, test_detector
from scanlearn.tasks.segment import segmentation_loss, test_segmenter
from scanlearn.tasks.segmentation_metrics import EMPTY
from scanlearn.tasks.sliding import MODES as WINDOWS
from scanlearn.tasks.targets import box_labels, class_labels
from scanlearn.tasks.taught import taught_labels, testing_facts
from scanlearn.tasks.uncertain import policies_of

MODES = ("full", "linear", "frozen")


@dataclass(frozen=True)
class Kind:
    """One task.

    Attributes:
        wanted: what a scan must have to be learned from, in one word.
        modes: those of ``MODES`` that it can be trained in.
        figures: names of the figures that are said at the end, under ``results["test"]["macro"]``; studies compare by
            the first unless told otherwise.
        labels: (store, target, classes) -> the labels to learn; ``labelled`` says which scans have one.
        outputs: (store, labels) -> what the network tells apart, in order.
        fill_in: (recipe as data, store, labels, mode): writes the objective and the network that follow from them.
        supervision: (store, labels) -> the fields of ``Training`` that hand them to the objective.
        test: (network, objective, store, labels, facts, run, device) -> ``{"test": metrics, ...}``; writes its tables.
        teach: (store, target, labels, plan, seed, again) -> (labels that count in the test, labels that are learned);
            ``again``: (folder in the run, settings to change) -> the same fine-tuning before this one, done once.
        told: (plan, labels) -> what results.json says besides; refuses settings of the test that cannot be met.
        whole: it sees scans whole, at the store's size unless told otherwise, whatever its weights were trained on.
        beside: (store, plan, labelled rows) -> the rows of ``Training``, with those beside them that have no label.
        loss: (learner, objective, store, rows, labels, input size) -> what validations go by, lower is better.
    """

    wanted: str
    modes: tuple[str, ...]
    figures: tuple[str, ...]
    labels: Callable[[Store, str | None, list[str] | None], Labels]
    outputs: Callable[[Store, Labels], list[str]]
    fill_in: Callable[[dict[str, Any], Store, Labels, str], None]
    supervision: Callable[[Store, Labels], dict[str, Any]]
    test: Callable[..., dict[str, Any]]
    loss: Callable[..., float]
    whole: bool = False
    teach: Callable[..., tuple[Labels, Labels]] = lambda store, target, labels, *how: (labels, labels)
    told: Callable[[Recipe, Labels], dict[str, Any]] = lambda plan, labels: {}
    beside: Callable[[Store, Recipe, np.ndarray], dict[str, Any]] = lambda store, plan, rows: {"rows": rows}


def _fill_in_classifier(data: dict[str, Any], store: Store, labels: Labels, mode: str) -> None:
    outputs = labels.classes
    several = labels.kind == "multilabel"
    uncertain = (data.get("classification") or {}).get("uncertain", "ignore")
    three_way = several and "multiclass" in policies_of(uncertain, outputs)
    data["objectives"]["classify"] |= {"classes": len(outputs), "multilabel": several, "three_way": three_way}
    data["network"] |= {"decoder": None, "freeze_encoder": mode == "linear"}


def _fill_in_segmenter(data: dict[str, Any], store: Store, labels: Labels, mode: str) -> None:
    fill_in_classes(data, store)


def _segmentation_facts(plan: Recipe, labels: Labels) -> dict[str, Any]:
    """What the test goes by."""
    how, segment = plan.segmentation, plan.objectives["segment"]
    regions = segment.get("regions") and checked_regions(segment["regions"], segment["classes"], "segment")
    if how.empty not in EMPTY:
        raise unknown("treatment of empty masks", how.empty, EMPTY)
    if how.windows not in WINDOWS:
        raise unknown("weights of windows", how.windows, WINDOWS)
    told = {"regions": regions, "smallest": how.smallest, "empty": how.empty, "unlabelled": unlabelled_share(plan)}
    windows = {"windows": how.windows, "overlap": how.overlap}
    return {name: value for name, value in told.items() if value} | windows


def _fill_in_detector(data: dict[str, Any], store: Store, labels: Labels, mode: str) -> None:
    data["network"] |= {"decoder": None, "freeze_encoder": False}


KINDS: dict[str, Kind] = {
    "classify": Kind(
        wanted="label",
        modes=MODES,
        figures=("auroc", "ap", "accuracy", "sensitivity", "specificity"),
        labels=class_labels,
        outputs=lambda store, labels: labels.classes,
        fill_in=_fill_in_classifier,
        supervision=lambda store, labels: {"labels": labels.codes},
        test=test_classifier,
        loss=classification_loss,
        teach=taught_labels,
        told=testing_facts,
    ),
    "segment": Kind(
        wanted="mask",
        modes=("full",),
        figures=("dice", "iou", "hd95"),
        labels=lambda store, target, classes: mask_labels(store),
        outputs=lambda store, labels: drawn_classes(store),
        fill_in=_fill_in_segmenter,
        supervision=lambda store, labels: {"masks": True},
        test=test_segmenter,
        loss=segmentation_loss,
        told=_segmentation_facts,
        beside=with_unlabelled,
    ),
    "detect": Kind(
        wanted="box",
        modes=("full",),
        figures=FIGURES,
        labels=box_labels,
        outputs=lambda store, labels: ["box"],
        fill_in=_fill_in_detector,
        supervision=lambda store, labels: {"boxes": grid_labels(store)},
        test=test_detector,
        loss=detection_loss,
        whole=True,
    ),
}
TASKS = tuple(KINDS)
