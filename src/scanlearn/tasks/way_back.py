"""The way back from predictions to names: OUT/predictions.json says where the private list of its scans is kept."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from scanlearn.catalog.pseudonyms import list_path, pseudonymise, read_list, write_list
from scanlearn.catalog.table import Catalog
from scanlearn.errors import ScanlearnError
from scanlearn.files import read_json, write_json

CARD = "predictions.json"
KEY_BYTES = 6


class WayBack:
    """Keeps which file each scan of a folder of predictions came from, in the user's private folder alone.

    Args:
        out: the folder of predictions; a second batch that is predicted into it joins the same list.
        catalog: the scans, with their original ids and paths.
        identifiers: hashed | kept; kept writes no list, as the predictions go by the names themselves.
    """

    def __init__(self, out: Path, catalog: Catalog, identifiers: str):
        self._out, self._identifiers = out, identifiers
        hidden, self._private = pseudonymise(catalog, identifiers)
        self.names: list[str] = hidden.column("scan_id")
        found = read_json(out / CARD, f"{out.name}/{CARD}") if (out / CARD).is_file() else {}
        # By chance and not from the names: whoever guesses a name must not be able to try it here.
        key = str(found.get("key", ""))
        self._key = key if key.isalnum() else secrets.token_hex(KEY_BYTES)

    @property
    def list(self) -> Path | None:
        """Where the private list lies; None where names are kept."""
        return None if self._identifiers == "kept" else list_path(self._out.resolve().name, self._key)

    def save(self, reasons: Sequence[str]) -> None:
        """Write list and card. reasons: why each scan was left out, "" for those that were not."""
        if self.list is not None:
            at = self._private.schema.get_field_index("reason")
            write_list(self.list, self._private.set_column(at, "reason", [list(reasons)]))
        bad = [{"scan_id": name, "reason": why} for name, why in zip(self.names, reasons, strict=True) if why]
        told = {"identifiers": self._identifiers, "key": self._key, "scans": len(self.names), "left_out": bad}
        write_json(self._out / CARD, told)


def names_of_predictions(out: Path) -> pa.Table:
    """The private list of a folder of predictions, see ``names_of``.

    Raises:
        ScanlearnError: names were kept, so there is nothing to lead back; or the list is not on this machine.
    """
    told = read_json(out / CARD, f"{out.name}/{CARD}")
    if told.get("identifiers") == "kept":
        raise ScanlearnError(f"The predictions in {out} go by the names of the scans; there is nothing to look up.")
    key = str(told.get("key", ""))
    if not key.isalnum():  # it becomes part of a path
        raise ScanlearnError(f"{out.name}/{CARD} is damaged: its key is no word.")
    path = list_path(out.resolve().name, key)
    if not path.is_file():  # the folder has another name by now
        path = next(iter(sorted(path.parent.glob(f"*-{key}.parquet"))), path)
    if not path.is_file():
        raise ScanlearnError(
            f"The list that leads from the predictions in {out} to names is not in {path.parent}: it lies with whoever "
            "made them; set SCANLEARN_PRIVATE to its folder."
        )
    return read_list(path)
