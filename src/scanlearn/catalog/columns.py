"""Tables of scans as files: reading them as text, and finding out which column says what."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from scanlearn.catalog.cells import as_strings
from scanlearn.catalog.files import suffix_of
from scanlearn.catalog.mapped import one_piece
from scanlearn.catalog.table import KEY
from scanlearn.errors import ScanlearnError, unknown

_LONGEST_HEADER = 1 << 16  # bytes
TABLE_SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet")

# The words people use, most telling first; capitals, blanks and signs in a column's name do not matter.
WORDS: dict[str, tuple[str, ...]] = {
    "image": (
        *("image", "image_path", "img", "img_path", "image_file", "path", "file", "file_path", "filepath"),
        *("filename", "file_name", "image_name", "image_filename", "scan", "scan_path", "volume", "volume_path"),
        *("series_path", "dicom", "dicom_path", "dcm_path", "nifti", "nifti_path", "image_index", "image_id"),
    ),
    "patient": (
        *("patient", "patient_id", "patientid", "patient_number", "subject", "subject_id", "subjectid"),
        *("participant", "participant_id", "case", "case_id", "group"),
    ),
    "mask": (
        *("mask", "mask_path", "mask_file", "lung_mask", "segmentation", "segmentation_path", "seg", "seg_path"),
        *("label_path", "labelmap", "annotation_path"),
    ),
    "study": ("study", "study_id", "studyid", "study_uid", "study_instance_uid", "studyinstanceuid"),
    "modality": ("modality",),
    "view": ("view", "view_position", "viewposition", "projection"),
    "split": ("split", "data_split"),
    "dataset": ("dataset", "source_dataset"),
    "sha256": ("sha256",),
}

SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "train_val", "trainval", "tr"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "ts", "holdout"), "test"),
}


def is_table(path: Path) -> bool:
    """Whether the file's name is that of a table scanlearn reads."""
    return path.name.lower().endswith(TABLE_SUFFIXES)


def read_table(path: Path, only: Sequence[str] = ()) -> pa.Table:
    """The table as trimmed text, "" where a cell is empty. Ids keep their leading zeros.

    only: columns of a text table that are kept, as far as they are there; capitals and signs do not matter. Columns
    without a name (row numbers of pandas, padding) are left out. Raises ScanlearnError for whatever is no table,
    without quoting a cell.
    """
    with _readable(path):
        table = pq.read_table(path) if _is_parquet(path) else _read_text(path, {normal(name) for name in only})
    if not len(table):
        raise ScanlearnError(f"{path} has no rows; give a table with one row for each scan.")
    _check_names(table.column_names, path)
    names = [name for name in table.column_names if name.strip() and not name.startswith("__index_level_")]
    return pa.table({name.strip(): as_strings(table[name], name) for name in names})


def read_names(path: Path) -> list[str]:
    """The names of a table's columns, without reading the rest."""
    with _readable(path):
        if _is_parquet(path):
            return list(pq.read_schema(path).names)
        return [name.strip() for name in _header(path)[0] if name.strip()]


def is_saved_catalog(path: Path) -> bool:
    """Whether the file is a catalogue that ``Catalog.save`` wrote."""
    with _readable(path):
        return _is_parquet(path) and KEY in (pq.read_schema(path).metadata or {})


def shown(cell: str) -> str:
    """A cell as a message quotes it: in quotation marks, and short."""
    return repr(cell if len(cell) <= 120 else f"{cell[:120]}...")


def _is_parquet(path: Path) -> bool:
    return path.name.lower().endswith(".parquet")


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """What the readers raise on a damaged file, as one sentence.

    Only the kind of the problem: Arrow's own sentence would quote the row, and with it a patient.
    """
    try:
        yield
    except (pa.ArrowException, UnicodeDecodeError, csv.Error, OSError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise ScanlearnError(f"{path} cannot be read ({error.strerror}).") from error
        ragged = re.match(r"CSV parse error: (?:Row #\d+: )?Expected \d+ columns, got \d+", str(error))
        if path.stat().st_size == 0:
            detail = "it is empty"
        elif ragged:
            detail = ragged.group()
        elif "straddling" in str(error):
            detail = "a row has more than 1 MB, so a quotation mark may be missing"
        else:
            detail = "it is damaged, or its text is not UTF-8"
        again = "get it again" if _is_parquet(path) else "save it again as CSV in UTF-8"
        raise ScanlearnError(f"{path} cannot be read as a table ({detail}); {again}.") from error


def _check_names(names: Sequence[str], path: Path) -> None:
    stripped = [name.strip() for name in names]
    twice = next((name for i, name in enumerate(stripped) if name and name in stripped[:i]), None)
    if twice:
        raise ScanlearnError(f"{path.name} has two columns {shown(twice)}; rename one of them.")


def _header(path: Path) -> tuple[list[str], str]:
    """The first row of a text table and what stands between its cells."""
    with pa.input_stream(str(path), compression="detect") as stream:
        head = stream.read(_LONGEST_HEADER).decode("utf-8-sig", errors="replace")
    first = head.partition("\n")[0]
    if len(first) == len(head) > 1000 or max(map(len, re.split("[,;\t\r]", first))) > 1000:
        raise ScanlearnError(f"The first row of {path} is no row of column names; write them there, each short.")
    delimiter = max(",;\t", key=first.count)  # spreadsheets of many countries write ";"
    return next(csv.reader(io.StringIO(head, newline=""), delimiter=delimiter), []), delimiter


def _read_text(path: Path, only: set[str]) -> pa.Table:
    names, delimiter = _header(path)
    # Columns without a name get one that cannot be in the file, and go again below.
    given = [name.strip() or f" {i}" for i, name in enumerate(names)]
    _check_names(given, path)
    kept = [name for name in given if normal(name) in only]  # none of them: all
    table = pa_csv.read_csv(
        path,
        read_options=pa_csv.ReadOptions(column_names=given, skip_rows_after_names=1),
        parse_options=pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=pa_csv.ConvertOptions(column_types=dict.fromkeys(given, pa.string()), include_columns=kept),
    )
    return table.drop_columns([name for name in table.column_names if name.startswith(" ")])


def normal(name: str) -> str:
    """A column's name as it is compared: "Patient ID" -> "patient_id"."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def assign_roles(names: Sequence[str], asked: dict[str, str | None]) -> dict[str, str]:
    """Which column plays which role of ``WORDS``; columns ``asked`` for by name win and must exist."""
    roles: dict[str, str] = {}
    for role, name in asked.items():
        if name is not None:
            if name not in names:
                raise unknown("column", name, names)
            roles[role] = name
    for role, words in WORDS.items():
        free = {normal(name): name for name in reversed(names) if name not in roles.values()}
        word = next((word for word in words if word in free), None)
        if role not in roles and word is not None:
            roles[role] = free[word]
    return roles


def names_files(cells: pa.Array | pa.ChunkedArray) -> bool:
    """Whether any cell ends like an image file: a column "mask" of 0 and 1 is a label and names no file."""
    return any(suffix_of(cell) for cell in pc.unique(cells).to_pylist())


def split_words(cells: pa.Array | pa.ChunkedArray, column: str) -> pa.Array:
    """The cells as "", "train", "val" or "test"; other words are refused."""
    found = pc.dictionary_encode(one_piece(cells))
    words = []
    for value in found.dictionary.to_pylist():
        if value and normal(value) not in SPLIT_WORDS:
            raise ScanlearnError(
                f"The column {column!r} says something other than the parts of a split in row "
                f"{pc.index(one_piece(cells), value).as_py() + 1:,}; write train, val or test, or rename the column if it means "
                "something else."
            )
        words.append(SPLIT_WORDS[normal(value)] if value else "")
    return pa.array(words, pa.string()).take(found.indices)
