"""One module for each family of file formats.

Each has ``read(path, limit) -> Scan`` and ``header(path, limit) -> S``, the spatial shape that ``read`` would give,
from the file's first bytes. Both refuse with FileError what announces more than ``limit`` decoded bytes, before
anything is decoded. ``scans.read`` chooses among them and turns every other exception into a FileError.
"""
