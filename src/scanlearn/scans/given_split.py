"""A source divided as a split file says, by the contents of its files."""

from __future__ import annotations

from pathlib import Path

from scanlearn.catalog.split_file import rows_in_split
from scanlearn.console import track
from scanlearn.errors import ScanlearnError
from scanlearn.scans.rows import digests
from scanlearn.scans.sources import ArraySource, FileSource


def in_split(reader: FileSource | ArraySource, file: str | Path) -> tuple[FileSource | ArraySource, str]:
    """(the scans that the split names, with its parts in the column ``split``; hash of the split).

    Every file is hashed, which is how the split knows it. Raises ScanlearnError for a split of other files, and where an
    .npz of arrays holds scans that are in no part.
    """
    count = len(reader.catalog)
    rows, parts, code = rows_in_split([own for own, _ in track(digests(reader), count, "hash")], file)
    if isinstance(reader, FileSource):
        return FileSource(reader.catalog.take(rows).with_column("split", parts), reader.limit_bytes), code
    if len(rows) < count:
        raise ScanlearnError(f"{count - len(rows)} scans of {reader.path.name} are in no part of the split {file}.")
    reader.catalog = reader.catalog.with_column("split", parts)
    return reader, code
