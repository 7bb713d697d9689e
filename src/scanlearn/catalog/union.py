"""Several sources as one catalogue: the data sets of one pre-training, told apart in the column ``dataset``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scanlearn.catalog.masks import mask_names, with_mask_names
from scanlearn.catalog.origin import origin_of, with_origin
from scanlearn.catalog.splits import make_splits
from scanlearn.catalog.table import SPLITS, Catalog
from scanlearn.console import say, warn
from scanlearn.errors import ScanlearnError

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def union(catalogs: Sequence[Catalog], *, seed: int = 0) -> Catalog:
    """The scans of all catalogues, one after the other; ``scan_id`` begins with the name of the data set.

    Patients keep their ids, so that they are known in every store: equal ids in two data sets count as one patient,
    which is said. Label columns that a data set lacks are blank for it. Where some data sets have a split and others
    none, theirs is drawn by patient with ``seed``. What the values in masks are called is kept where all agree.

    Raises ScanlearnError for two data sets of one name.
    """
    names = [_name_of(catalog) for catalog in catalogs]
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise ScanlearnError(f"Two of the sources are called {twice!r}: rename the folder of one of them.")
    if any(_has(catalog, "split") for catalog in catalogs):
        catalogs = [_with_split(catalog, name, seed) for catalog, name in zip(catalogs, names, strict=True)]
    _tell_shared([pc.unique(catalog.array("patient_id")) for catalog in catalogs])
    wanted = list(dict.fromkeys(column for catalog in catalogs for column in catalog.table.column_names))
    columns: dict[str, Any] = {
        column: pa.concat_arrays([_cells(catalog, column) for catalog in catalogs]) for column in wanted
    }
    named = [*zip(names, catalogs, strict=True)]
    columns["scan_id"] = pa.concat_arrays(
        [pc.binary_join_element_wise(_UNSAFE.sub("_", name), one.array("scan_id"), "_") for name, one in named]
    )
    columns["dataset"] = pa.concat_arrays([pa.repeat(pa.scalar(name), len(one)) for name, one in named])
    known = all(catalog.patients_known for catalog in catalogs)
    table = Catalog.from_columns(columns, known).table
    called = [mask_names(catalog.table) for catalog in catalogs if _has(catalog, "mask_path")]
    if called and called[0] and all(one == called[0] for one in called):
        table = with_mask_names(table, called[0])
    origins = {name: origin_of(one.table) for name, one in named}
    if any(origins.values()):
        table = with_origin(table, {"datasets": origins})
    return Catalog(table, known)


def _name_of(catalog: Catalog) -> str:
    """The one name in ``dataset``; a source that has several is several sources."""
    found = pc.unique(catalog.array("dataset")).to_pylist()
    if len(found) != 1 or not found[0]:
        raise ScanlearnError(
            f"A source has {len(found)} names in its column 'dataset'; each of several sources needs exactly one."
        )
    return str(found[0])


def _with_split(catalog: Catalog, name: str, seed: int) -> Catalog:
    if _has(catalog, "split"):
        return catalog
    say(f"{name} has no split, the others have: it is divided by patient.")
    cells = np.full(len(catalog), "train", object)
    if catalog.count_patients(np.arange(len(catalog))) >= len(SPLITS):
        for part, rows in make_splits(catalog, seed=seed).items():
            cells[rows] = part
    return catalog.with_column("split", cells.tolist())


def _has(catalog: Catalog, column: str) -> bool:
    """Whether any cell is not blank."""
    return bool(pc.any(pc.not_equal(catalog.array(column), "")).as_py())


def _tell_shared(patients: Sequence[pa.Array]) -> None:
    """Say how many ids two data sets have in common."""
    everyone = pa.concat_arrays([*patients])
    shared = len(everyone) - len(pc.unique(everyone))
    if shared:
        warn(f"{shared} patients have the same id in two data sets, and count as one patient each.")


def _cells(catalog: Catalog, column: str) -> pa.Array:
    if column in catalog.table.column_names:
        return catalog.array(column)
    return pa.repeat(pa.scalar(""), len(catalog))
