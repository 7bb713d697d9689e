"""Back from the pseudonyms of a store to names and files, for those who hold the private list."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from scanlearn.catalog.pseudonyms import KINDS, LIST, list_path, read_list
from scanlearn.errors import ScanlearnError
from scanlearn.files import WriteError
from scanlearn.scans.store import Store


def names_of(store: Store) -> pa.Table:
    """One row for each scan of the source, those that were left out included.

    Columns: ``scan_id``, ``patient_id``, ``study_id`` as the store has them; ``original_scan``, ``original_patient``,
    ``original_study``, ``paths`` (a list) and ``mask_path`` as the source had them; ``reason`` why a scan is not in the
    store, "" where it is.

    Raises:
        ScanlearnError: the private list is not on this machine, or belongs to another user's pseudonyms.
    """
    ids = store.catalog.array("scan_id")
    refused = store.info.get("quarantine", [])
    if store.info.get("identifiers") == "kept":
        return _kept(store, refused)
    path = list_path(store.path.name, store.info["key"])
    if not path.is_file():  # the folder of the store has another name by now
        path = next(iter(sorted(path.parent.glob(f"*-{store.info['key'][:12]}.parquet"))), path)
    if not path.is_file():
        raise ScanlearnError(
            f"The list that leads from the pseudonyms of {store.path.name} to names is not in {path.parent}: it lies with "
            "whoever prepared the store; set SCANLEARN_PRIVATE to its folder."
        )
    table = read_list(path)
    mine = pa.concat_arrays([ids, pa.array([entry["scan_id"] for entry in refused], pa.string())])
    found = table.filter(pc.is_in(table["scan_id"], value_set=mine))
    if len(found) != len(mine):
        raise ScanlearnError(
            f"{path} lacks {len(mine) - len(found)} scans of {store.path.name}: it is of another salt."
        )
    return found


def _kept(store: Store, refused: list[dict[str, str]]) -> pa.Table:
    """The same columns for a store whose identifiers are the names."""
    catalog = store.catalog
    columns = {name: catalog.array(name) for name in KINDS}
    columns |= {original: catalog.array(name) for name, original in zip(KINDS, LIST[3:6], strict=True)}
    columns |= {name: catalog.array(name) for name in ("paths", "mask_path")}
    there = pa.table({**columns, "reason": pa.array([""] * len(store), pa.string())})
    out: dict[str, list[Any]] = {name: [""] * len(refused) for name in there.column_names}
    out |= {name: [entry["scan_id"] for entry in refused] for name in ("scan_id", "original_scan")}
    out |= {"reason": [entry["reason"] for entry in refused], "paths": [[entry.get("file", "")] for entry in refused]}
    return pa.concat_tables([there, pa.table(out, schema=there.schema)])


def write_csv(table: pa.Table, out: Path | None) -> None:
    """Write the table as CSV to a file that only its owner can read, or to stdout; paths are joined by "|"."""
    at = table.schema.get_field_index("paths")
    plain = table.set_column(at, "paths", pc.binary_join(table["paths"].combine_chunks(), "|"))
    if out is None:
        sink = pa.BufferOutputStream()
        pyarrow.csv.write_csv(plain, sink)
        print(sink.getvalue().to_pybytes().decode(), end="")
        return
    try:
        with os.fdopen(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            pyarrow.csv.write_csv(plain, file)
    except OSError as error:
        raise WriteError(out.name, out.parent, error) from error
