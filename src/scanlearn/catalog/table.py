"""The catalogue: which scans exist and whose they are, as one Arrow table with a row for each scan."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from scanlearn.catalog.cells import as_strings
from scanlearn.catalog.labels import Labels, labels_of
from scanlearn.catalog.mapped import (
    WORDS,
    Words,
    check_words,
    codes_of,
    damaged,
    decoded,
    encode,
    one_piece,
    open_mapped,
    present,
    take_words,
    write_mapped,
)
from scanlearn.errors import ScanlearnError, unknown

FIXED = pa.schema(
    [
        ("scan_id", pa.string()),
        ("paths", pa.list_(pa.string())),
        ("dataset", pa.string()),
        ("patient_id", pa.string()),
        ("study_id", pa.string()),
        ("modality", pa.string()),
        ("view", pa.string()),
        ("split", pa.string()),
        ("mask_path", pa.string()),
        ("sha256", pa.string()),
    ]
)
SPLITS = ("train", "val", "test")
KEY = b"scanlearn.catalog"
# Columns of where things, or slices, lie, and of what lies there: no labels (catalog.boxes, catalog.candidates,
# scans.slices). With the sign that each cell of such a column has: a column "nodules" may as well hold their number.
PLACES = {"boxes": " ", "box_findings": "", "candidates": " ", "nodules": " ", "slice": ""}
_DESCRIPTIVE = ("dataset", "modality", "view")  # fixed columns that can also be learnt


class Catalog:
    """Scans, one row each, in ``table`` (a pyarrow.Table; never changed in place).

    Fixed columns: ``scan_id`` (unique, safe as a file name), ``paths`` (absolute; a DICOM series has many),
    ``dataset``, ``patient_id``, ``study_id``, ``modality``, ``view``, ``split`` ("" or train, val, test), ``mask_path``
    ("" if none) and ``sha256`` ("" until the scans were prepared). Every other column is one of strings, "" if missing:
    a label column, or one of places in the scans.

    ``patients_known`` is False if any scan's patient is only guessed (its own scan_id, or its study); whoever splits or
    tests on such a catalogue says so.

    The catalogue of a store is ``mapped``: its words are codes into dictionaries in a file, and only what is asked for
    is read. A catalogue taken from it holds plain words again.
    """

    def __init__(self, table: pa.Table, patients_known: bool = True, *, mapped: bool = False):
        missing = [name for name in FIXED.names if name not in table.column_names]
        if missing:
            raise ScanlearnError(
                f"This table is no catalogue: it lacks the column {missing[0]!r}; make one from files."
            )
        if not mapped and len(pc.unique(table["scan_id"])) != len(table):
            raise ScanlearnError("Two rows of the catalogue have the same scan_id; give every scan its own.")
        self.table = table
        self.patients_known = patients_known
        self.mapped = mapped

    # --- making one ---

    @classmethod
    def from_source(
        cls,
        source: str | Path,
        *,
        patient: str | None = None,
        mask: str | None = None,
        image: str | None = None,
        layout: str | None = None,
        split: str | None = None,
    ) -> Catalog:
        """List the scans of a folder, of a table of file names, of a ``dataset.json``, or of a known public data set.

        Args:
            source: a CSV, TSV or Parquet table with one row for each scan (file names are relative to its folder); an
                nnU-Net, Decathlon or BIDS data set; a ``dataset.json`` or another list of MONAI's kind; a tree of DICOM
                files, which are sorted into series; or any folder, in which every image file is a scan.
            patient: whose scan it is: a column of the table, "folder" where each sub-folder is a patient, or a pattern
                over the file names such as "regex:(P[0-9]+)_".
            mask: column with the path of the segmentation mask. In folders, names and grids tell.
            image: column with the path of the scan.
            layout: the public data set that the folder holds, by name (``catalog.layouts``); "none" reads the folder
                plainly. Without a word a known data set is recognised, and it is said.
            split: a published split of that data set, by name; its first without a word, "none" for no split.

        Columns that are not named are looked for under their usual names, and what was found is printed.

        Raises ScanlearnError for a source without scans, an unknown column, missing files (how many, and the first).
        """
        from scanlearn.catalog.source import catalog_of

        return catalog_of(Path(source), patient=patient, mask=mask, image=image, layout=layout, split=split)

    @classmethod
    def from_columns(cls, columns: Mapping[str, Any], patients_known: bool | None = None) -> Catalog:
        """Build from columns of equal length N (lists, NumPy or Arrow arrays); only ``scan_id`` is required.

        Fixed columns left out are blank. A blank ``patient_id`` becomes the scan's own id, and then ``patients_known``
        is False unless it is given. Label columns are stored as strings; blanks around words are removed.
        """
        count = len(columns["scan_id"])
        blank = pa.array([""] * count, pa.string())
        arrays: dict[str, pa.Array] = {}
        for name in [*FIXED.names, *(n for n in columns if n not in FIXED.names)]:
            if name == "paths":
                paths = columns.get("paths", pa.array([[]] * count, FIXED.field("paths").type))
                arrays[name] = paths if isinstance(paths, pa.Array) else pa.array(paths, FIXED.field("paths").type)
            else:
                arrays[name] = as_strings(columns[name], name) if name in columns else blank
        lengths = {name: len(array) for name, array in arrays.items() if len(array) != count}
        if lengths:
            raise ValueError(f"columns of {count} scans have other lengths: {lengths}")
        _check_splits(arrays["split"])
        unknown_patient = pc.equal(arrays["patient_id"], "")
        arrays["patient_id"] = pc.if_else(unknown_patient, arrays["scan_id"], arrays["patient_id"])
        if patients_known is None:
            patients_known = not pc.any(unknown_patient).as_py()
        return cls(pa.table(arrays), patients_known)

    @classmethod
    def load(cls, path: str | Path) -> Catalog:
        """Read what ``save`` wrote."""
        path = Path(path)
        if not path.is_file():
            raise ScanlearnError(f"There is no catalogue {path}; make one with `scanlearn prepare`.")
        try:
            table = pq.read_table(path)
        except pa.ArrowInvalid as error:
            raise ScanlearnError(f"{path} is not a Parquet file, so it is no catalogue.") from error
        notes = (table.schema.metadata or {}).get(KEY)
        if notes is None:
            raise ScanlearnError(f"{path} is a plain table and no saved catalogue; give it as a source instead.")
        others = {key: value for key, value in table.schema.metadata.items() if key != KEY}
        return cls(table.replace_schema_metadata(others), bool(json.loads(notes)["patients_known"]))

    def save(self, path: str | Path) -> None:
        """Write one Parquet file."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        notes = json.dumps({"version": 1, "patients_known": self.patients_known})
        plain = pa.table({name: self.array(name) for name in self.table.column_names})
        kept = {**(self.table.schema.metadata or {}), KEY: notes.encode()}
        pq.write_table(plain.replace_schema_metadata(kept), path, compression="zstd")

    @classmethod
    def map(cls, path: str | Path, rows: int | None = None) -> Catalog:
        """Open what ``save_mapped`` wrote, of so many rows; nothing is read before it is asked for."""
        path = Path(path)
        table = open_mapped(path, {name: _mapped_type(name) for name in FIXED.names}, rows)
        for field in table.schema:
            if field.type != _mapped_type(field.name):
                raise damaged(path, f"holds a column {field.name!r} of type {field.type}")
        try:
            known = json.loads(table.schema.metadata[KEY])["patients_known"]
        except (TypeError, KeyError, ValueError) as error:
            raise damaged(path, "does not say whether patients are known") from error
        return cls(table.replace_schema_metadata(None), bool(known), mapped=True)

    def save_mapped(self, path: str | Path) -> None:
        """Write one Arrow file whose rows can be looked at without reading the others."""
        columns = {}
        for name in self.table.column_names:
            array = one_piece(self.table[name])
            columns[name] = encode(array) if _mapped_type(name) == WORDS else array
        write_mapped(path, columns, {KEY: json.dumps({"version": 1, "patients_known": self.patients_known}).encode()})

    # --- asking it ---

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __repr__(self) -> str:
        count = self.count_patients(np.arange(len(self)))
        known = "" if self.patients_known else " (not known)"
        return f"Catalog({len(self)} scans, {count} patients{known}, labels: {self.label_columns})"

    @property
    def patients(self) -> Words:
        """str (N,): the patient of each scan."""
        return Words(self._cells("patient_id"))

    def count_patients(self, rows: np.ndarray) -> int:
        """How many patients these rows (indices, or a mask of N booleans) are of."""
        return int(np.count_nonzero(present(self.codes("patient_id")[rows], len(self) + 1)))

    @property
    def label_columns(self) -> list[str]:
        """Names of the columns that say something of whole scans and are not fixed, in the order of the table."""
        return [name for name in self.extra_columns if name not in PLACES or not self._holds_places(name)]

    @property
    def extra_columns(self) -> list[str]:
        """Names of all columns that are not fixed: the label columns, and those of places in the scans."""
        return [name for name in self.table.column_names if name not in FIXED.names]

    def _holds_places(self, name: str) -> bool:
        words = self.words(name)
        nowhere = pc.is_in(words, value_set=pa.array(["", "none"]))
        return bool(pc.all(pc.or_(nowhere, pc.match_substring(words, PLACES[name]))).as_py())

    def column(self, name: str) -> list[Any]:
        """The cells of any column: strings, or lists of strings for ``paths``."""
        return self.array(name).to_pylist()

    def array(self, name: str, rows: np.ndarray | None = None) -> pa.Array:
        """The cells of any column, of all rows or of some, as one Arrow array of words."""
        cells = self._cells(name)
        return decoded(check_words(cells)) if rows is None else take_words(cells, np.asarray(rows, np.int64))

    def codes(self, name: str) -> np.ndarray:
        """int32 (N,): equal words of a column have equal numbers between 0 and N; 0 is the blank."""
        return codes_of(encode(self._cells(name)))

    def words(self, name: str) -> pa.Array:
        """The words that ``codes`` stand for; the first is the blank."""
        return check_words(encode(self._cells(name)).dictionary)

    def _cells(self, name: str) -> pa.Array:
        """A column as it lies in the table or file, words or codes, not checked."""
        if name not in self.table.column_names:
            raise unknown("column", name, self.table.column_names)
        return one_piece(self.table[name])

    def labels(self, name: str, kind: str | None = None, *, unmentioned: float = 0.0) -> Labels:
        """The labels in column ``name``, or the masks for ``"mask"``; see ``Labels`` for shapes and missing values.

        ``kind`` overrules what the cells suggest: "class" keeps numbers such as age as classes. ``dataset``,
        ``modality`` and ``view`` can be asked for like label columns. ``unmentioned`` as in ``labels_of``.
        """
        if name in ("mask", "mask_path") and name not in self.label_columns:
            masks = pc.not_equal(self.array("mask_path"), "").to_numpy(zero_copy_only=False)
            if not masks.any():
                raise ScanlearnError("No scan of the catalogue has a mask; name the column that holds them (mask=...).")
            return Labels("mask", [], masks)
        known = [*self.label_columns, *_DESCRIPTIVE]
        if name not in known:
            raise unknown("label column", name, [*known, "mask"])
        return labels_of(check_words(self._cells(name)), name, kind, unmentioned=unmentioned)

    def rows_of(self, scan_ids: Sequence[str]) -> np.ndarray:
        """int64 (n,): the rows of these scans; unknown ones are refused with their number and the first."""
        wanted = pa.array(scan_ids, pa.string())
        rows = pc.index_in(wanted, value_set=self.array("scan_id"))
        if rows.null_count:
            first = wanted.filter(pc.is_null(rows))[0].as_py()
            raise ScanlearnError(
                f"{rows.null_count} of {len(wanted)} scans are not in the catalogue, the first is {first!r}; "
                "the list was made for another catalogue."
            )
        return rows.to_numpy(zero_copy_only=False).astype(np.int64)

    # --- a catalogue from a catalogue ---

    def take(self, indices: Any) -> Catalog:
        """The rows of ``indices`` (integers, or a mask of N booleans), in that order."""
        indices = np.asarray(indices)
        rows = np.flatnonzero(indices) if indices.dtype == bool else indices.astype(np.int64)
        taken = pa.table({name: self.array(name, rows) for name in self.table.column_names})
        return Catalog(taken.replace_schema_metadata(self.table.schema.metadata), self.patients_known)

    def with_column(self, name: str, cells: Any) -> Catalog:
        """A copy whose column ``name`` (new or not, N cells) holds ``cells``: how ``prepare`` fills in sha256."""
        array = as_strings(cells, name) if name != "paths" else pa.array(cells, FIXED.field("paths").type)
        if name == "split":
            _check_splits(array)
        if name in self.table.column_names:
            table = self.table.set_column(self.table.column_names.index(name), name, array)
        else:
            table = self.table.append_column(name, array)
        return Catalog(table, self.patients_known, mapped=self.mapped)


def _mapped_type(name: str) -> pa.DataType:
    return FIXED.field(name).type if name in ("scan_id", "paths") else WORDS


def _check_splits(split: pa.Array) -> None:
    for value in pc.unique(split).to_pylist():
        if value and value not in SPLITS:
            raise unknown("split", value, SPLITS)
