"""Names that say nothing: patients, studies and scans under salted hashes, the same in every store of one user.

The salt and the lists that lead back from a hash to a name lie in ``private_folder()``, never in a store or a run.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from scanlearn.catalog.identifiers import may_be_patients, telling_columns
from scanlearn.catalog.mapped import encode
from scanlearn.catalog.table import Catalog
from scanlearn.errors import ScanlearnError, unknown
from scanlearn.files import WriteError, replacing

IDENTIFIERS = ("hashed", "kept")
KINDS = {"scan_id": "scan", "patient_id": "patient", "study_id": "study"}
LIST = (*KINDS, "original_scan", "original_patient", "original_study", "paths", "mask_path", "reason")
SAFE_ID = r"^[A-Za-z0-9_][A-Za-z0-9._-]*$"
ELSEWHERE = "set SCANLEARN_PRIVATE to a folder of your own"

SALT_BYTES = 32
# 60 bits: among ten million names the chance of two alike is 1 in 20,000.
DIGITS = 15


def private_folder() -> Path:
    """Where salt and name lists lie: ``$SCANLEARN_PRIVATE``, else ``scanlearn`` in the user's data folder (XDG)."""
    chosen = os.environ.get("SCANLEARN_PRIVATE")
    if chosen:
        return Path(chosen)
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "scanlearn"


def salt() -> bytes:
    """The user's salt: ``$SCANLEARN_SALT`` (any text), else the file ``salt``, made on the first use."""
    given = os.environ.get("SCANLEARN_SALT")
    if given:
        return hashlib.sha256(given.encode()).digest()
    path = private_folder() / "salt"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _make_once(path)
        found = path.read_bytes()
    except OSError as error:
        raise ScanlearnError(
            f"The salt of the patients' pseudonyms cannot be kept in {path.parent} ({error.strerror}); set "
            "SCANLEARN_PRIVATE to a folder of your own, or SCANLEARN_SALT to a secret text."
        ) from error
    if len(found) != SALT_BYTES:
        raise ScanlearnError(f"{path} is damaged: put it back from a backup, or delete it to begin with a new salt.")
    return found


def pseudonyms(kind: str, names: Iterable[str], key: bytes) -> list[str]:
    """``kind-3f9c...`` for each name, a function of (kind, name, key) alone; "" stays ""."""
    person = kind.encode()[:16]
    width = (DIGITS + 1) // 2
    return [
        f"{kind}-{hashlib.blake2b(n.encode(), digest_size=width, key=key, person=person).hexdigest()[:DIGITS]}"
        if n
        else ""
        for n in names
    ]


def _make_once(path: Path) -> None:
    """Write a new salt unless there is one; of several processes that try at once, one wins and all read the same."""
    if path.exists():
        return
    own = path.with_name(f".salt.{os.getpid()}")
    with os.fdopen(os.open(own, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(secrets.token_bytes(SALT_BYTES))
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(own, path)  # fails where another process was first
    except FileExistsError:
        pass
    finally:
        own.unlink()


def stored_names(catalog: Catalog, identifiers: str = "hashed") -> list[str]:
    """The name of each scan (N,) in a store: its pseudonym, or for ``kept`` its id, which must be a safe file name."""
    if identifiers not in IDENTIFIERS:
        raise unknown("treatment of identifiers", identifiers, IDENTIFIERS)
    if identifiers == "hashed":
        return pseudonyms("scan", catalog.column("scan_id"), salt())
    unsafe = pc.sum(pc.invert(pc.match_substring_regex(catalog.array("scan_id"), SAFE_ID))).as_py()
    if unsafe:
        raise ScanlearnError(
            f"{unsafe} scan ids are no safe file names: use letters, digits, '.', '_' and '-', or leave the identifiers "
            "hashed."
        )
    return catalog.column("scan_id")


def pseudonymise(
    catalog: Catalog, identifiers: str = "hashed", *, keep: Collection[str] = ()
) -> tuple[Catalog, pa.Table]:
    """A catalogue that names nobody, and the private list that leads back; both in the order of the rows.

    ``hashed``: scan, patient and study ids are pseudonyms, no path is left (``mask_path`` is "masks/ID" for scans that
    have a mask), the data set has no name where there is one only (it is that of a folder) or where its names may be
    patients, and label columns that lead to a person are gone (``telling_columns``), except those of ``keep``.
    ``kept``: the catalogue as it is.

    Args:
        catalog: with the original ids and paths.
        identifiers: one of ``IDENTIFIERS``.
        keep: label columns that somebody asked for by name.

    Returns:
        (catalogue, table with the columns of ``LIST``).
    """
    names = stored_names(catalog, identifiers)
    if identifiers == "kept":
        return catalog, _private(catalog, catalog)
    dropped = telling_columns(catalog, keep)
    columns = {name: catalog.array(name) for name in catalog.table.column_names if name not in dropped}
    columns["scan_id"] = pa.array(names, pa.string())
    for name in ("patient_id", "study_id"):
        words = encode(columns[name])
        hashed = pseudonyms(KINDS[name], words.dictionary.to_pylist(), salt())
        columns[name] = pa.array(hashed, pa.string()).take(words.indices)
    alone = len(pc.unique(columns["dataset"])) == 1  # the name of the source's folder, which says nothing apart
    if alone or may_be_patients(catalog, "dataset"):
        columns["dataset"] = pa.array([""] * len(catalog), pa.string())
    nowhere = pa.array(np.zeros(len(catalog) + 1, np.int32))
    columns["paths"] = pa.ListArray.from_arrays(nowhere, pa.array([], pa.string()))
    within = pc.binary_join_element_wise("masks", columns["scan_id"], "/")
    columns["mask_path"] = pc.if_else(pc.not_equal(columns["mask_path"], ""), within, "")
    hidden = Catalog(pa.table(columns), catalog.patients_known)
    return hidden, _private(hidden, catalog)


# ---------------------------------------------------------------- the list that leads back


def _private(hidden: Catalog, catalog: Catalog) -> pa.Table:
    columns = {name: hidden.array(name) for name in KINDS}
    columns |= {original: catalog.array(name) for name, original in zip(KINDS, LIST[3:6], strict=True)}
    columns |= {"paths": catalog.array("paths"), "mask_path": catalog.array("mask_path")}
    return pa.table({**columns, "reason": pa.array([""] * len(catalog), pa.string())})


def list_path(store: str, key: str) -> Path:
    """Where the private list of a store lies, by the store's name and content key."""
    return private_folder() / "names" / f"{store}-{key[:12]}.parquet"


def write_list(path: Path, table: pa.Table) -> None:
    """Write a private list, readable by its owner alone. Scans that only an older list at that place has are kept."""
    try:
        private_folder().mkdir(parents=True, exist_ok=True, mode=0o700)
        path.parent.mkdir(exist_ok=True, mode=0o700)
        path.parent.chmod(0o700)
        if path.is_file():  # the same scans under another salt: another store still needs it
            older = read_list(path)
            new = pc.invert(pc.is_in(older["scan_id"], value_set=table["scan_id"].combine_chunks()))
            table = pa.concat_tables([table, older.filter(new)])
        with replacing(path) as temporary:
            temporary.chmod(0o600)
            pq.write_table(table, temporary)
    except OSError as error:
        raise WriteError(
            "The list that leads from pseudonyms to names", path.parent, error, advice=ELSEWHERE
        ) from error


def read_list(path: Path) -> pa.Table:
    """A private list: the columns of ``LIST``, one row for each scan of the source."""
    try:
        return pq.read_table(path, columns=list(LIST))
    except (pa.ArrowException, OSError) as error:
        raise ScanlearnError(f"The list {path} is damaged: put it back from a backup.") from error
