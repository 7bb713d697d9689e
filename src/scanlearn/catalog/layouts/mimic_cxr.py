"""MIMIC-CXR-JPG 2.0.0 and 2.1.0 (PhysioNet, credentialed): 377,110 chest radiographs, labels from 227,827 reports.

Labels are of a study and count for each of its images. A lateral view is called LATERAL or LL; of some 15,769 images
the view is blank, and a description of the study tells a few. The split says "validate". Release 1.0.0 was organised
otherwise and is refused. Nothing derived from these files is written but into the store that you name.
https://arxiv.org/abs/1901.07042
"""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from scanlearn.catalog.cells import per_word
from scanlearn.catalog.columns import split_words
from scanlearn.catalog.layouts.layout import Layout, Rows, Split, register
from scanlearn.catalog.layouts.radiographs import files_by_tail, findings_of, table_of, with_files
from scanlearn.catalog.layouts.tools import first_of, must_have, some_names
from scanlearn.catalog.mapped import one_piece
from scanlearn.errors import ScanlearnError

TITLE = "MIMIC-CXR-JPG"
PAGE = "https://physionet.org/content/mimic-cxr-jpg/"
FINDINGS = (
    *("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Fracture", "Lung Lesion"),
    *("Lung Opacity", "Pleural Effusion", "Pleural Other", "Pneumonia", "Pneumothorax", "Support Devices"),
)
NO_FINDING = "No Finding"
# column: the table of studies that says it; release 2.1.0 adds the last and keeps the names of the others.
LABELLERS = {"findings": "chexpert", "findings_negbio": "negbio", "findings_radiologist": "test-set-labeled"}
POSITIONS = {"LATERAL": "lateral", "LL": "lateral"}
# Where the position is blank, in this order; "CHEST (PA AND LAT)" tells nothing of one image.
_FALLBACKS = (
    "ViewCodeSequence_CodeMeaning",
    "ProcedureCodeSequence_CodeMeaning",
    "PerformedProcedureStepDescription",
)
_WORDS = {
    "AP": "AP",
    "ANTEROPOSTERIOR": "AP",
    "PA": "PA",
    "POSTEROANTERIOR": "PA",
    "LAT": "lateral",
    "LATERAL": "lateral",
}
_FOLDERS = re.compile(r"p1\d{7}|p1\d")  # of patients: 1.0.0 has train/p10000032, later ones files/p10


def _read(root: Path) -> Rows:
    if _is_first_release(root):
        raise ScanlearnError(
            f"{root} is {TITLE} 1.0.0, which was organised otherwise and had other images; get 2.0.0 or later: {PAGE}."
        )
    images = table_of(
        _table(root, "metadata"), ["dicom_id", "subject_id", "study_id", "ViewPosition"], TITLE, PAGE, _FALLBACKS
    )
    split = table_of(_table(root, "split"), ["dicom_id", "split"], TITLE, PAGE)
    view, notes = _views(images)
    columns = {
        name: images[f"{word}_id"].to_pylist() for name, word in (("patient_id", "subject"), ("study_id", "study"))
    }
    columns["view"] = view.to_pylist()
    _table(root, LABELLERS["findings"])
    for column, labeller in LABELLERS.items():
        path = first_of(root, _names_of(labeller))
        if path is not None:
            columns[column] = _labels(path, images).to_pylist()
    parts = _looked_up(images["dicom_id"], split["dicom_id"], split_words(split["split"], "split"))
    rows = Rows(columns, {"official": parts.to_pylist()}, notes=notes)
    return with_files(rows, images["dicom_id"].to_pylist(), files_by_tail(root), root, TITLE, PAGE)


def _names_of(what: str) -> str:
    return "|".join(
        f"mimic-cxr-{release}-{what}.csv{ending}" for release in ("2.0.0", "2.1.0") for ending in (".gz", "")
    )


def _table(root: Path, what: str) -> Path:
    return must_have(root, _names_of(what), TITLE, PAGE)


def _views(images: pa.Table) -> tuple[pa.Array, list[str]]:
    """(view of each image, notes): its position, else what a description of one view says."""
    view = per_word(images["ViewPosition"], lambda word: POSITIONS.get(word, word))
    blank = pc.sum(pc.equal(view, "")).as_py() or 0
    for name in _FALLBACKS:
        if name in images.column_names:
            view = pc.if_else(pc.equal(view, ""), per_word(images[name], view_in), view)
    still = pc.sum(pc.equal(view, "")).as_py() or 0
    note = f"{blank:,} images have no view; descriptions of their studies tell that of {blank - still:,} of them."
    return view, [note] if blank else []


def view_in(text: str) -> str:
    """The one view that a description names, "" where it names none or several.

    >>> [view_in(text) for text in ("CHEST (PORTABLE AP)", "antero-posterior", "CHEST (PA AND LAT)", "left lateral")]
    ['AP', 'AP', '', 'lateral']
    """
    found = {_WORDS[word] for word in re.findall(r"[A-Z]+", text.upper().replace("-", "")) if word in _WORDS}
    return found.pop() if len(found) == 1 else ""


def _labels(path: Path, images: pa.Table) -> pa.Array:
    """The findings of each image's study; blank for a study that the table does not label."""
    of_radiologists = LABELLERS["findings_radiologist"] in path.name  # the findings that they looked for
    wanted, others = (
        (["study_id"], [*FINDINGS, NO_FINDING]) if of_radiologists else (["study_id", *FINDINGS, NO_FINDING], [])
    )
    table = table_of(path, wanted, TITLE, PAGE, others)
    if NO_FINDING not in table.column_names:
        table = table.append_column(NO_FINDING, pa.array([""] * len(table), pa.string()))
    names = [name for name in FINDINGS if name in table.column_names]
    return _looked_up(images["study_id"], table["study_id"], findings_of(table, names))


def _looked_up(wanted: pa.ChunkedArray, keys: pa.ChunkedArray, values: pa.Array) -> pa.Array:
    """The value beside the key of each wanted word, blank for a word that is no key."""
    at = pc.index_in(one_piece(wanted), value_set=one_piece(keys))
    return pc.fill_null(one_piece(values).take(at), "")


def _is_first_release(root: Path) -> bool:
    return first_of(root, _names_of("metadata")) is None and any(map(_FOLDERS.fullmatch, some_names(root / "train")))


def _knows(root: Path) -> bool:
    """Of the marks "train" and "files" are common: there the folders of patients tell."""
    if any(first_of(root, _names_of(what)) for what in ("metadata", "split", *LABELLERS.values())):
        return True
    return any(_FOLDERS.fullmatch(name) for part in ("files", "train") for name in some_names(root / part))


register(
    Layout(
        name="mimic_cxr",
        title=TITLE,
        licence="PhysioNet Credentialed Health Data License (for those whom PhysioNet admitted)",
        citation="Johnson AEW et al.: MIMIC-CXR-JPG. arXiv 1901.07042; PhysioNet, doi 10.13026/8360-t248",
        page=PAGE,
        marks=(
            "|".join(["files", "train", *(_names_of(what) for what in ("metadata", "split", *LABELLERS.values()))]),
        ),
        knows=_knows,
        read=_read,
        splits={"official": Split(True, "train, validate and test of MIMIC-CXR-JPG, by patient.")},
        counts={
            "images": 377_110,
            "patients": 65_379,
            "split official train": 368_960,
            "split official val": 2_991,
            "split official test": 5_159,
        },
    )
)
