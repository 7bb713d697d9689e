"""Figures as tables: metrics with their intervals, who was confused with whom, parts, environment, quarantine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from textwrap import shorten
from typing import Any

from scanlearn.engine.record import Record
from scanlearn.scans.rows import kinds
from scanlearn.study.page import Cell, Shaded, Table, count, measured
from scanlearn.tasks.bootstrap import ONE_PATIENT

CLASSIFICATION = {
    "auroc": "AUROC",
    "ap": "average precision",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
}
SEGMENTATION = {"dice": "Dice", "iou": "IoU", "hd95": "HD95", "pooled_dice": "Dice, pooled"}
DETECTION = {"ap50": "AP50", "ap": "AP 50 to 95", "challenge": "challenge score"}
COUNTED = {"missed": "missed", "invented": "invented", "both_empty": "both empty"}
DIGITS = {"hd95": 1}


def metric_table(test: Mapping[str, Any], *, patients_known: bool = True) -> Table:
    """Figures of every class and their mean, each with its 95 % interval.

    ``test`` is the test of a classifier, a segmenter or a detector.
    """
    segmentation = "dice" in test["macro"]
    figures = SEGMENTATION if segmentation else DETECTION if "ap50" in test["macro"] else CLASSIFICATION
    counts = COUNTED if segmentation else {"positives": "with", "negatives": "without"}
    if figures is DETECTION:
        counts = {"boxes": "boxes", "handed_in": "handed in"}
    head = ["class", *(counts.values() if not segmentation else ()), *figures.values()]
    head += list(counts.values()) if segmentation else []
    rows: list[list[Cell]] = []
    for name, found in test["classes"].items():
        numbers: list[Cell] = [f"{found[key]:,}" for key in counts]
        measures: list[Cell] = [measured(found[key], DIGITS.get(key, 3)) for key in figures]
        rows.append([name, *(measures + numbers if segmentation else numbers + measures)])
    several = len(rows) > 1
    if several:
        measures = [measured(test["macro"][key], DIGITS.get(key, 3)) for key in figures]
        blank: list[Cell] = [""] * len(counts)
        rows.append(["mean over classes", *(measures + blank if segmentation else blank + measures)])
    whose = f" of {count(test['patients'], 'patient')}" if patients_known else ", patients not known"
    caption = f"Test figures with 95 % intervals: {count(test['cases'], 'scan')}{whose}."
    return Table(caption, head, rows, total=several, note=_note(test, segmentation))


def _note(test: Mapping[str, Any], segmentation: bool) -> str:
    settings = test["bootstrap"]
    if test["patients"] < 2:
        words = f"There are no intervals: {ONE_PATIENT}."
    else:
        words = f"Intervals: {settings['resamples']:,} resamples of whole patients."
    if segmentation:
        words += (
            " HD95 is the 95 % surface distance in mm (pixels where a file has no spacing), over the cases in which "
            "both masks are there; missed and invented masks are counted beside it."
        )
    if "ap50" in test["macro"]:
        words += (
            " AP50 is COCO's average precision at an overlap (IoU) of 0.5, AP its mean over 0.5 to 0.95. The challenge "
            "score is that of RSNA's pneumonia challenge and depends on which boxes are handed in."
        )
    if test.get("kind") == "multiclass":
        words += " Accuracy in the last row is the share of all scans that got their class."
    if test.get("missing"):
        words += f" {count(test['missing'], 'scan')} without a label did not count."
    return words


def confusion_table(truth: Sequence[str], said: Sequence[str], classes: Sequence[str]) -> Table:
    """How often a scan of a class (row) was taken for a class (column); the ground is the share of the row."""
    pairs = Counter(zip(truth, said, strict=True))
    rows: list[list[Cell]] = []
    for name in classes:
        line = [pairs[name, other] for other in classes]
        total = max(sum(line), 1)
        rows.append([name, *(Shaded(f"{n:,}", n / total) for n in line)])
    return Table("Which class (row) was taken for which (column)", ["is \\ said", *classes], rows)


def parts_table(record: Record) -> Table:
    """Scans and patients of each part."""
    rows: list[list[Cell]] = [
        [name, f"{len(record.rows(name)):,}", f"{len(record.patients(name)):,}"] for name in record.parts
    ]
    return Table("Parts of this run", ["part", "scans", "patients"], rows)


LONGEST_REASON = 110  # characters


def quarantine_table(quarantined: Sequence[Mapping[str, str]]) -> Table:
    """Why scans were left out when the store was made, and how many for each reason; reasons name no file."""
    found = kinds(item["reason"] for item in quarantined)
    rows: list[list[Cell]] = [
        [shorten(why.rstrip("."), LONGEST_REASON, placeholder=" …"), f"{n:,}"] for n, why in found
    ]
    return Table("Scans left out when the store was made", ["reason", "scans"], rows)


ENVIRONMENT = {
    "scanlearn": "scanlearn",
    "python": "Python",
    "torch": "PyTorch",
    "numpy": "NumPy",
    "system": "system",
    "device": "device",
    "threads": "threads",
    "ranks": "ranks",
    "precision": "precision",
    "strategy": "strategy",
    "seed": "seed",
    "store": "content key of the store",
}


def environment_table(environment: Mapping[str, Any], parameters: int) -> Table:
    """What a reader needs to judge or repeat a run."""
    rows: list[list[Cell]] = []
    for key, label in ENVIRONMENT.items():
        if key in environment:
            value = str(environment[key])
            rows.append([label, value[:16] + "…" if key == "store" else value])
    if parameters:
        rows.append(["parameters of the network", f"{parameters:,}"])
    return Table("Environment", ["what", "value"], rows, words=True)
