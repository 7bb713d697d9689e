"""Which known data set the scans of a catalogue come from, kept in the schema of its table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

ORIGIN = b"scanlearn.origin"


def with_origin(table: pa.Table, origin: Mapping[str, Any]) -> pa.Table:
    """The table of a catalogue with ``origin`` kept in its schema.

    origin: {"layout": name, "split": name of the published split, "official": bool, "value_offset": int,
    "masks_on_image": bool}; without a split the two words about it are absent. ``value_offset`` is added to the values
    of the files on reading; ``masks_on_image``: a mask of its image's shape lies on its voxels, whatever headers say.
    """
    kept = dict(table.schema.metadata or {})
    return table.replace_schema_metadata({**kept, ORIGIN: json.dumps(dict(origin)).encode()})


def origin_of(table: pa.Table) -> dict[str, Any]:
    """What ``with_origin`` kept, {} if nothing."""
    found: dict[str, Any] = json.loads((table.schema.metadata or {}).get(ORIGIN, b"{}"))
    return found
