"""Which columns of a user's table would lead back to a person."""

from __future__ import annotations

import re
from collections.abc import Collection

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scanlearn.catalog import boxes, candidates
from scanlearn.catalog.folder_labels import folders_are_labels
from scanlearn.catalog.mapped import encode, numbers
from scanlearn.catalog.table import Catalog

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
TELLING = frozenset(
    (
        *("name", "names", "birth", "birthday", "dob", "mrn", "accession", "uid", "uids", "address", "ssn", "date"),
        *(
            "dates",
            "phone",
            "telephone",
            "mobile",
            "fax",
            "email",
            "zip",
            "postcode",
            "street",
            "insurance",
            "passport",
        ),
        *("nhs", "physician", "comment", "comments", "remark", "remarks"),
    )
)
# Two words written as one ("patientname", "studydate"); "candidate", "consolidated" and "fluid" are none of them.
_JOINED = re.compile(
    r"^date|^timestamp|birth|(?:patient|subject|person|file|image|full|sur|last|first|fore)name"
    r"|(?:series|study|instance|patient|image)uid"
    r"|(?:study|series|exam|scan|image|visit|acquisition|content|admission|discharge|death)date"
)
# The name of one of these names no person.
HARMLESS = frozenset(("class", "label", "finding", "disease", "organ", "structure", "category", "lesion"))
FEWEST_PATIENTS = 10  # among fewer, an honest label may happen to differ from patient to patient


def telling_columns(catalog: Catalog, keep: Collection[str] = ()) -> dict[str, str]:
    """{column: why it leads to a person}, without those of ``keep``.

    Its name says so (name, birth, MRN, accession, UID, address, date); it repeats the ids of patients or scans; it holds
    folders that may be patients; or every value belongs to one patient and no patient shares one: numbers of
    examinations, file names. Small numbers and fractions are measurements.
    """
    found = {}
    for name in catalog.extra_columns:
        if name in keep or _are_places(catalog, name):
            continue
        if sounds_telling(name):
            found[name] = "its name"
        elif _repeats_ids(catalog, name):
            found[name] = "the patients' own ids"
        elif name == "folder" and not folders_are_labels(catalog):
            found[name] = "folders that may be patients"
        elif _is_key(catalog, name):
            found[name] = "a value for each patient"
    return found


def _are_places(catalog: Catalog, name: str) -> bool:
    """Whether a column holds nothing but places in the scans, which differ from patient to patient and name none."""
    if name == boxes.COLUMN:
        return boxes.are_boxes(catalog.array(name))
    return name in candidates.COLUMNS and candidates.are_points(catalog.array(name))


def sounds_telling(name: str) -> bool:
    """Whether a column of that name holds an identifier.

    >>> [sounds_telling(name) for name in ("PatientName", "StudyDate", "class_name", "candidate", "finding")]
    [True, True, False, False, False]
    """
    words = {word.lower() for word in _WORDS.findall(name)}
    if words & HARMLESS:
        return False
    return bool(words & TELLING) or any(_JOINED.search(word) for word in words)


def may_be_patients(catalog: Catalog, name: str) -> bool:
    """Whether the words of a column repeat ids, or each belongs to one patient."""
    return _repeats_ids(catalog, name) or _is_key(catalog, name)


def _repeats_ids(catalog: Catalog, name: str) -> bool:
    """Whether half of the cells are the id of their row's patient or scan; an id of one or two letters is no proof."""
    cells = catalog.array(name)
    filled = pc.sum(pc.not_equal(cells, "")).as_py() or 0
    for kind in ("patient_id", "scan_id"):
        equal = pc.and_(pc.equal(cells, catalog.array(kind)), pc.greater(pc.utf8_length(cells), 2))
        if filled and 2 * (pc.sum(equal).as_py() or 0) >= filled:
            return True
    return False


def _is_key(catalog: Catalog, name: str) -> bool:
    cells = encode(catalog.array(name))
    value, patient = catalog.codes(name).astype(np.int64), catalog.codes("patient_id").astype(np.int64)
    rows = np.flatnonzero(value)
    pairs = np.unique(value[rows] * (len(catalog) + 1) + patient[rows])
    patients = len(np.unique(patient[rows]))
    if patients < FEWEST_PATIENTS or len(pairs) != len(np.unique(value[rows])):
        return False  # a value of two patients is a label
    return not _measures(cells.dictionary.take(pa.array(np.unique(value[rows]))))


def _measures(words: pa.Array) -> bool:
    """Whether the words are numbers that count or measure: below 1,000, or with a fraction."""
    try:
        values = numbers(pc.cast(words, pa.float64()))
    except pa.ArrowInvalid:
        return False
    return bool((np.abs(values) < 1000).all() or (values % 1 != 0).any())
