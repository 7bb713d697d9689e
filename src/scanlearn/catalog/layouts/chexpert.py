"""CheXpert (Stanford): 224,316 chest radiographs of 65,240 patients, 14 findings with uncertainty from reports.

Most cells are blank (not mentioned), -1 is uncertain, and what to make of both is a policy of the training, so cells
keep them: ``?Edema``, ``-Edema``, not named. Where "No Finding" stands beside devices, the cell names the devices. The
paths in the tables begin with the name of the copy that they were made for. 16 images called frontal have the position
LL and one RL. https://arxiv.org/abs/1901.07031
"""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from scanlearn.catalog.layouts.layout import Layout, Rows, Split, register
from scanlearn.catalog.layouts.radiographs import ages, files_by_tail, findings_of, sexes, table_of, tails, with_files
from scanlearn.catalog.layouts.tools import first_bytes, first_of, must_have, some_names
from scanlearn.errors import ScanlearnError

TITLE = "CheXpert"
PAGE = "https://stanfordaimi.azurewebsites.net (CheXpert)"
BATCHES = "|".join(
    f"CheXpert-v1.0 batch {batch}" for batch in ("1 (validate & csv)", "2 (train 1)", "3 (train 2)", "4 (train 3)")
)
FINDINGS = (
    *(
        "Enlarged Cardiomediastinum",
        "Cardiomegaly",
        "Lung Opacity",
        "Lung Lesion",
        "Edema",
        "Consolidation",
        "Pneumonia",
    ),
    *("Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices"),
)
UNCERTAIN = (12_403, 8_087, 5_598, 1_488, 12_984, 27_742, 18_770, 33_739, 3_145, 11_628, 2_653, 642, 1_079)
_ABOUT = ("Sex", "Age", "Frontal/Lateral", "AP/PA")
_TEST = 668  # images of the part that was published later


def _read(root: Path) -> Rows:
    files = files_by_tail(root, 3)
    parts = {
        "train": table_of(_table(root, "train.csv"), ["Path", *_ABOUT, *FINDINGS, "No Finding"], TITLE, PAGE),
        "val": table_of(_table(root, "valid.csv"), ["Path", *_ABOUT, *FINDINGS, "No Finding"], TITLE, PAGE),
    }
    test = first_of(root, "test_labels.csv|CheXpert/test_labels.csv")
    notes = []
    if test is not None:
        parts["test"] = _of_images(table_of(test, ["Path", *FINDINGS], TITLE, PAGE, [*_ABOUT, "No Finding"]), [*files])
        if len(parts["test"]) != _TEST:
            notes.append(f"the test part has {len(parts['test']):,} images (published {_TEST:,}).")
    table = pa.concat_tables([_filled(part) for part in parts.values()]).combine_chunks()
    keys = tails(table["Path"], 3)
    position = table["AP/PA"].combine_chunks()
    odd = pc.sum(pc.is_in(position, value_set=pa.array(["LL", "RL"]))).as_py()
    if odd:
        notes.append(f"{odd:,} images called frontal have the position LL or RL, which stands as their view.")
    findings = findings_of(table, FINDINGS)
    unsaid = pc.sum(pc.equal(findings, "")).as_py()
    if unsaid:
        notes.append(f"{unsaid:,} images have no word on any finding and count as not labelled.")
    rows = Rows(
        {
            "patient_id": [key.partition("/")[0] for key in keys],
            "study_id": [key.rpartition("/")[0] for key in keys],
            "view": pc.if_else(pc.equal(table["Frontal/Lateral"], "Lateral"), "lateral", position).to_pylist(),
            "findings": findings.to_pylist(),
            "sex": sexes(table["Sex"]).to_pylist(),
            "age": ages(table["Age"]).to_pylist(),
        },
        {"official": [part for part, of_part in parts.items() for _ in range(len(of_part))]},
        notes=notes,
    )
    return with_files(rows, keys, files, root, TITLE, PAGE)


def _table(root: Path, name: str) -> Path:
    """A table of the root, or of the first of the four archives that the whole set comes in."""
    found = first_of(root, f"{name}|*/{name}")
    return found or must_have(root, name, TITLE, PAGE)


def _of_images(table: pa.Table, keys: list[str]) -> pa.Table:
    """The table with a row for each image; some copies of the test part's labels have one for each study."""
    paths = table["Path"].to_pylist()
    if any(path.lower().endswith((".jpg", ".png")) for path in paths):
        return table
    row_of = {"/".join(path.strip("/").split("/")[-2:]): row for row, path in enumerate(paths)}
    inside = sorted(key for key in keys if key.rpartition("/")[0] in row_of)
    if not inside:
        raise ScanlearnError(
            f"test_labels.csv of {TITLE} names no image that is there; unpack the test part of {PAGE}."
        )
    taken = table.take([row_of[key.rpartition("/")[0]] for key in inside])
    return taken.set_column(taken.column_names.index("Path"), "Path", pa.array([f"{key}.jpg" for key in inside]))


def _filled(table: pa.Table) -> pa.Table:
    """The table with all columns; those of the test part may lack what is known of the patient."""
    for name in (*_ABOUT, "No Finding"):
        if name not in table.column_names:
            cells = pa.array([""] * len(table), pa.string())
            if name == "Frontal/Lateral":
                lateral = pc.match_substring(table["Path"], "lateral")
                cells = pc.if_else(lateral, "Lateral", "Frontal")
            table = table.append_column(name, cells)
    return table.select(["Path", *_ABOUT, *FINDINGS, "No Finding"])


def _knows(root: Path) -> bool:
    """Other sets have train.csv, train and valid too: the columns tell, or folders called patient00001."""
    if first_of(root, BATCHES) is not None:
        return True
    if any(b"Frontal/Lateral" in first_bytes(root / name) for name in ("train.csv", "valid.csv")):
        return True
    inside = [name for part in ("train", "valid") for name in some_names(root / part)]
    return any(re.fullmatch(r"patient\d{5}", name) for name in inside)


register(
    Layout(
        name="chexpert",
        title=TITLE,
        licence="Stanford University Dataset Research Use Agreement (research, not commercial)",
        citation="Irvin J et al.: CheXpert. AAAI 2019, arXiv 1901.07031",
        page=PAGE,
        marks=(f"train|train.csv|valid|valid.csv|{BATCHES}",),
        knows=_knows,
        read=_read,
        splits={
            "official": Split(
                True, "train, valid (radiologists' labels, no uncertain ones) and, where it is there, test, by patient."
            )
        },
        counts={
            "split official train": 223_414,
            "split official val": 234,
            **{f"?{name}": count for name, count in zip(FINDINGS, UNCERTAIN, strict=True)},
        },
    )
)
