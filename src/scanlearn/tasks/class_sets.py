"""Lists of findings that papers report, by one word: `--classes chexpert_tasks`."""

from __future__ import annotations

from collections.abc import Sequence

# In the order of the published lists: of the split files of ChestX-ray14, of the columns of CheXpert's tables. The column
# "No Finding" is no finding: its scans say "none".
CLASS_SETS: dict[str, tuple[str, ...]] = {
    "chestxray14": (
        *("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax"),
        *("Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia"),
    ),
    "chexpert": (
        *("Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema"),
        *("Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other"),
        *("Fracture", "Support Devices"),
    ),
    "chexpert_tasks": ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion"),
}


def class_names(asked: Sequence[str]) -> list[str]:
    """The classes that are asked for: those of a set, where its one word stands alone, or the names as they are."""
    return list(CLASS_SETS.get(asked[0], asked)) if len(asked) == 1 else list(asked)
