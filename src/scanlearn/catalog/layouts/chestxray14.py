"""ChestX-ray14 (NIH Clinical Center): 112,120 frontal chest radiographs of 30,805 patients, 14 findings from reports.

The two bracketed names in the header of the table hold commas without quotation marks; the older table has a comma at
the end of each line and ages up to 414. What stands behind "_" in a file's name is no follow-up number. The 70/10/20
lists called CheXNet's are not NIH's: of NIH's 25,596 test images only 5,213 are in their test part, the others in
their training and validation, and 14,936 of the images that NIH (less a validation part) trains on are in their test
part: what was trained on one must not be tested on the other. https://arxiv.org/abs/1705.02315
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import pyarrow.compute as pc

from scanlearn.catalog.boxes import BOX_FINDINGS
from scanlearn.catalog.cells import per_word
from scanlearn.catalog.columns import normal
from scanlearn.catalog.labels import NOTHING
from scanlearn.catalog.layouts.layout import Layout, Rows, Split, register
from scanlearn.catalog.layouts.radiographs import ages, files_by_tail, sexes, table_of, tails, with_files
from scanlearn.catalog.layouts.tools import first_of, folders_below, must_have, read_lines
from scanlearn.errors import ScanlearnError

TITLE = "ChestX-ray14"
PAGE = "https://nihcc.app.box.com/v/ChestXray-NIHCC"
TABLES = "Data_Entry_2017_v2020.csv|Data_Entry_2017.csv|sample_labels.csv"
BOXES = "BBox_List_2017.csv"
FINDINGS = {
    **{"No Finding": 60_361, "Infiltration": 19_894, "Effusion": 13_317, "Atelectasis": 11_559, "Nodule": 6_331},
    **{"Mass": 5_782, "Pneumothorax": 5_302, "Consolidation": 4_667, "Pleural_Thickening": 3_385},
    **{"Cardiomegaly": 2_776, "Emphysema": 2_516, "Edema": 2_303, "Fibrosis": 1_686, "Pneumonia": 1_431, "Hernia": 227},
}
_SPELT = {"No Finding": NOTHING, "Infiltrate": "Infiltration"}  # the second is how the list of boxes writes it
_WANTED = (
    "Image Index",
    "Finding Labels",
    "Follow-up #",
    "Patient ID",
    "Patient Age",
    "Patient Gender",
    "View Position",
)
# split: ((part, list of files), ...) as its makers call the lists, which lie in one folder; the first that is there.
LISTS: dict[str, list[tuple[tuple[str, str], ...]]] = {
    "official": [(("train", "train_val_list.txt"), ("test", "test_list.txt"))],
    "official_val": [tuple((part, f"Xray14_{part}_official.txt") for part in ("train", "val", "test"))],
    "chexnet": [
        tuple((part, f"{part}_1.txt") for part in ("train", "val", "test")),
        tuple((part, f"{part}_list.txt") for part in ("train", "val", "test")),
    ],
}
SIZES = {
    "official": {"train": 86_524, "test": 25_596},
    "official_val": {"train": 75_312, "val": 11_212, "test": 25_596},
    "chexnet": {"train": 78_468, "val": 11_219, "test": 22_433},
}


def _read(root: Path) -> Rows:
    path = must_have(root, TABLES, TITLE, PAGE)
    table = table_of(path, _WANTED, TITLE, PAGE)
    names = [name.rpartition("/")[2] for name in table["Image Index"].to_pylist()]
    years = ages(table["Patient Age"])
    boxes, of_boxes, notes = _boxes(root, names)
    impossible = pc.sum(pc.and_(pc.equal(years, ""), pc.not_equal(table["Patient Age"], ""))).as_py()
    if impossible:
        notes.append(f"{impossible:,} ages are none (the table of 2017 has some up to 414) and are left blank.")
    columns = {
        "patient_id": pc.utf8_lpad(table["Patient ID"], 8, "0").to_pylist(),  # as file names begin
        "view": table["View Position"].to_pylist(),
        "findings": per_word(table["Finding Labels"].combine_chunks(), _spelt).to_pylist(),
        "sex": sexes(table["Patient Gender"]).to_pylist(),
        "age": years.to_pylist(),
        "follow_up": table["Follow-up #"].to_pylist(),
        "boxes": boxes,
        BOX_FINDINGS: of_boxes,
    }
    splits = {}
    for name in LISTS:
        splits[name], of_lists = _split(root, name, names)
        notes += of_lists
    rows = Rows(columns, splits, notes=notes)
    return with_files(rows, tails(table["Image Index"]), files_by_tail(root), root, TITLE, PAGE)


def _spelt(cell: str) -> str:
    return "|".join(_SPELT.get(word.strip(), word.strip()) for word in cell.split("|"))


def _boxes(root: Path, names: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """(cells of boxes, cells of what each of them shows, notes) for the images; blank for those nobody drew boxes on.

    The list's header says ``Bbox [x,y,w,h],,,`` and is no help; its six columns are known.
    """
    path = first_of(root, BOXES)
    if path is None:
        return [""] * len(names), [""] * len(names), [f"{BOXES} is not there, so no image has boxes."]
    boxes: dict[str, list[str]] = {}
    shown: dict[str, list[str]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, *rows = csv.reader(file)
        if normal(header[0]) != "image_index":
            raise ValueError
        for row in rows:
            numbers = [float(cell) for cell in row[2:6]]
            if len(numbers) < 4 or min(numbers[2:]) <= 0:
                raise ValueError
            boxes.setdefault(row[0].strip(), []).append(" ".join(f"{number:.10g}" for number in numbers))
            shown.setdefault(row[0].strip(), []).append(_spelt(row[1]))
    except (OSError, ValueError, IndexError, UnicodeDecodeError, csv.Error) as error:
        raise ScanlearnError(
            f"{path} is not the list of boxes of {TITLE} (image, finding, x, y, width, height); get it again from {PAGE}."
        ) from error
    lost = len(boxes.keys() - {*names})
    notes = [f"{lost:,} images of {BOXES} are in no row of the table."] if lost else []
    return [";".join(boxes.get(n, ())) for n in names], [";".join(shown.get(n, ())) for n in names], notes


def _split(root: Path, name: str, images: Sequence[str]) -> tuple[list[str], list[str]]:
    """(part of each image, notes) by the lists of a split; blank parts where the lists are not there."""
    lists = _lists_of(root, name)
    if not lists:
        wanted = " and ".join(file for _, file in LISTS[name][0])
        return [""] * len(images), [f"{wanted} are not there: no split {name!r}."] if name == "official" else []
    part_of: dict[str, str] = {}
    notes = []
    for part, path in lists:
        # A line may have a folder before the name and 14 labels behind it.
        inside = {line.split()[0].rpartition("/")[2] for line in read_lines(path)}
        twice = len(inside & part_of.keys())
        if twice:
            raise ScanlearnError(
                f"{path} lists {twice:,} images that another part of the split {name!r} lists; keep the lists of each "
                f"split in a folder of its own below {root}."
            )
        part_of |= dict.fromkeys(inside, part)
        if len(inside) != SIZES[name][part]:
            notes.append(f"{path.name} lists {len(inside):,} images (published {SIZES[name][part]:,}).")
    return [part_of.get(image, "") for image in images], notes


def _lists_of(root: Path, name: str) -> list[tuple[str, Path]]:
    for folder in (root, *(root / below for below in folders_below(root))):
        for lists in LISTS[name]:
            if all((folder / file).is_file() for _, file in lists):
                return [(part, folder / file) for part, file in lists]
    return []


register(
    Layout(
        name="chestxray14",
        title=TITLE,
        licence="free use; name the NIH Clinical Center, link to its page and cite the paper",
        citation="Wang X et al.: ChestX-ray8. CVPR 2017, arXiv 1705.02315",
        page=PAGE,
        marks=(f"{TABLES}|{BOXES}|train_val_list.txt|images_001/images",),
        read=_read,
        splits={
            "official": Split(True, "NIH's train_val_list.txt (all for training) and test_list.txt, by patient."),
            "official_val": Split(
                False,
                "NIH's test part, its training part divided by patient (Xray14_*_official.txt of DiRA's authors).",
            ),
            "chexnet": Split(
                False,
                "70/10/20 by patient, lists of CheXNet's re-implementations; it crosses NIH's own in both directions.",
            ),
        },
        counts={
            "images": 112_120,
            "patients": 30_805,
            **{"PA": 67_310, "AP": 44_810},
            **{_SPELT.get(name, name): count for name, count in FINDINGS.items()},
            "boxes": 984,
            **{f"split official {part}": count for part, count in SIZES["official"].items()},
        },
    )
)
